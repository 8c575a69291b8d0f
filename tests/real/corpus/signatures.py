"""Algorithms, keys and signatures."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from benchmarks.issuer import AUDIENCE
from tests.peers import tokens
from tests.peers.tokens import ABSENT, b64, unb64
from tests.real.corpus.making import (
    ALGORITHMS,
    EC,
    ED,
    HEADER,
    RSA,
    SECRET,
    Cases,
    bearer,
    bearers,
    good_claims,
    good_token,
    headed,
    shown,
    signed,
)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def good() -> Cases:
    """Tokens that both accept."""
    yield from bearers((f"good: {alg}", good_token(alg)) for alg in ALGORITHMS)
    yield from bearers(
        [
            ("good: at_hash in the token", good_token(at_hash="x")),
            ("good: a list of audiences", good_token(aud=["other", AUDIENCE])),
            ("good: key_ops verify, extra members in the key", signed({"kid": "ops"}, key=tokens.key("RS256", "b"))),
        ]
    )


def algorithms() -> Cases:
    """`alg`, and keys that do not fit it."""
    nones: tuple[Any, ...] = ("none", "None", "NONE", "nOnE", "none ", "", None, 0, [], {}, ABSENT)
    for alg in nones:
        header = json.dumps({"kid": "rsa-a", "alg": alg} if alg is not ABSENT else {"kid": "rsa-a"})
        unsigned = tokens.join(header.encode(), json.dumps(good_claims()).encode(), b"")
        yield f"alg none: {shown(alg)}, empty signature", bearer(unsigned)
        yield f"alg none: {shown(alg)}, genuine signature", bearer(headed(alg=alg))
    odd = (
        ["RS256"],
        {"RS256": 1},
        256,
        True,
        "rs256",
        "RS256 ",
        "RS256\0",
        "RS2",
        "S256",
        "RSA-OAEP",
        "dir",
        "Ed25519",
    )
    yield from bearers((f"alg odd types: {shown(alg)}", headed(alg=alg)) for alg in odd)
    public = RSA.public_key()
    spki = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    secrets = {
        "PEM SPKI": spki,
        "PEM SPKI without the last newline": spki.strip(),
        "PEM PKCS#1": public.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER": public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "OpenSSH": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "JWK text": json.dumps(tokens.public_jwk()).encode(),
        "modulus": tokens.public_jwk()["n"].encode(),
        "empty": b"",
    }
    for alg in ("HS256", "HS512"):
        yield from bearers(
            (f"alg confusion: {alg}, {what}", signed({"kid": "rsa-a"}, key=secret, alg=alg))
            for what, secret in secrets.items()
        )
    yield from bearers(
        [
            ("oct key in the JWKS: HS256", signed({"kid": "oct"}, key=SECRET, alg="HS256")),
            ("oct key in the JWKS: HS256 without kid", signed({}, key=SECRET, alg="HS256")),
            ("weak RSA: 1024 bits", signed({"kid": "weak"}, key=tokens.rsa_key(1024))),
            ("use=enc", signed({"kid": "enc"}, key=tokens.key("RS256", "b"))),
            ("key_ops without verify", signed({"kid": "wrap"}, key=tokens.key("RS256", "b"))),
            ("JWK alg != token alg: RS256 of a PS256 key", signed({"kid": "pss"}, key=tokens.key("RS256", "b"))),
            ("allowed alg, wrong key type: RS256 + kid of an EC key", headed(kid="p-256-a")),
            ("allowed alg, wrong key type: ES256 + kid of an RSA key", signed({"kid": "rsa-a"}, key=EC, alg="ES256")),
            (
                "allowed alg, wrong key type: ES256 + P-384 key",
                signed({"kid": "p-384-a"}, key=tokens.key("ES384"), alg="ES256"),
            ),
            (
                "allowed alg, wrong key type: ES256 + P-521 key",
                signed({"kid": "p-521-a"}, key=tokens.key("ES512"), alg="ES256"),
            ),
            (
                "allowed alg, wrong key type: EdDSA + kid of an EC key",
                signed({"kid": "p-256-a"}, key=ED, alg="EdDSA"),
            ),
            ("alg outside the allow-list: PSS signature under RS256", signed(HEADER, alg="PS256")),
            ("alg outside the allow-list: RS256 signature under RS512", headed(alg="RS512")),
        ]
    )


def signatures() -> Cases:
    """Signatures that are nearly right."""
    good = good_token()
    yield "empty / missing signature: h.p.", bearer(good.rpartition(".")[0] + ".")
    yield "empty / missing signature: h.p", bearer(good.rpartition(".")[0])
    n = RSA.public_key().public_numbers().n
    changes: dict[str, Callable[[bytes], bytes]] = {
        "zero": lambda s: bytes(len(s)),
        "ff": lambda s: b"\xff" * len(s),
        "1": lambda s: b"\1" * len(s),
        "truncated": lambda s: s[:-1],
        "+1 byte": lambda s: s + b"\0",
        "leading zero": lambda s: b"\0" + s,
        "s+n": lambda s: (int.from_bytes(s) + n).to_bytes(257),
        "n-s": lambda s: (n - int.from_bytes(s)).to_bytes(256),
        "bit flip": lambda s: s[:-1] + bytes([s[-1] ^ 1]),
    }
    yield from bearers((f"RSA signature malleation: {how}", _malleated(change)) for how, change in changes.items())
    yield "RSA signature malleation: of another payload", bearer(tokens.flip(good_token(pad="x"), 1, -3))
    yield from _forgeries()
    order = P256_ORDER.to_bytes(32)
    changes = {
        "r=s=0": lambda s: bytes(64),
        "r=0": lambda s: bytes(32) + s[32:],
        "s=0": lambda s: s[:32] + bytes(32),
        "r=n": lambda s: order + s[32:],
        "s=n": lambda s: s[:32] + order,
        "r=s=n-1": lambda s: (P256_ORDER - 1).to_bytes(32) * 2,
        "1/1": lambda s: (1).to_bytes(32) * 2,
        "swapped": lambda s: s[32:] + s[:32],
        "DER": lambda s: encode_dss_signature(int.from_bytes(s[:32]), int.from_bytes(s[32:])),
        "33-byte halves": lambda s: b"\0" + s[:32] + b"\0" + s[32:],
        "trailing zero": lambda s: s + b"\0",
        "two trailing zeros": lambda s: s + b"\0\0",
        "bit flip": lambda s: s[:-1] + bytes([s[-1] ^ 1]),
        "n-s, of the same payload": lambda s: s[:32] + (P256_ORDER - int.from_bytes(s[32:])).to_bytes(32),
    }
    yield from bearers((f"ECDSA degenerate: {how}", _malleated(change, "ES256")) for how, change in changes.items())
    changes = {
        "zero": lambda s: bytes(64),
        "bit flip": lambda s: s[:-1] + bytes([s[-1] ^ 1]),
        "truncated": lambda s: s[:-1],
        "+1 byte": lambda s: s + b"\0",
        "s+l": lambda s: s[:32] + (int.from_bytes(s[32:], "little") + ED25519_ORDER).to_bytes(32, "little"),
    }
    yield from bearers((f"EdDSA malleation: {how}", _malleated(change, "EdDSA")) for how, change in changes.items())


def _malleated(change: Callable[[bytes], bytes], alg: str = "RS256") -> str:
    head, _, signature = good_token(alg).rpartition(".")
    return f"{head}.{b64(change(unb64(signature)))}"


def _forgeries() -> Cases:
    """A signature that a verifier accepts as PKCS#1 v1.5 if it parses the padding and does not compare it (RFC 8017, 8.2.2)."""
    private = RSA.private_numbers()
    head = good_token().rpartition(".")[0]
    digest = hashlib.sha256(head.encode()).digest()
    info = bytes.fromhex("3031300d060960864801650304020105000420") + digest
    sha1 = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(head.encode()).digest()
    without_null = bytes.fromhex("302f300b0609608648016503040201") + bytes.fromhex("0420") + digest
    padded = {
        "garbage after hash": b"\0\1" + b"\xff" * 8 + b"\0" + info + b"\xaa" * (245 - len(info)),
        "missing NULL": _padded(without_null),
        "SHA-1 DigestInfo": _padded(sha1),
        "no DigestInfo": _padded(digest),
        "BT 02": b"\0\2" + _padded(info)[2:],
        "zero padding": b"\0\1" + bytes(254 - len(info)) + info,
        "short padding": b"\0\1" + b"\xff" * 7 + b"\0" + bytes(246 - len(info)) + info,
        "none of these: the right one": _padded(info),
    }
    for how, message in padded.items():
        assert len(message) == 256, how
        signature = pow(int.from_bytes(message), private.d, private.public_numbers.n).to_bytes(256)
        yield f"PKCS#1 v1.5 forgeries: {how}", bearer(f"{head}.{b64(signature)}")


def _padded(info: bytes) -> bytes:
    return b"\0\1" + b"\xff" * (253 - len(info)) + b"\0" + info
