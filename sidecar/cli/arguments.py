"""What can be written on the command line: every command with its options."""

import argparse
from collections.abc import Callable, Mapping

from sidecar.cli.running import add_options

Command = Callable[[argparse.Namespace], int]
_IMPORT = "the configuration of Envoy's jwt_authn or of Istio as one of ours; what has no equivalent is named above it"
_EXPLAIN = "what would happen to a request, check by check; its token comes from a file or stdin"
SHELLS = ("bash", "zsh", "fish")


def parser(commands: Mapping[str, Command]) -> argparse.ArgumentParser:
    """The parser; `commands` are what the words of the first argument stand for."""
    parser = argparse.ArgumentParser(
        prog="jwt-sidecar",
        description="A reverse proxy beside one backend: verifies the JWT of every request and says why when it refuses.",
    )
    parser.add_argument("--version", action=_Version, help="say which version this is")
    below = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, words: str) -> argparse.ArgumentParser:
        command = below.add_parser(name, help=words, description=words)
        command.set_defaults(command=commands[name])
        return command

    for name, words in (
        ("run", "the proxy"),
        ("check", "every problem of the configuration at once"),
        ("dev", "the proxy with an embedded issuer and backend, a token and ready curl lines"),
    ):
        command = add(name, words)
        command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration (YAML)")
        if name == "check":
            command.add_argument(
                "--online", action="store_true", help="also fetch every key set and connect to every upstream"
            )
    _add_explain(add("explain", _EXPLAIN))
    add_options(add("status", "what the running one does, and what is wrong: what its page says, for a terminal"))
    add_options(
        add("report", "what report mode would have refused, and which rules are safe to enforce; exit 1: not all")
    )
    command = add("probe", "is the running one ready? Exit 0: yes. For health checks of Compose and podman")
    command.add_argument("--live", action="store_true", help="only whether it answers, ready or not")
    command.add_argument("--health", metavar="URL", help="ask this health listener, as http://127.0.0.1:8081")
    add_options(command)
    words = "tell the running one to drain, as a preStop hook does: not ready any more, still serving"
    command = add("drain", words)
    command.add_argument("--undrain", action="store_true", help="take it back: ready again")
    add_options(command)
    command = add("import", _IMPORT)
    command.add_argument("program", choices=("envoy", "istio"), help="whose configuration it is")
    command.add_argument("file", metavar="FILE", help="its configuration (YAML or JSON)")
    words = "makes and changes the files of API keys and of signing keys"
    _add_keys(
        below.add_parser("keys", help=words, description=words).add_subparsers(required=True, metavar="WHAT"),
        commands["keys"],
    )
    command = add("completion", "a script that lets a shell complete these commands, to be sourced by it")
    command.add_argument("shell", choices=SHELLS, help="for which shell")
    return parser


def _add_explain(command: argparse.ArgumentParser) -> None:
    add_options(command)
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--path", help="the path, with the query if there is one")
    which.add_argument("--url", help="or the URL that a client asks for")
    which.add_argument("--curl", metavar="LINE", help="or a whole curl line in quotes; - for stdin")
    which.add_argument("--id", metavar="REQUEST_ID", help="or one of the last refusals of the running one")
    command.add_argument("--method", help="the method (GET)")
    command.add_argument("--host", help="the Host that the client names (localhost)")
    command.add_argument("--token-file", metavar="FILE", help="the token; without it stdin, or no token at all")


def _add_keys(below: "argparse._SubParsersAction[argparse.ArgumentParser]", keys: Command) -> None:
    for name, words in (
        ("new", "add an API key, and print it: the one time that it is shown"),
        ("list", "what a file of either kind holds, without any secret"),
        ("disable", "switch an API key off"),
        ("rotate", "add a signing key, published at once, that takes over later; without a key before it, at once"),
        ("withdraw", "take a signing key out at once, with all that it signed"),
    ):
        command = below.add_parser(name, help=words, description=words)
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
        if name in ("disable", "withdraw"):
            command.add_argument("--last", action="store_true", help="also where it is the last that is good")


class _Version(argparse.Action):
    """Looks the version up only when it is asked for."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        import platform
        from importlib.metadata import version

        from sidecar.http import framing

        compiled = "" if framing.__file__.endswith(".py") else ", compiled"
        print(f"jwt-sidecar {version('jwt-sidecar')} (Python {platform.python_version()}{compiled})")
        parser.exit()
