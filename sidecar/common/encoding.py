"""Writes bytes, numbers and addresses as text."""

from base64 import urlsafe_b64encode


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_uint(number: int, size: int | None = None) -> str:
    """Base64urlUInt (RFC 7518 section 2), padded with zeros to `size` octets if given."""
    return base64url(number.to_bytes(size or (number.bit_length() + 7) // 8))


def host_and_port(host: str, port: object) -> str:
    """An address in the form of a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
