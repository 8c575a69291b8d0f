"""How bytes, numbers and addresses are written as text."""

from base64 import urlsafe_b64encode


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def base64url_uint(number: int, size: int | None = None) -> str:
    """Base64urlUInt of RFC 7518 section 2, or so many octets."""
    return base64url(number.to_bytes(size or (number.bit_length() + 7) // 8))


def host_and_port(host: str, port: object) -> str:
    """An address as it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
