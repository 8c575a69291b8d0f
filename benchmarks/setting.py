"""The setting of one work, equal for every peer: origin, issuers, checks and headers."""

from dataclasses import dataclass
from pathlib import Path

from benchmarks.issuer import Issuer
from benchmarks.process import PROXY_CORE

CLAIM_HEADERS = {"X-JWT-Sub": "sub", "X-JWT-Scope": "scope"}
"""Two claims of the verified token, each as a header to the origin."""
CLAIMS_HEADER = "X-JWT-Claims"
"""All verified claims as base64url(JSON), where a work asks for it."""
SEEN = "/headers"
"""The path where an origin answers with those of ECHOED that it saw."""
ECHOED = [*CLAIM_HEADERS, CLAIMS_HEADER, "Authorization"]
CLOCK_SKEW_S = 60
BULK_BYTES = 1 << 30


@dataclass(frozen=True)
class Setting:
    """A token of any of `issuers` opens everything, except below `routes`, each of which takes only one issuer's."""

    directory: Path
    origin: int
    """Port of the origin on 127.0.0.1."""
    issuers: tuple[Issuer, ...]
    routes: tuple[tuple[str, Issuer], ...] = ()
    """Path prefix (ending in `/`) and whose tokens it takes."""
    claims_header: bool = False
    access_log: bool = False
    tls: bool = False
    """Between the client and the proxy, with the key and certificate of `benchmarks.certificate`."""
    cores: str = PROXY_CORE
