"""Where the token is: exactly one `Authorization: Bearer` header (RFC 6750 section 2.1), and nothing else."""

import re

from sidecar.rejections import Reason, Rejection

_SCHEME = re.compile(rb"bearer(?![A-Za-z0-9!#$%&'*+.^_`|~-])", re.IGNORECASE)


def take(authorization: list[bytes] | None) -> bytes | None:
    """The token of the request, or None when it brings none (no header, or another scheme).

    Raises Rejection: token_ambiguous for two headers (the second could be meant for someone who reads the last),
    token_malformed for a Bearer header without exactly one token.
    """
    if not authorization:
        return None
    if len(authorization) > 1:
        raise Rejection(Reason.TOKEN_AMBIGUOUS, "The request has more than one Authorization header.")
    credentials = authorization[0]
    if credentials[:7].lower() == b"bearer ":  # RFC 9110 section 11.4: any case, one or more spaces; a tab is not a space
        token = credentials[7:].lstrip(b" ")
        if token and b" " not in token and b"\t" not in token:
            return token
    if _SCHEME.match(credentials) is not None:
        raise Rejection(Reason.TOKEN_MALFORMED, "The Authorization header must be the word Bearer, a space, one token.")
    return None
