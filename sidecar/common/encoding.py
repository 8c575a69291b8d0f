"""How bytes are written as text."""

from base64 import urlsafe_b64encode


def base64url(data: bytes) -> str:
    """Unpadded base64url (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()
