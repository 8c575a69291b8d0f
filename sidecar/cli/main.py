"""The command line: `jwt-sidecar run|check|dev|explain|keys|drain`. Imports only what the command needs.

Exit codes: 0 ended cleanly, 1 failed while running, 2 configuration or usage.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sidecar.cli.quick_imports import quick_imports

if TYPE_CHECKING:
    from sidecar.config import Config

FAILED = 1
USAGE = 2
_DRAIN = "tell the running one to drain, as a preStop hook does: not ready any more, still serving"
_IMPORT = "the configuration of Envoy's jwt_authn or of Istio as one of ours; what has no equivalent is named above it"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command: Callable[[argparse.Namespace], int] = options.command
    return command(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jwt-sidecar",
        description="A reverse proxy beside one backend: verifies the JWT of every request and says why when it refuses.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, function, words in (
        ("run", run, "the proxy"),
        ("check", check, "every problem of the configuration at once"),
        ("dev", dev, "the proxy with an embedded issuer and backend, a token and ready curl lines"),
        ("explain", explain, "what would happen to a request, check by check; its token comes from a file or stdin"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration (YAML)")
        command.set_defaults(command=function)
        if name == "check":
            command.add_argument(
                "--online", action="store_true", help="also fetch every key set and connect to every upstream"
            )
        if name == "explain":
            command.add_argument("--path", required=True, help="the path, with the query if there is one")
            command.add_argument("--method", default="GET", help="the method (GET)")
            command.add_argument("--host", default="localhost", help="the Host that the client names (localhost)")
            command.add_argument("--token-file", metavar="FILE", help="the token; without it stdin, or no token at all")
    command = commands.add_parser("drain", help=_DRAIN, description=_DRAIN)
    where = command.add_mutually_exclusive_group()
    where.add_argument("-c", "--config", metavar="FILE", help="the configuration that says where its admin listener is")
    where.add_argument("--admin", metavar="URL", help="or the URL of that (http://127.0.0.1:9901)")
    command.set_defaults(command=drain)
    command = commands.add_parser("import", help=_IMPORT, description=_IMPORT)
    command.add_argument("program", choices=("envoy", "istio"), help="whose configuration it is")
    command.add_argument("file", metavar="FILE", help="its configuration (YAML or JSON)")
    command.set_defaults(command=import_)
    words = "makes and changes the files of API keys and of signing keys"
    _add_keys(commands.add_parser("keys", help=words, description=words).add_subparsers(required=True, metavar="WHAT"))
    return parser


def _add_keys(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, words in (
        ("new", "add an API key, and print it: the one time that it is shown"),
        ("list", "what a file of either kind holds, without any secret"),
        ("disable", "switch an API key off"),
        ("rotate", "add a signing key, published at once, that takes over later; without a key before it, at once"),
        ("withdraw", "take a signing key out at once, with all that it signed"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        command.add_argument("file", metavar="FILE", help="the file of keys (JSON)")
        command.set_defaults(command=keys, what=name)
        match name:
            case "new":
                command.add_argument("name", metavar="NAME", help="whose key it is: the sub of tokens")
                command.add_argument("--scope", action="append", default=[], help="a scope that it has; again for more")
                command.add_argument(
                    "--claim", action="append", default=[], metavar="NAME=VALUE", help="a claim; JSON or text"
                )
                command.add_argument("--expires", metavar="WHEN", help="90d, or 2026-12-31T23:59:59Z (never)")
            case "disable":
                command.add_argument("id", metavar="ID", help="the key's id, as list shows it")
            case "rotate":
                command.add_argument(
                    "--algorithm", choices=("EdDSA", "RS256", "ES256"), default="EdDSA", help="(EdDSA)"
                )
                command.add_argument(
                    "--ahead", default="15m", help="until it signs, for verifiers to learn of it (15m)"
                )
                command.add_argument("--keep", default="1h", help="from then until the one before is gone (1h)")
            case "withdraw":
                command.add_argument("kid", metavar="KID", help="the key's kid, as list shows it")


def run(options: argparse.Namespace) -> int:
    """`run`: serve until SIGTERM or SIGINT, then drain."""
    config = _load(options.config)
    if config is None:
        return USAGE
    with quick_imports():
        from sidecar.app.server import serve

    forker = None
    if config.workers > 1:
        from sidecar.app.workers.fork import Forker
        from sidecar.app.workers.worker import Worker
        from sidecar.common.clock import Clock

        with suppress(ImportError):
            import uvloop  # noqa: F401  # workers share what is imported before they are made
        forker = Forker(lambda end: _in_loop(Worker(Clock()).work(end)))
    return _in_loop(serve(config, file=Path(options.config), forker=forker))


def dev(options: argparse.Namespace) -> int:
    """`dev`: everything on one machine, to try it."""
    config = _load(options.config)
    if config is None:
        return USAGE
    with quick_imports():
        from sidecar.cli.dev.command import run_dev

    return _in_loop(run_dev(config, options.config))


def check(options: argparse.Namespace) -> int:
    """`check`: exit 2 with every problem, or 0. `--online` problems count too."""
    config = _load(options.config)
    if config is None:
        return USAGE
    from sidecar.cli.check import problems_of, unseen

    problems = _value_in_loop(problems_of(config, online=options.online))
    for problem in problems:
        print(f"{options.config}: {problem}", file=sys.stderr)
    if problems:
        return USAGE
    print(f"{options.config}: no problems found")
    for file in unseen(config):
        print(f"not here, so not looked at: {file}")
    places = ", ".join(source.header or source.cookie or source.query or "" for source in config.token_sources)
    for issuer in config.issuers.values():
        if issuer.preset is not None:
            print(f"issuers.{issuer.name}, with preset {issuer.preset}:")
            print(f"  keys from: {issuer.jwks_uri or issuer.keys_from}")
            print(f"  algorithms: {', '.join(issuer.algorithms)}")
            print(f"  token in: {places}")
    return 0


def keys(options: argparse.Namespace) -> int:
    """`keys`: exit 2 when a file cannot be used or changed."""
    from sidecar.cli import keys as keys_command
    from sidecar.common.errors import Unusable

    work = {
        "new": keys_command.new,
        "list": keys_command.show,
        "disable": keys_command.disable,
        "rotate": keys_command.rotate,
        "withdraw": keys_command.withdraw,
    }
    try:
        work[options.what](options)
    except Unusable as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return USAGE
    return 0


def explain(options: argparse.Namespace) -> int:
    """`explain`: exit 0 when the request would be accepted, 1 when it would be refused, 2 when it cannot be told."""
    config = _load(options.config)
    if config is None:
        return USAGE
    from sidecar.app.explain.explanation import CannotExplain, Question, explain_alone
    from sidecar.common.clock import Clock

    try:
        token = _token(options.token_file)
    except OSError as error:
        print(f"{options.token_file}: {error.strerror}", file=sys.stderr)
        return USAGE
    logging.basicConfig(handlers=[logging.NullHandler()])  # all that matters is told
    question = Question(options.method, options.path, token, options.host)
    try:
        explanation = _value_in_loop(explain_alone(config, question, Clock()))
    except CannotExplain as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return USAGE
    print(explanation)
    return 0 if explanation.rejection is None else FAILED


def import_(options: argparse.Namespace) -> int:
    """`import`: exit 0 with an equivalent configuration, 1 with one that leaves something to be done by hand, 2 without any."""
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
        print(f"{options.file}: not equivalent; the comments say what is left to be done by hand", file=sys.stderr)
    return 0 if result.equivalent and not problems else FAILED


def drain(options: argparse.Namespace) -> int:
    """`drain`: exit 0 when it drains, 1 when nobody answered, 2 when it is not known where to ask."""
    from sidecar.cli.drain import DEFAULT, CannotDrain, admin_url
    from sidecar.cli.drain import drain as ask

    try:
        admin = DEFAULT if options.admin is None else options.admin
        if options.config is not None:
            config = _load(options.config)
            if config is None:
                return USAGE
            admin = admin_url(*config.admin.listen)
        print(ask(admin))
    except ValueError as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return USAGE
    except CannotDrain as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return FAILED
    return 0


def _token(file: str | None) -> bytes | None:
    """What the file, or stdin, holds without the blanks around it; None for nothing, and for a terminal. Raises OSError."""
    if file is not None:
        with open(file, "rb") as opened:
            content = opened.read()
    else:
        content = b"" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read()
    return content.strip() or None


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


def _in_loop(work: Coroutine[Any, Any, None]) -> int:
    from sidecar.app.server import CannotStart

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s", stream=sys.stderr)
    try:
        _value_in_loop(work)
    except CannotStart as error:
        print(f"jwt-sidecar: {error}", file=sys.stderr)
        return FAILED
    return 0


def _value_in_loop(work: Coroutine[Any, Any, Any]) -> Any:
    import asyncio

    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    with suppress(ImportError):  # a platform that it is not built for has asyncio's own loop
        from uvloop import new_event_loop as loop_factory
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(work)
