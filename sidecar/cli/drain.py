"""`drain`: tells a running sidecar to drain, or to end that. For a preStop hook, so it imports next to nothing."""

from sidecar.app.running import CannotAsk, Running
from sidecar.cli.running import who


def drain(one: Running, *, undrain: bool) -> str:
    """Ask it; what happened, for people. Raises CannotAsk."""
    try:
        whom = who(one.ask("GET", "/sidecar"))
        said = one.ask("POST", "/undrain" if undrain else "/drain")
        if undrain:
            return f"ready again, not draining any more: {whom}"
        return (
            f"draining: not ready any more, still serving ({said['in_flight']} requests in flight): {whom}\n"
            "jwt-sidecar drain --undrain takes it back"
        )
    except (KeyError, TypeError) as error:
        raise CannotAsk(one.silent) from error
