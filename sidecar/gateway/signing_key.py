"""Private keys that sign tokens, and the key set with which others verify them."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.common.encoding import base64url, base64url_uint
from sidecar.common.errors import Unusable
from sidecar.common.file_content import content
from sidecar.common.watched_file import unread
from sidecar.jwt.compact_jws import base64url as decoded
from sidecar.jwt.jwks.jwk import MIN_RSA_BITS, public_members

ALGORITHMS = ("EdDSA", "RS256", "ES256")  # the first is what Zuplo's JWT service signs with

PrivateKey = Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class SigningKey:
    """A private key with its one algorithm (RFC 8725 section 3.1).

    Ed25519 signs EdDSA (RFC 8037), RSA signs RS256, P-256 signs ES256 (RFC 7518). Raises ValueError for any other key. `kid` is
    the JWK thumbprint (RFC 7638), so every process gives the same key the same kid.
    """

    def __init__(self, private_key: PrivateKey) -> None:
        self._private_key = private_key
        self.alg, members = _public(private_key)
        self.kid = base64url(hashlib.sha256(_json(dict(sorted(members.items())))).digest())
        self.jwk: dict[str, str] = {**members, "kid": self.kid, "alg": self.alg, "use": "sig"}

    @classmethod
    def generate(cls, alg: str) -> "SigningKey":
        """Make a new key for EdDSA, RS256 (2048 bits) or ES256. Raises ValueError for any other algorithm."""
        match alg:
            case "EdDSA":
                return cls(Ed25519PrivateKey.generate())
            case "RS256":
                return cls(rsa.generate_private_key(public_exponent=65537, key_size=2048))
            case "ES256":
                return cls(ec.generate_private_key(ec.SECP256R1()))
        raise ValueError(f"no key can be made for {alg!r}; one of: {', '.join(ALGORITHMS)}")

    @classmethod
    def load(cls, file: Path, alg: str) -> "SigningKey":
        """Load a key for `alg` from a PEM file (PKCS #8 or an older form, not encrypted). Raises Unusable."""
        try:
            key = cls(load_pem_private_key(content(file), password=None))  # type: ignore[arg-type]  # any other: ValueError
        except OSError as error:
            raise Unusable(unread(file, error)) from error
        except (TypeError, ValueError, UnsupportedAlgorithm) as error:  # TypeError: it is encrypted
            raise Unusable(f"{file}: holds no PEM private key of Ed25519, RSA or P-256, or an encrypted one") from error
        if key.alg != alg:
            raise Unusable(f"{file}: its key signs {key.alg}, and {alg} is configured")
        return key

    @classmethod
    def of_jwk(cls, jwk: Mapping[str, Any]) -> "SigningKey":
        """Make a key from a private JWK (RFC 7517 section 9.3). Raises ValueError with a text that holds nothing of the key."""
        kty, crv = jwk.get("kty"), jwk.get("crv")
        try:
            if (kty, crv) == ("OKP", "Ed25519"):
                key = cls(Ed25519PrivateKey.from_private_bytes(decoded(jwk["d"].encode())))
            elif (kty, crv) == ("EC", "P-256"):
                key = cls(ec.derive_private_key(_number(jwk["d"]), ec.SECP256R1()))
            elif kty == "RSA":
                public = rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"]))
                p, q, d, dp, dq, qi = (_number(jwk[name]) for name in ("p", "q", "d", "dp", "dq", "qi"))
                key = cls(rsa.RSAPrivateNumbers(p, q, d, dp, dq, qi, public).private_key())
            else:
                raise ValueError("another kind of key")
        except (AttributeError, KeyError, TypeError, ValueError):
            raise ValueError("is no private JWK of Ed25519, RSA with 2048 bits or more, or P-256") from None
        if any(jwk.get(name, value) != value for name, value in key.jwk.items()):
            raise ValueError("contradicts itself: its public members, kid and alg must belong to its private key")
        return key

    def private_jwk(self) -> dict[str, str]:
        """The key as a JWK, private members included."""
        match self._private_key:
            case Ed25519PrivateKey() as key:
                return {**self.jwk, "d": base64url(key.private_bytes_raw())}
            case rsa.RSAPrivateKey() as key:
                n = key.private_numbers()
                secret = {"d": n.d, "p": n.p, "q": n.q, "dp": n.dmp1, "dq": n.dmq1, "qi": n.iqmp}
                return {**self.jwk, **{name: base64url_uint(number) for name, number in secret.items()}}
            case key:
                return {**self.jwk, "d": base64url(key.private_numbers().private_value.to_bytes(32, "big"))}

    def sign(self, claims: Mapping[str, Any], header: Mapping[str, Any] | None = None) -> str:
        """Sign claims as a compact JWS (RFC 7515 section 7.1).

        Members of `header` are added to `alg`, `kid` and `typ` or replace them.
        """
        protected = {"alg": self.alg, "kid": self.kid, "typ": "JWT", **(header or {})}
        signing_input = f"{base64url(_json(protected))}.{base64url(_json(claims))}"
        return f"{signing_input}.{base64url(self._signature(signing_input.encode()))}"

    def _signature(self, message: bytes) -> bytes:
        match self._private_key:
            case Ed25519PrivateKey() as key:
                return key.sign(message)
            case rsa.RSAPrivateKey() as key:
                return key.sign(message, padding.PKCS1v15(), hashes.SHA256())
            case key:  # RFC 7518 section 3.4: R and S concatenated, not OpenSSL's DER
                r, s = decode_dss_signature(key.sign(message, ec.ECDSA(hashes.SHA256())))
                return r.to_bytes(32, "big") + s.to_bytes(32, "big")


@cache
def own_key(alg: str) -> SigningKey:
    """The signing key of this process, made at the first use and kept across reloads."""
    return SigningKey.generate(alg)


def key_set(keys: Iterable[SigningKey]) -> dict[str, Any]:
    """The public keys as a JWK Set (RFC 7517 section 5)."""
    return {"keys": [key.jwk for key in keys]}


def _public(private_key: PrivateKey) -> tuple[str, dict[str, str]]:
    """The algorithm of a key, and the required members of its public JWK."""
    match private_key:
        case Ed25519PrivateKey():
            alg = "EdDSA"
        case rsa.RSAPrivateKey() if private_key.key_size >= MIN_RSA_BITS:
            alg = "RS256"
        case ec.EllipticCurvePrivateKey(curve=ec.SECP256R1()):
            alg = "ES256"
        case _:
            raise ValueError("a signing key is Ed25519, RSA with 2048 bits or more, or P-256")
    members = public_members(private_key.public_key())
    assert members is not None
    return alg, members


def _number(text: str) -> int:
    return int.from_bytes(decoded(text.encode()), "big")


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
