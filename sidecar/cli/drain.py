"""`drain`: tells a running sidecar to drain, or to end the drain. For preStop hooks, so it imports little."""

from sidecar.app.local_socket import CannotAsk, Running
from sidecar.cli.running import who


def drain(one: Running, *, undrain: bool) -> str:
    """Send the command; returns the result for people. Raises CannotAsk."""
    try:
        whom = who(one.ask("GET", "/sidecar"))
        said = one.ask("POST", "/undrain" if undrain else "/drain")
        if undrain:
            return f"ready again, no longer draining: {whom}"
        return (
            f"draining: no longer ready, still serving ({said['in_flight']} requests in flight): {whom}\n"
            "undo it with: jwt-sidecar drain --undrain"
        )
    except (KeyError, TypeError) as error:
        raise CannotAsk(one.silent) from error
