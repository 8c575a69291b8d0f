"""Keys, JWKs and tokens for the tests, valid and invalid.

token(sub="alice")                                         a good RS256 token of key "a"
token("EdDSA", name="b", exp=0)                            an expired one of another key
sign(key("RS256"), "RS256", b'{"alg":"RS256","alg":"none"}', claims())    raw bytes, signed
join(b'{"alg":"none"}', b'{"sub":"alice"}', b"")           raw bytes, no key
"""

import functools
import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://issuer.test/"
AUDIENCE = "my-api"
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | Ed25519PrivateKey
Key = PrivateKey | bytes | None
"""A signer: a private key, a secret (HS*), or nothing (`none`)."""

_CURVES: dict[str, ec.EllipticCurve] = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
_CURVE_OF = {"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}


class Absent:
    """The type of ABSENT."""


ABSENT: Final = Absent()
"""As a claim or a member: leave it out (None is sent as null)."""


# Keys: made when first asked for, once in a run


@functools.cache
def rsa_key(bits: int = 2048, name: str = "a") -> rsa.RSAPrivateKey:
    """An RSA key; each name is another one. 512 bits, which cryptography does not make, is one fixed key."""
    if bits == 512:
        p = 0xD8A0267B2626424AFD367BA49E8F9F640AB67C832C277C6A93BD3C4E7368D5DA35FF
        q = 0xCA2287258FD73413BE43ABC8D68C20670F09C70A5345519D042F865D4091
        e = 65537
        d = pow(e, -1, (p - 1) * (q - 1))
        public = rsa.RSAPublicNumbers(e, p * q)
        return rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@functools.cache
def ec_key(curve: str = "P-256", name: str = "a") -> ec.EllipticCurvePrivateKey:
    """A key on P-256, P-384 or P-521."""
    return ec.generate_private_key(_CURVES[curve])


@functools.cache
def ed25519_key(name: str = "a") -> Ed25519PrivateKey:
    """An Ed25519 key."""
    return Ed25519PrivateKey.generate()


def key(alg: str = "RS256", name: str = "a") -> PrivateKey:
    """The key called `name` that signs with `alg`; RS* and PS* share one."""
    if alg == "EdDSA":
        return ed25519_key(name)
    return ec_key(_CURVE_OF[alg], name) if alg in _CURVE_OF else rsa_key(2048, name)


def kid(alg: str = "RS256", name: str = "a") -> str:
    """The name that `token` and `public_jwk` give to `key(alg, name)`: rsa-a, p-256-a, ed25519-a."""
    return f"{'ed25519' if alg == 'EdDSA' else _CURVE_OF.get(alg, 'rsa').lower()}-{name}"


# JWKs


def jwk(key: Key, **extra: Any) -> dict[str, Any]:
    """The public JWK of a key (RFC 7517, 8037); a secret becomes an `oct`. `extra` adds or replaces, ABSENT removes."""
    match key:
        case rsa.RSAPrivateKey():
            public = key.public_key().public_numbers()
            members: dict[str, Any] = {"kty": "RSA", "n": b64uint(public.n), "e": b64uint(public.e)}
        case ec.EllipticCurvePrivateKey():
            point, size = key.public_key().public_numbers(), (key.key_size + 7) // 8
            crv = next(name for name, curve in _CURVES.items() if curve.name == key.curve.name)
            members = {"kty": "EC", "crv": crv, "x": b64uint(point.x, size), "y": b64uint(point.y, size)}
        case Ed25519PrivateKey():
            members = {"kty": "OKP", "crv": "Ed25519", "x": b64(key.public_key().public_bytes_raw())}
        case bytes():
            members = {"kty": "oct", "k": b64(key)}
        case None:
            raise TypeError("no key, no JWK")
    return _without_absent({**members, **extra})


def private_jwk(key: PrivateKey, **extra: Any) -> dict[str, Any]:
    """The same with its private members, as an issuer publishes by mistake (RFC 7517 section 9.2)."""
    match key:
        case rsa.RSAPrivateKey():
            n = key.private_numbers()
            names = {"d": n.d, "p": n.p, "q": n.q, "dp": n.dmp1, "dq": n.dmq1, "qi": n.iqmp}
            secret = {name: b64uint(number) for name, number in names.items()}
        case ec.EllipticCurvePrivateKey():
            secret = {"d": b64uint(key.private_numbers().private_value, (key.key_size + 7) // 8)}
        case Ed25519PrivateKey():
            secret = {"d": b64(key.private_bytes_raw())}
    return jwk(key, **secret, **extra)


def public_jwk(alg: str = "RS256", name: str = "a", **extra: Any) -> dict[str, Any]:
    """The JWK of `key(alg, name)` with its `kid` and `use`, as issuers publish it."""
    return jwk(key(alg, name), **{"kid": kid(alg, name), "use": "sig", **extra})


def public_pem(alg: str = "RS256", name: str = "a") -> bytes:
    """The public key of `key(alg, name)` in PEM (RFC 7468 section 13)."""
    return key(alg, name).public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def certificate(alg: str, name: str = "a") -> str:
    """A certificate of a key, as Google publishes them: signed by itself, and long expired."""
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sidecar.test")])
    own, then = key(alg, name), datetime(2020, 1, 1, tzinfo=UTC)
    made = x509.CertificateBuilder(subject, subject, own.public_key(), 1, then, then + timedelta(days=1))
    return made.sign(own, None if alg == "EdDSA" else hashes.SHA256()).public_bytes(Encoding.PEM).decode()


# Tokens


def claims(*, now: float | None = None, **over: Any) -> dict[str, Any]:
    """Good claims: iss, aud, sub, iat = `now`, exp = five minutes later; `over` adds or replaces, ABSENT removes.

    `now` is the Unix time in seconds, by default the real one.
    """
    issued = int(time.time() if now is None else now)
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": issued, "exp": issued + 300}
    return _without_absent({**good, **over})


def token(
    alg: str = "RS256",
    *,
    name: str = "a",
    now: float | None = None,
    header: Mapping[str, Any] | None = None,
    **over: Any,
) -> str:
    """A token of `key(alg, name)`, its kid, `claims(now=now, **over)`; `header` adds or replaces, ABSENT removes."""
    protected = {"alg": alg, "typ": "JWT", "kid": kid(alg, name), **(header or {})}
    return sign(key(alg, name), alg, protected, claims(now=now, **over))


def sign(key: Key, alg: str, header: Mapping[str, Any] | bytes | None = None, payload: Any = b"{}") -> str:
    """A compact JWS whose signature is truly made with `key` and `alg`, whatever its header says.

    A header that is a mapping gets `alg` unless it has one (ABSENT: none); one that is bytes is sent as it is. So is a
    payload; any other is sent as JSON (NaN and lone surrogates are possible). `alg`: ALGORITHMS, HS256/384/512, none.
    """
    if header is None or isinstance(header, Mapping):
        header = json.dumps(_without_absent({"alg": alg, **(header or {})}), separators=(",", ":")).encode()
    if not isinstance(payload, bytes):
        payload = json.dumps(payload, separators=(",", ":")).encode()
    signing_input = f"{b64(header)}.{b64(payload)}"
    return f"{signing_input}.{b64(signature(key, alg, signing_input.encode()))}"


def signature(key: Key, alg: str, message: bytes) -> bytes:
    """The JWS signature (RFC 7518 section 3, RFC 8037). An EC key signs with any ES*: the hash is that of `alg`."""
    if alg.lower() == "none":
        return b""
    if alg == "EdDSA":
        assert isinstance(key, Ed25519PrivateKey)
        return key.sign(message)
    digest = _HASHES[alg[2:]]
    match alg[:2], key:
        case "HS", bytes():
            return hmac.digest(key, message, getattr(hashlib, digest.name))
        case "RS", rsa.RSAPrivateKey():
            return key.sign(message, padding.PKCS1v15(), digest)
        case "PS", rsa.RSAPrivateKey():
            return key.sign(message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        case "ES", ec.EllipticCurvePrivateKey():
            r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
            size = (key.key_size + 7) // 8
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    raise TypeError(f"{type(key).__name__} does not sign with {alg}")


def verify(token: str, jwk: dict[str, Any], alg: str) -> None:
    """Check a signature with cryptography alone. Raises InvalidSignature."""
    message, signature = token.rpartition(".")[0].encode(), unb64(token.rpartition(".")[2])
    number = {name: int.from_bytes(unb64(jwk[name])) for name in ("n", "e", "x", "y") if name in jwk}
    digest = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}.get(alg[2:], hashes.SHA256())
    match alg[:2]:
        case "Ed":
            Ed25519PublicKey.from_public_bytes(unb64(jwk["x"])).verify(signature, message)
        case "RS":
            key = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
            key.verify(signature, message, padding.PKCS1v15(), digest)
        case "PS":
            key = rsa.RSAPublicNumbers(number["e"], number["n"]).public_key()
            key.verify(signature, message, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        case _:
            curve = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}[jwk["crv"]]
            size = (curve.key_size + 7) // 8
            assert len(signature) == 2 * size
            r, s = int.from_bytes(signature[:size]), int.from_bytes(signature[size:])
            point = ec.EllipticCurvePublicNumbers(number["x"], number["y"], curve).public_key()
            point.verify(encode_dss_signature(r, s), message, ec.ECDSA(digest))


# Splitting tokens, to join them in other ways


def join(header: bytes, payload: bytes, signature: bytes) -> str:
    """A compact JWS of these three parts, each encoded, nothing signed."""
    return ".".join(b64(part) for part in (header, payload, signature))


def parts(token: str) -> tuple[bytes, bytes, bytes]:
    """The decoded header, payload and signature."""
    header, payload, signature = token.split(".")
    return unb64(header), unb64(payload), unb64(signature)


def payload_of(token: str) -> dict[str, Any]:
    """The payload of a token, decoded, not verified."""
    decoded: dict[str, Any] = json.loads(parts(token)[1])
    return decoded


def flip(token: str, part: int = 2, byte: int = 0) -> str:
    """The token with the lowest bit of one byte of one part turned: 0 header, 1 payload, 2 signature."""
    segments = token.split(".")
    raw = bytearray(unb64(segments[part]))
    raw[byte] ^= 1
    segments[part] = b64(bytes(raw))
    return ".".join(segments)


def b64(data: bytes) -> str:
    """Unpadded base64url."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64(text: str) -> bytes:
    """The bytes of unpadded base64url."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def b64uint(number: int, size: int | None = None) -> str:
    """Base64urlUInt (RFC 7518 section 2), or with a size the fixed-length form that coordinates have."""
    return b64(number.to_bytes(size or max(1, (number.bit_length() + 7) // 8), "big"))


def _without_absent(members: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not ABSENT}
