"""The checks of a token before its claims: its form, its JOSE header, its key and its signature.

Each check decides, and tells operators what it expects and what it found.
"""

import re
from collections.abc import Collection, Sequence

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.compact_jws import Jws, parse
from sidecar.jwt.examination import Examination, several, shown
from sidecar.jwt.issuer_templates import IssuerTemplate
from sidecar.jwt.jwks.algorithms import SAME_ALGORITHM, Key
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.jwk import THUMBPRINTS, VerificationKey
from sidecar.jwt.jwks.shared_fetch import KeysAwaited

Candidates = list[tuple[VerificationKey, Key]]

MOST_LEFT_OUT = 3  # skipped keys in one message
_MEMBERS = ("alg", "kid", "typ", "crit", "b64")  # the members of a header that are read
_PLACE = re.compile(r"\{[^{}]*\}")


class Shape:
    """Three parts of base64url, the first two of them JSON."""

    name = "shape"

    def __init__(self, *, allow_padding: bool) -> None:
        self._allow_padding = allow_padding

    def read(self, token: bytes) -> Jws:
        """The parts of the token. Raises Rejection."""
        return parse(token, allow_padding=self._allow_padding)

    def expected(self, _seen: Examination) -> str:
        return ""

    def found(self, seen: Examination, _now: float) -> str:
        if seen.jws is not None:
            return "a header, a payload and a signature"
        opaque = seen.token is not None and seen.token.count(b".") < 2
        return "an opaque token, which only its issuer can read" if opaque else ""


class HeaderForm:
    """A header that needs no unsupported extension (RFC 7515 section 4.1)."""

    name = "header"

    def read(self, jws: Jws) -> tuple[str, str | None, str]:
        """(alg, kid, typ). Raises Rejection."""
        header = jws.header
        algorithm = header.get("alg")
        if not isinstance(algorithm, str):
            raise Rejection(Reason.TOKEN_MALFORMED, "The token's header has no alg.")
        if "crit" in header or "b64" in header:  # section 4.1.11: an unknown extension must be refused
            raise Rejection(Reason.TOKEN_MALFORMED, "The token's header asks for an extension that is not supported.")
        kid = header.get("kid")
        if "kid" in header and not isinstance(kid, str):
            raise Rejection(Reason.TOKEN_MALFORMED, "The token's kid is not a string.")
        typ = header.get("typ", "absent")
        if not isinstance(typ, str):
            raise Rejection(Reason.TOKEN_MALFORMED, "The token's typ is not a string.")
        if algorithm in SAME_ALGORITHM:
            algorithm = SAME_ALGORITHM[algorithm]
        return algorithm, kid, media_type(typ)

    def expected(self, _seen: Examination) -> str:
        return ""

    def found(self, seen: Examination, _now: float) -> str:
        return ", ".join(f"{member} {shown(seen.header[member])}" for member in _MEMBERS if member in seen.header)


class AcceptedTyp:
    """An accepted `typ` (RFC 8725 section 3.11); the word `absent` accepts a header without one."""

    name = "typ"

    def __init__(self, accepted: Collection[str]) -> None:
        self._accepted = frozenset(map(media_type, accepted))

    def judge(self, typ: str) -> None:
        """Raises Rejection."""
        if typ not in self._accepted:
            raise Rejection(Reason.TOKEN_MALFORMED, "The token's type (typ) is not accepted here.")

    def expected(self, _seen: Examination) -> str:
        return f"one of: {several(sorted(self._accepted))}"

    def found(self, seen: Examination, _now: float) -> str:
        return shown(seen.header.get("typ"))


class TrustedSigner:
    """The header's `signer`, which AWS load balancers set."""

    name = "signer"

    def __init__(self, signer: str) -> None:
        self._signer = signer

    def judge(self, jws: Jws) -> None:
        """Raises Rejection."""
        if jws.header.get("signer") != self._signer:
            raise Rejection(Reason.ISSUER_UNKNOWN, "The token's header names a signer that is not trusted here.")

    def expected(self, _seen: Examination) -> str:
        return shown(self._signer)

    def found(self, seen: Examination, _now: float) -> str:
        return shown(seen.header.get("signer"))


class AllowedAlgorithm:
    """One of the algorithms of its issuer."""

    name = "algorithm"

    def __init__(self, allowed: Collection[str]) -> None:
        self._allowed = frozenset(allowed)

    def judge(self, algorithm: str) -> None:
        """Raises Rejection."""
        if algorithm not in self._allowed:
            raise Rejection(Reason.ALGORITHM_NOT_ALLOWED)

    def expected(self, _seen: Examination) -> str:
        return f"one of: {several(sorted(self._allowed))}"

    def found(self, seen: Examination, _now: float) -> str:
        return shown(seen.header.get("alg"))


class KnownKey:
    """A key that the issuer publishes, and for this token's tenant if the key set is for many tenants."""

    name = "key"

    def __init__(self, issuer: str, source: JwksSource, templates: Sequence[IssuerTemplate]) -> None:
        self._issuer = issuer
        self._source = source
        self._templates = templates

    def candidates(self, jws: Jws, kid: str | None, algorithm: str, awaited: KeysAwaited | None) -> Candidates:
        """The keys that may have signed the token. Raises Rejection and KeysAwaited."""
        keys = self._source.keys_for(kid, algorithm, awaited, _thumbprint(jws) if kid is None else None)
        return self._of_tenant(keys, jws) if self._templates else keys

    def _of_tenant(self, keys: Candidates, jws: Jws) -> Candidates:
        """The keys that are published for this token's tenant. Raises Rejection if there are none.

        In a key set of many tenants each JWK may have an `issuer`, whose tokens the key signs. It must be the token's `iss`, or
        the first template filled for this token. A `{...}` in the JWK's `issuer` stands for the tenant, under any name.
        """
        first, claims = self._templates[0], jws.payload
        tenant, primary = str(claims.get(first.claim)), first.filled_by(claims)
        allowed = (None, primary, claims.get("iss"))
        fitting = [
            pair for pair in keys if (pair[0].issuer and _PLACE.sub(lambda _: tenant, pair[0].issuer)) in allowed
        ]
        if not fitting:
            raise Rejection(Reason.KEY_UNKNOWN, "The issuer publishes this key for the tokens of another tenant.")
        return fitting

    def expected(self, seen: Examination) -> str:
        return f"kid {shown(seen.kid)} for {shown(seen.header.get('alg'))}" if self._source.usable else ""

    def found(self, _seen: Examination, _now: float) -> str:
        if not self._source.usable or self._source.jwks is None:
            return self._source.last_error or "the keys were not fetched yet"
        jwks = self._source.jwks
        left_out = f"; left out: {'; '.join(jwks.skipped[:MOST_LEFT_OUT])}" if jwks.skipped else ""
        return f"{self._issuer} has {several(key.kid for key in jwks.keys)}{left_out}"


class Signature:
    """A signature by one of the candidate keys over the header and the payload."""

    name = "signature"

    def __init__(self, source: JwksSource) -> None:
        self._source = source

    def key(self, jws: Jws, candidates: Candidates, awaited: KeysAwaited | None) -> VerificationKey:
        """The key that has signed the token. Raises Rejection and KeysAwaited."""
        for key, jose_key in candidates:
            if jws.signature and jose_key.verify(jws.signing_input, jws.signature):
                return key
        if awaited is None:
            self._source.reconsider()
        raise Rejection(Reason.SIGNATURE_INVALID)

    def expected(self, _seen: Examination) -> str:
        return ""

    def found(self, seen: Examination, _now: float) -> str:
        return "matches" if seen.key is not None else f"does not match kid {shown(seen.header.get('kid'))}"


def media_type(typ: str) -> str:
    """A `typ` in the form for comparisons: lower case, without `application/` (RFC 7515 section 4.1.9)."""
    return typ.lower().removeprefix("application/")


def _thumbprint(jws: Jws) -> str | None:
    """The thumbprint of the key's certificate in the header, or None. It only selects a key, so an invalid one is ignored."""
    return next((told for name in THUMBPRINTS if isinstance(told := jws.header.get(name), str)), None)
