"""Turns a JWK, PEM or secret into a key that can verify, once per refresh.

python-jose chooses the algorithm by the header's `alg` and ignores `kid`, `use`, `key_ops`, the key's own `alg` and its curve.
This module binds each key to the algorithms that it may be used with (RFC 8725 section 3.1), and makes one python-jose key for
each of them (jwt/jwks/algorithms.py).
"""

import re
from collections.abc import Collection
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from sidecar.common.encoding import base64url as encoded
from sidecar.common.encoding import base64url_uint
from sidecar.jwt.compact_jws import base64url
from sidecar.jwt.jwks.algorithms import EC_ALGORITHMS, RSA_ALGORITHMS, SAME_ALGORITHM, SECRET_ALGORITHMS, Key, keys_for

MIN_RSA_BITS = 2048  # RFC 7518 section 3.3
MAX_RSA_BITS = 8192  # a signature check with a larger key takes milliseconds
MAX_KID_LENGTH = 256

THUMBPRINTS = (
    "x5t#S256",
    "x5t",
)  # thumbprints of a key's certificate: RFC 7517 section 4.8 in a JWK, RFC 7515 section 4.1.7 in a token
_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}  # OpenSSL's name -> the name in a JWK
_SURROGATE = re.compile("[\ud800-\udfff]")  # JSON can escape one, and a log cannot hold it
_USES = ("sig", "jwt-svid")  # RFC 7517 section 4.2, and the JWT-SVID specification of SPIFFE section 5
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}


class UnusableKey(Exception):
    """A member of a key set that cannot be used; the text says why and may be logged."""


class VerificationKey:
    """One key: its `kid` (or None), and a `Key` for each algorithm that it may be used with.

    `material` is a public key as the members of its JWK, or a shared secret. Two keys are equal if kid, material and algorithms
    are: a token that one of them verifies, the other verifies too. `thumbprints` are the `x5t` and `x5t#S256` of its JWK.
    `issuer` is the issuer whose tokens the key signs, in a set of many tenants.
    """

    __slots__ = ("_identity", "_material", "by_algorithm", "issuer", "kid", "thumbprints")

    def __init__(
        self,
        kid: str | None,
        material: dict[str, str] | bytes,
        algorithms: Collection[str],
        thumbprints: dict[str, str] | None = None,
        issuer: str | None = None,
    ) -> None:
        self.kid = kid
        self.issuer = issuer
        self.thumbprints = thumbprints or {}
        try:
            self.by_algorithm: dict[str, Key] = keys_for(material, algorithms)
        except ValueError as error:
            raise UnusableKey("its numbers make no key") from error
        self._material = material
        told = sha256(material).digest() if isinstance(material, bytes) else tuple(sorted(material.items()))
        self._identity = (kid, told, tuple(algorithms), issuer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, VerificationKey) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    @property
    def kty(self) -> str:
        """The key type (RFC 7518 section 6.1)."""
        return "oct" if isinstance(self._material, bytes) else self._material["kty"]

    @property
    def public(self) -> bool:
        """Is it a public key, not a secret?"""
        return isinstance(self._material, dict)

    def jwk(self) -> dict[str, Any]:
        """The key as a member of a key set, from which `verification_key` makes an equal key. For public keys only."""
        assert isinstance(self._material, dict)
        named = {} if self.kid is None else {"kid": self.kid}
        bound = {"alg": next(iter(self.by_algorithm))} if len(self.by_algorithm) == 1 else {}
        owned = {} if self.issuer is None else {"issuer": self.issuer}
        return {**self._material, **named, **bound, **self.thumbprints, **owned}

    def __repr__(self) -> str:
        return f"<VerificationKey {self.kid!r}: {', '.join(self.by_algorithm)}>"


def verification_key(member: object, allowed: Collection[str]) -> VerificationKey:
    """Parse one member of a key set (RFC 7517 section 4). Raises UnusableKey.

    `allowed` are the issuer's algorithms. Only public members are read: a private key that was published by mistake counts as its
    public half. A member that is null or empty counts as absent, since some issuers write every member.
    """
    if not isinstance(member, dict):
        raise UnusableKey("it is not an object")
    member = {name: value for name, value in member.items() if value not in (None, "", [], {})}
    kty = member.get("kty")
    if not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        raise UnusableKey("its kty is not RSA, EC or OKP")
    kid = member.get("kid")
    if kid is not None and (not isinstance(kid, str) or len(kid) > MAX_KID_LENGTH):
        raise UnusableKey("its kid is not a short string")
    if kid is not None and _SURROGATE.search(kid):
        raise UnusableKey("its kid is not Unicode text: it holds half of a surrogate pair; remove it")
    if member.get("use", "sig") not in _USES:
        raise UnusableKey("its use is not sig")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise UnusableKey("its key_ops do not hold verify")
    public = {"kty": kty}
    for name in _PUBLIC_MEMBERS[kty]:
        value = member.get(name)
        if not isinstance(value, str) or not value.isascii():
            raise UnusableKey(f"its {name} is missing or not text")
        public[name] = value
    possible = _possible_algorithms(kty, public)
    own = member.get("alg")
    if own is not None:
        wanted = SAME_ALGORITHM.get(own, own) if isinstance(own, str) else None
        possible = tuple(name for name in possible if name == wanted)
    algorithms = tuple(name for name in possible if name in allowed)
    if not algorithms:
        raise UnusableKey("it fits none of the allowed algorithms")
    told = ((name, member.get(name)) for name in THUMBPRINTS)
    thumbprints = {
        name: text for name, text in told if isinstance(text, str) and text.isascii() and len(text) <= MAX_KID_LENGTH
    }
    issuer = member.get("issuer")
    if issuer is not None and (not isinstance(issuer, str) or _SURROGATE.search(issuer)):
        raise UnusableKey("its issuer is not text")
    return VerificationKey(kid, public, algorithms, thumbprints, issuer)


def secret_key(secret: bytes, allowed: Collection[str]) -> VerificationKey:
    """Make a key for HS256, HS384 and HS512 from a secret. Raises UnusableKey.

    No other function makes such keys. The secret is bytes, and JSON never decodes to bytes, so a key set cannot bring one.
    """
    algorithms = tuple(name for name in SECRET_ALGORITHMS if name in allowed)
    if not algorithms:
        raise UnusableKey("it fits none of the allowed algorithms")
    return VerificationKey(None, secret, algorithms)


def public_key(pem: bytes, kid: str | None, allowed: Collection[str]) -> VerificationKey:
    """Make a key from the public key or certificate of a PEM file (RFC 7468 sections 13 and 5), by the rules for JWKs.

    Raises UnusableKey.

    Only the key of a certificate counts, not its dates or its authority: the configuration or the issuer names it.
    """
    if b"PRIVATE KEY-----" in pem:
        raise UnusableKey(
            "it holds a private key; keep it with the signer and use the public half: openssl pkey -pubout"
        )
    try:
        key = _certified(pem) if b"BEGIN CERTIFICATE" in pem else load_pem_public_key(pem)
    except Exception as error:  # parsers raise many types
        raise UnusableKey("it holds no PEM public key or certificate; write one with openssl pkey -pubout") from error
    member = public_members(key)
    if member is None:
        raise UnusableKey("it is not RSA, EC or Ed25519")
    return verification_key(member if kid is None else {**member, "kid": kid}, allowed)


def public_members(key: object) -> dict[str, str] | None:
    """The required members of the JWK of a public key (RFC 7518 section 6, RFC 8037 section 2); None for another kind."""
    match key:
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            return {"kty": "RSA", "n": base64url_uint(numbers.n), "e": base64url_uint(numbers.e)}
        case ec.EllipticCurvePublicKey():
            point, size = key.public_numbers(), (key.key_size + 7) // 8
            x, y = base64url_uint(point.x, size), base64url_uint(point.y, size)
            return {"kty": "EC", "crv": _CURVES.get(key.curve.name, key.curve.name), "x": x, "y": y}
        case Ed25519PublicKey():
            return {"kty": "OKP", "crv": "Ed25519", "x": encoded(key.public_bytes_raw())}
    return None


def _certified(pem: bytes) -> Any:
    from cryptography.x509 import load_pem_x509_certificate  # imported late: it would slow every start

    return load_pem_x509_certificate(pem).public_key()


def _possible_algorithms(kty: str, public: dict[str, str]) -> tuple[str, ...]:
    """The algorithms that a key of this type and curve can be used with. Raises UnusableKey."""
    if kty == "RSA":
        _check_rsa(public["n"], public["e"])
        return RSA_ALGORITHMS
    curve = public["crv"]
    if kty == "EC" and curve in EC_ALGORITHMS:
        return (EC_ALGORITHMS[curve],)
    if kty == "OKP" and curve == "Ed25519":
        return ("EdDSA",)
    raise UnusableKey("its crv is not P-256, P-384, P-521 or Ed25519")


def _check_rsa(modulus: str, exponent: str) -> None:
    try:
        n = int.from_bytes(base64url(modulus.rstrip("=").encode()))
        e = int.from_bytes(base64url(exponent.rstrip("=").encode()))
    except ValueError as error:
        raise UnusableKey("n or e is not base64url") from error
    if not MIN_RSA_BITS <= n.bit_length() <= MAX_RSA_BITS:
        raise UnusableKey(f"its modulus has {n.bit_length()} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are accepted")
    if e < 3 or e % 2 == 0 or e.bit_length() > 32:
        raise UnusableKey("its exponent is not a small odd number from 3")
