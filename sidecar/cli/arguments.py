"""The command line: every command with its options."""

import argparse
from collections.abc import Callable, Mapping

from sidecar.cli.running import add_options

Command = Callable[[argparse.Namespace], int | None]
SHELLS = ("bash", "zsh", "fish")


def parser(commands: Mapping[str, Command], chosen: str = "") -> argparse.ArgumentParser:
    """The parser. `commands` maps the name of each command to its function.

    If `chosen` is a command, the parser knows only this one. The start does not wait for the options of the others.
    """
    parser = argparse.ArgumentParser(
        prog="jwt-sidecar",
        description="A reverse proxy beside one backend. It verifies the JWT of every request, and says why it refuses one.",
    )
    parser.add_argument("--version", action=_Version, help="print the version")
    below = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in [chosen] if chosen in _COMMANDS else _COMMANDS:
        words, add = _COMMANDS[name]
        command = below.add_parser(name, help=words, description=words)
        command.set_defaults(command=commands[name])
        add(command)
    return parser


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("-c", "--config", metavar="FILE", required=True, help="the configuration (YAML)")


def _add_check(command: argparse.ArgumentParser) -> None:
    _add_config(command)
    command.add_argument("--online", action="store_true", help="also fetch every key set and connect to every upstream")


def _add_explain(command: argparse.ArgumentParser) -> None:
    add_options(command, "the configuration that decides; with --id the sidecar that runs with it")
    which = command.add_mutually_exclusive_group(required=True)
    which.add_argument("--path", help="the path, with the query")
    which.add_argument("--url", help="instead of --path: the URL that the client asks for")
    which.add_argument(
        "--curl", metavar="LINE", help="instead of --path: a whole curl line in quotes; - reads it from stdin"
    )
    which.add_argument(
        "--id", metavar="REQUEST_ID", help="instead of --path: one of the last refusals of a running sidecar"
    )
    command.add_argument("--method", help="the method (default: GET)")
    command.add_argument("--host", help="the Host that the client names (default: localhost)")
    command.add_argument(
        "--token-file", metavar="FILE", help="the file with the token; without it stdin has the token, or there is none"
    )


def _add_probe(command: argparse.ArgumentParser) -> None:
    command.add_argument("--live", action="store_true", help="exit with 0 if it answers, ready or not")
    command.add_argument("--health", metavar="URL", help="ask this health listener, such as http://127.0.0.1:8081")
    add_options(command)


def _add_drain(command: argparse.ArgumentParser) -> None:
    command.add_argument("--undrain", action="store_true", help="end the drain: it is ready again")
    add_options(command)


def _add_import(command: argparse.ArgumentParser) -> None:
    command.add_argument("program", choices=("envoy", "istio"), help="the program that the configuration is for")
    command.add_argument("file", metavar="FILE", help="the program's configuration (YAML or JSON)")


def _add_completion(command: argparse.ArgumentParser) -> None:
    command.add_argument("shell", choices=SHELLS, help="the shell")


def _add_keys(keys: argparse.ArgumentParser) -> None:
    below = keys.add_subparsers(required=True, metavar="WHAT")
    for name, words in (
        ("new", "add an API key, and print it; it is shown only now"),
        ("list", "list the keys of a file of API keys or of signing keys, without secrets"),
        ("disable", "disable an API key"),
        ("rotate", "add a signing key: it is published now, and signs later (the first key signs now)"),
        ("withdraw", "remove a signing key now; a verifier refuses its tokens once it has read the key set again"),
    ):
        command = below.add_parser(name, help=words, description=words)
        command.add_argument("file", metavar="FILE", help="the file of keys (JSON)")
        command.set_defaults(what=name)
        match name:
            case "new":
                command.add_argument(
                    "name", metavar="NAME", help="the holder of the key, which becomes the sub of tokens"
                )
                command.add_argument(
                    "--scope", action="append", default=[], help="a scope of the key; may be given several times"
                )
                command.add_argument(
                    "--claim",
                    action="append",
                    default=[],
                    metavar="NAME=VALUE",
                    help="a claim, in JSON or text; may be given several times",
                )
                command.add_argument("--expires", metavar="WHEN", help="90d, or 2026-12-31T23:59:59Z (default: never)")
            case "disable":
                command.add_argument("id", metavar="ID", help="the key's id, as list shows it")
            case "rotate":
                command.add_argument(
                    "--algorithm",
                    choices=("EdDSA", "RS256", "ES256"),
                    default="EdDSA",
                    help="the algorithm of its signatures (default: EdDSA)",
                )
                command.add_argument(
                    "--ahead",
                    default="15m",
                    help="the time before it signs, in which verifiers fetch the key set (default: 15m)",
                )
                command.add_argument(
                    "--keep", default="1h", help="how long the previous key stays published after that (default: 1h)"
                )
            case "withdraw":
                command.add_argument("kid", metavar="KID", help="the key's kid, as list shows it")
        if name in ("disable", "withdraw"):
            command.add_argument("--last", action="store_true", help="even if it is the last good key")


_COMMANDS: Mapping[str, tuple[str, Callable[[argparse.ArgumentParser], None]]] = {
    "run": ("run the proxy", _add_config),
    "check": ("list every problem of a configuration", _add_check),
    "dev": (
        "run the proxy with an issuer, and with a backend if none listens at upstream; print a token and curl lines",
        _add_config,
    ),
    "explain": (
        "say check by check whether a request would be accepted; the token comes from a file or stdin",
        _add_explain,
    ),
    "status": ("print the state and the problems of a running sidecar (exit code 0 also with problems)", add_options),
    "report": (
        "print what report mode would have refused, and which rules are safe to enforce (exit code 1: not all)",
        add_options,
    ),
    "probe": ("exit with 0 if a running sidecar is ready: for health checks of Compose and podman", _add_probe),
    "drain": ("let a running sidecar drain, for a preStop hook: it is no longer ready, and still serves", _add_drain),
    "import": (
        "turn a configuration of Envoy's jwt_authn or of Istio into one of the sidecar; comments name what has no equivalent",
        _add_import,
    ),
    "keys": ("make and change files of API keys and of signing keys", _add_keys),
    "completion": ("print a script that completes these commands in a shell", _add_completion),
}
"""Each command: what it does, and the function that adds its options."""


class _Version(argparse.Action):
    """Looks up the version only on `--version`."""

    def __init__(self, option_strings: list[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        import platform
        from importlib.metadata import version

        from sidecar.http import framing

        compiled = "" if framing.__file__.endswith(".py") else ", compiled"
        print(f"jwt-sidecar {version('jwt-sidecar')} (Python {platform.python_version()}{compiled})")
        parser.exit()
