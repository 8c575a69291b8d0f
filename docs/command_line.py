"""The reference of the command line, docs/reference/cli.md, made from its parser: `python -m docs.reference`."""

import argparse
from collections import defaultdict
from collections.abc import Iterator

from sidecar.cli.arguments import parser

_HEAD = """\
# Command line

`jwt-sidecar COMMAND`, or `python -m sidecar COMMAND`. `jwt-sidecar COMMAND --help` prints the same, and `--version` the version.
`python -m docs.reference` makes this page from the program.

| you want to | command |
| --- | --- |
| serve | [`run`](#jwt-sidecar-run) |
| try everything on one machine | [`dev`](#jwt-sidecar-dev) |
| find the mistakes in a configuration | [`check`](#jwt-sidecar-check) |
| know why a request is refused | [`explain`](#jwt-sidecar-explain) |
| know what a running sidecar does | [`status`](#jwt-sidecar-status), [`probe`](#jwt-sidecar-probe) |
| see what report mode would refuse | [`report`](#jwt-sidecar-report) |
| stop without losing a request | [`drain`](#jwt-sidecar-drain) |
| make API keys, or rotate signing keys | [`keys`](#jwt-sidecar-keys-new) |
| translate a configuration of Envoy or Istio | [`import`](#jwt-sidecar-import) |

| exit code | means |
| --- | --- |
| 0 | success. `explain`: the request is accepted. `probe`: ready. `report`: every rule is safe to enforce |
| 1 | failure. `explain`: refused. `probe`: not ready. `report`: not every rule is safe. `import`: some work is left for you |
| 2 | the configuration or the command line is wrong |

`status`, `report`, `probe`, `drain` and `explain --id` find the running sidecar of the same user and container (Linux).
Where several run, name one with `--pid` or `-c FILE`. Elsewhere they ask `http://127.0.0.1:9901`, or what `--admin` names.
"""


def command_line() -> str:
    """Markdown: a section for each command, with a table of its arguments."""
    return "\n".join([_HEAD, *_sections(parser(defaultdict(lambda: lambda _: 0)))])


def _sections(command: argparse.ArgumentParser) -> Iterator[str]:
    for action in command._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _sections(below)
            return
    rows = [_row(action) for action in command._actions if not isinstance(action, argparse._HelpAction)]
    yield "\n".join(
        [
            f"## `{command.prog}`",
            "",
            _sentence(command.description or ""),
            "",
            *(["| argument | meaning |", "| --- | --- |", *rows, ""] if rows else []),
        ]
    )


def _row(action: argparse.Action) -> str:
    value = "" if action.nargs == 0 else action.metavar or ("" if action.choices else action.dest.upper())
    names = ", ".join(f"`{f'{name} {value}'.rstrip()}`" for name in action.option_strings or [""] if name or value)
    names = names.replace("` ", "`") or f"`{action.dest.upper()}`"
    choices = f" One of {', '.join(f'`{one}`' for one in action.choices)}." if action.choices else ""
    required = "**Required.** " if action.required and action.option_strings else ""
    return f"| {names} | {required}{_sentence(action.help or '')}{choices} |"


def _sentence(words: str) -> str:
    """With a capital and a full stop."""
    words = words.strip().replace("|", r"\|")
    return f"{words[:1].upper()}{words[1:]}{'' if words.endswith(('.', '?')) else '.'}"
