"""Identity headers with the limits of the configuration's defaults."""

from collections.abc import Mapping

from sidecar.config.limits import Limits
from sidecar.jwt.claims import Path
from sidecar.policy.identity_headers import HeaderLimits, IdentityHeader, IdentityHeaders

MAX_HEADER_BYTES = Limits().identity_header_bytes
MAX_CLAIMS_BYTES = Limits().claims_header_bytes
MAX_ALL_BYTES = Limits().identity_headers_bytes
LIMITS = HeaderLimits(MAX_HEADER_BYTES, MAX_CLAIMS_BYTES, MAX_ALL_BYTES)


def identity_headers(
    mapping: Mapping[str, Path | IdentityHeader],
    claims_header: str | None,
    encoding: str = "percent",
    limits: HeaderLimits = LIMITS,
) -> IdentityHeaders:
    return IdentityHeaders(mapping, claims_header, encoding, limits)
