"""Tells loopback hosts from others."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Is the host `localhost`, in 127.0.0.0/8, or ::1? No name server is asked."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
