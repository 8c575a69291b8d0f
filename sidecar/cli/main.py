"""The command line: runs a command and returns its exit code. Each command imports only the modules that it needs.

Exit codes: 0 ended cleanly, 1 failed while running, 2 configuration or usage.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.cli.arguments import Command, parser
from sidecar.cli.quick_imports import quick_imports
from sidecar.common.stderr import say

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from sidecar.app.local_socket import Running
    from sidecar.config import Config

    LoopFactory = Callable[[], AbstractEventLoop]

FAILED = 1
USAGE = 2


class Stop(Exception):
    """The end of a command with this exit code; the text says why."""

    def __init__(self, text: str, code: int = USAGE) -> None:
        super().__init__(text)
        self.code = code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser(COMMANDS, given[0] if given else "").parse_args(given)
    command: Command = options.command
    try:
        return _code(lambda: command(options))
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        sys.stdout = None
        return FAILED


def run(options: argparse.Namespace) -> None:
    """`run`: serve until SIGTERM or SIGINT, then drain."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves: there is no configuration to reload yet
    config = _load(options.config)
    with quick_imports():
        import asyncio

        from sidecar.app.server import CannotStart, build, serve

    file = Path(options.config)
    if config.workers == 1:
        return _in_loop(serve(lambda: build(config, file=file)))
    from sidecar.app.workers.sidecars import Sidecars

    with suppress(ImportError):
        import uvloop  # noqa: F401  # workers share the modules that are imported before the fork
    with _stopped_by(CannotStart, code=FAILED):
        sidecars = Sidecars(config, file, lambda work: _code(lambda: _in_loop(work)))
    return _in_loop(serve(lambda: sidecars), asyncio.new_event_loop)  # uvloop does not support abstract sockets


def dev(options: argparse.Namespace) -> None:
    """`dev`: everything on one machine, to try it."""
    config = _load(options.config)
    with quick_imports():
        from sidecar.cli.dev.command import run_dev

    _in_loop(run_dev(config, options.config))


def check(options: argparse.Namespace) -> int:
    """`check`: print every problem; exit 2 with problems, 0 without. Problems of `--online` count too."""
    config = _load(options.config)
    from sidecar.cli.check import preset_lines, problems_of, seen_as_root, unseen

    if problems := _value_in_loop(problems_of(config, online=options.online)):
        raise Stop("\n".join(f"{options.config}: {problem}" for problem in problems))
    print(f"{options.config}: no problems found")
    for file in unseen(config):
        print(f"missing here, so not checked: {file}")
    if seen_as_root(config):
        print("checked as root: run it as the user of the sidecar to find files that this user cannot read")
    for line in preset_lines(config):
        print(line)
    return 0


def keys(options: argparse.Namespace) -> None:
    """`keys`: exit 2 if a file cannot be used or changed."""
    from sidecar.cli.keys import WORK
    from sidecar.common.errors import Unusable

    with _stopped_by(Unusable):
        WORK[options.what](options)


def explain(options: argparse.Namespace) -> int:
    """`explain`: exit 0 if the request would be accepted, 1 if it would be refused, 2 if that is unknown."""
    if options.id is not None:
        return _ask(options, _explain_refusal)
    if options.config is None:
        raise Stop("jwt-sidecar: -c FILE is missing; name the configuration")
    config = _load(options.config)
    from sidecar.app.explain.explanation import explain_alone
    from sidecar.app.explain.question import CannotExplain
    from sidecar.cli.curl import NotUnderstood
    from sidecar.cli.explain import question
    from sidecar.common.clock import Clock
    from sidecar.common.masking import without_tokens

    logging.basicConfig(handlers=[logging.NullHandler()])  # the explanation has all details
    try:
        with _stopped_by(CannotExplain, NotUnderstood):
            explanation = _value_in_loop(explain_alone(config, question(options), Clock()))
    except OSError as error:
        name = without_tokens(options.token_file)
        raise Stop(f"{name}: {error.strerror}; --token-file takes a file that holds the token") from error
    print(explanation)
    return 0 if explanation.rejection is None else FAILED


def _explain_refusal(one: "Running", options: argparse.Namespace) -> int:
    from sidecar.cli.explain import refusal

    lines, refused = refusal(one, options.id)
    print("\n".join(lines))
    return FAILED if refused else 0


def import_(options: argparse.Namespace) -> int:
    """`import`: exit 0 with an equivalent configuration, 1 if something is left to do by hand, 2 on failure."""
    from sidecar.cli.convert.command import imported, problems_of
    from sidecar.cli.convert.reading import NotUnderstood

    try:
        result = imported(options.program, options.file)
    except (NotUnderstood, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise Stop(f"{options.file}: {why}") from error
    text = result.text(options.file)
    print(text, end="")
    problems = problems_of(text)
    if not result.equivalent:
        problems.append(f"{options.file}: not equivalent; the comments in the output list what you must do by hand")
    if problems:
        raise Stop("\n".join(problems), FAILED)
    return 0


def drain(options: argparse.Namespace) -> int:
    """`drain`: exit 0 if the sidecar drains, 1 if none answers, 2 if its address is unknown."""
    from sidecar.cli.drain import drain as ask

    return _ask(options, lambda one, _: print(ask(one, undrain=options.undrain)))


def status(options: argparse.Namespace) -> int:
    """`status`: exit 0, or 1 if no sidecar answers."""
    return _ask(options, _status)


def _status(one: "Running", _options: argparse.Namespace) -> None:
    from sidecar.cli.status import status as lines

    told = one.ask("GET", "/status?most=0")
    issuers, upstreams, routes = (one.ask("GET", f"/{name}")[name] for name in ("issuers", "upstreams", "routes"))
    print("\n".join(lines(told, issuers, upstreams, routes, one.ask("GET", "/configuration")["refused"])))


def report(options: argparse.Namespace) -> int:
    """`report`: exit 0 if all rules in report mode are safe to enforce, else 1."""
    return _ask(options, _report)


def _report(one: "Running", _options: argparse.Namespace) -> int:
    from sidecar.cli.status import report as lines

    told = one.ask("GET", "/report")
    print("\n".join(lines(told)))
    return 0 if told["safe"] else FAILED


def probe(options: argparse.Namespace) -> int:
    """`probe`: exit 0 if the sidecar is ready, 1 if not, or if none answers."""
    if options.health is not None:
        with _answered():
            return _probe(options.health, options)
    return _ask(options, lambda one, options: _probe(one.ask("GET", "/sidecar")["health"], options))


def _probe(listener: str, options: argparse.Namespace) -> int:
    from sidecar.app.local_socket import health

    good, said = health(listener, "/livez" if options.live else "/readyz")
    print(said)
    return 0 if good else FAILED


def completion(options: argparse.Namespace) -> None:
    """`completion`: print the script for a shell."""
    import shtab

    print(shtab.complete(parser(COMMANDS), options.shell))


def _ask(options: argparse.Namespace, work: "Callable[[Running, argparse.Namespace], int | None]") -> int:
    """Run a command that asks a running sidecar."""
    from sidecar.cli.running import chosen

    with _answered():
        return work(chosen(options), options) or 0


@contextmanager
def _answered() -> Iterator[None]:
    """Exit code 1 if the sidecar does not answer, 2 if its address is unknown."""
    from sidecar.app.local_socket import CannotAsk

    with _stopped_by(ValueError), _stopped_by(CannotAsk, code=FAILED):
        yield


def _load(path: str) -> "Config":
    with quick_imports():
        from sidecar.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        raise Stop(str(error)) from error


@contextmanager
def _stopped_by(*kinds: type[Exception], code: int = USAGE) -> Iterator[None]:
    """End the command with this exit code when one of these comes."""
    try:
        yield
    except kinds as error:
        raise Stop(f"jwt-sidecar: {error}", code) from error


def _code(work: "Callable[[], int | None]") -> int:
    """The exit code of a command; says why it stopped."""
    try:
        return work() or 0
    except Stop as stop:
        say(str(stop))
        return stop.code


def _in_loop(work: Coroutine[Any, Any, None], loop_factory: "LoopFactory | None" = None) -> None:
    from sidecar.app.server import CannotStart

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    with _stopped_by(CannotStart, code=FAILED):
        _value_in_loop(work, loop_factory)


def _value_in_loop(work: Coroutine[Any, Any, Any], loop_factory: "LoopFactory | None" = None) -> Any:
    import asyncio

    if loop_factory is None:
        with suppress(ImportError):  # platforms without uvloop use asyncio's loop
            from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)


COMMANDS: dict[str, Command] = {
    "run": run,
    "check": check,
    "dev": dev,
    "explain": explain,
    "status": status,
    "report": report,
    "probe": probe,
    "drain": drain,
    "import": import_,
    "keys": keys,
    "completion": completion,
}
