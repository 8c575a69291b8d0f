"""Which hosts are this machine."""

import ipaddress


def is_loopback(host: str | None) -> bool:
    """Is it this host, without asking a name server: `localhost`, 127.0.0.0/8 or ::1?"""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False
