"""The command line: runs a command and returns its exit code. Each command imports only the modules that it needs.

Exit codes: 0 ended cleanly, 1 failed while running, 2 configuration or usage.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.cli.arguments import Command, parser
from sidecar.cli.quick_imports import quick_imports

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from sidecar.app.local_socket import Running
    from sidecar.config import Config

    LoopFactory = Callable[[], AbstractEventLoop]

FAILED = 1
USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = parser(COMMANDS).parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except BrokenPipeError:  # the reader has closed the pipe, as `head` does
        sys.stdout = None
        return FAILED


def run(options: argparse.Namespace) -> int:
    """`run`: serve until SIGTERM or SIGINT, then drain."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it serves: there is no configuration to reload yet
    config = _load(options.config)
    if config is None:
        return USAGE
    with quick_imports():
        import asyncio

        from sidecar.app.server import CannotStart, build, serve

    file = Path(options.config)
    if config.workers == 1:
        return _in_loop(serve(lambda: build(config, file=file)))
    from sidecar.app.workers.sidecars import Sidecars

    with suppress(ImportError):
        import uvloop  # noqa: F401  # workers share the modules that are imported before the fork
    try:
        sidecars = Sidecars(config, file, _in_loop)
    except CannotStart as error:
        return _failed(error)
    return _in_loop(serve(lambda: sidecars), asyncio.new_event_loop)  # uvloop does not support abstract sockets


def dev(options: argparse.Namespace) -> int:
    """`dev`: everything on one machine, to try it."""
    config = _load(options.config)
    if config is None:
        return USAGE
    with quick_imports():
        from sidecar.cli.dev.command import run_dev

    return _in_loop(run_dev(config, options.config))


def check(options: argparse.Namespace) -> int:
    """`check`: print every problem; exit 2 with problems, 0 without. Problems of `--online` count too."""
    config = _load(options.config)
    if config is None:
        return USAGE
    from sidecar.cli.check import preset_lines, problems_of, unseen

    problems = _value_in_loop(problems_of(config, online=options.online))
    for problem in problems:
        print(f"{options.config}: {problem}", file=sys.stderr)
    if problems:
        return USAGE
    print(f"{options.config}: no problems found")
    for file in unseen(config):
        print(f"missing here, so not checked: {file}")
    for line in preset_lines(config):
        print(line)
    return 0


def keys(options: argparse.Namespace) -> int:
    """`keys`: exit 2 if a file cannot be used or changed."""
    from sidecar.cli.keys import WORK
    from sidecar.common.errors import Unusable

    try:
        WORK[options.what](options)
    except Unusable as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return USAGE
    return 0


def explain(options: argparse.Namespace) -> int:
    """`explain`: exit 0 if the request would be accepted, 1 if it would be refused, 2 if that is unknown."""
    if options.id is not None:
        return _ask(options, _explain_refusal)
    if options.config is None:
        print("jwt-sidecar: -c FILE is missing; name the configuration", file=sys.stderr)
        return USAGE
    config = _load(options.config)
    if config is None:
        return USAGE
    from sidecar.app.explain.explanation import explain_alone
    from sidecar.app.explain.question import CannotExplain
    from sidecar.cli.curl import NotUnderstood
    from sidecar.cli.explain import question
    from sidecar.common.clock import Clock
    from sidecar.common.masking import without_tokens

    logging.basicConfig(handlers=[logging.NullHandler()])  # the explanation has all details
    try:
        explanation = _value_in_loop(explain_alone(config, question(options), Clock()))
    except OSError as error:
        name = without_tokens(options.token_file)
        print(f"{name}: {error.strerror}; --token-file takes a file that holds the token", file=sys.stderr)
        return USAGE
    except (CannotExplain, NotUnderstood) as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return USAGE
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
    except NotUnderstood as error:
        print(f"{options.file}: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"{options.file}: {error.strerror}", file=sys.stderr)
        return USAGE
    text = result.text(options.file)
    print(text, end="")
    problems = problems_of(text)
    for problem in problems:
        print(problem, file=sys.stderr)
    if not result.equivalent:
        print(
            f"{options.file}: not equivalent; the comments in the output list what you must do by hand", file=sys.stderr
        )
    return 0 if result.equivalent and not problems else FAILED


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
        return _told(lambda: _probe(options.health, options))
    return _ask(options, lambda one, options: _probe(one.ask("GET", "/sidecar")["health"], options))


def _probe(listener: str, options: argparse.Namespace) -> int:
    from sidecar.app.local_socket import health

    good, said = health(listener, "/livez" if options.live else "/readyz")
    print(said)
    return 0 if good else FAILED


def completion(options: argparse.Namespace) -> int:
    """`completion`: print the script for a shell."""
    import shtab

    print(shtab.complete(parser(COMMANDS), options.shell))
    return 0


def _ask(options: argparse.Namespace, work: "Callable[[Running, argparse.Namespace], int | None]") -> int:
    """Run a command that asks a running sidecar."""
    from sidecar.cli.running import chosen

    return _told(lambda: work(chosen(options), options) or 0)


def _told(work: "Callable[[], int]") -> int:
    """The exit code of a command that asks a sidecar: 1 if it does not answer, 2 if its address is unknown."""
    from sidecar.app.local_socket import CannotAsk

    try:
        return work()
    except ValueError as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return USAGE
    except CannotAsk as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return FAILED


def _load(path: str) -> "Config | None":
    with quick_imports():
        from sidecar.config import ConfigError, load

    try:
        return load(path)
    except ConfigError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        print(f"{path}: {error.strerror}", file=sys.stderr)
    return None


def _in_loop(work: Coroutine[Any, Any, None], loop_factory: "LoopFactory | None" = None) -> int:
    from sidecar.app.server import CannotStart

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        _value_in_loop(work, loop_factory)
    except CannotStart as error:
        return _failed(error)
    return 0


def _failed(error: Exception) -> int:
    print(f"jwt-sidecar: {error}", file=sys.stderr)
    return FAILED


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
