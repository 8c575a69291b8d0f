"""Tells loopback hosts from others, and the loopback address of a listener on all interfaces."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Is the host `localhost`, in 127.0.0.0/8, or ::1? No name server is asked."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def from_here(host: str) -> str:
    """The host under which this machine reaches a listener that is bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
