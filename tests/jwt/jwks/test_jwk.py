"""A JWK becomes a key for its own algorithms only, or is skipped with a reason."""

from collections.abc import Callable
from hashlib import sha1, sha256, sha512
from itertools import count
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.jwk import MAX_RSA_BITS, MIN_RSA_BITS, UnusableKey, VerificationKey, secret_key, verification_key
from tests.peers import tokens
from tests.peers.tokens import ABSENT, b64, b64uint

MESSAGE = b"header.payload"
RSA = ALGORITHMS[:6]


def published(of: str, name: str = "a", **over: Any) -> dict[str, Any]:
    """A JWK as issuers publish it, with `over` changed."""
    return tokens.jwk(tokens.key(of, name), **{"kid": tokens.kid(of, name), "use": "sig", **over})


def rsa_jwk(**over: Any) -> dict[str, Any]:
    return published("RS256", **over)


def usable(member: object) -> VerificationKey:
    return verification_key(member, ALGORITHMS)


def verifies(member: object, alg: str, signature: bytes, message: bytes = MESSAGE) -> bool:
    verdict = usable(member).by_algorithm[alg].verify(message, signature)
    assert isinstance(verdict, bool)
    return verdict


# Keys that verify


def test_the_algorithms_are_the_supported_ones() -> None:
    assert sorted(ALGORITHMS) == sorted(tokens.ALGORITHMS)


@pytest.mark.parametrize("alg", ALGORITHMS)
def test_a_signature_verifies_with_its_key_and_message_and_nothing_else(alg: str) -> None:
    signature = tokens.signature(tokens.key(alg), alg, MESSAGE)
    assert verifies(published(alg), alg, signature)
    assert not verifies(published(alg), alg, signature, MESSAGE + b".")
    assert not verifies(published(alg, "b"), alg, signature)


@pytest.mark.parametrize("alg", RSA)
@pytest.mark.parametrize("label", RSA)
def test_an_rsa_signature_verifies_only_with_its_own_algorithm(alg: str, label: str) -> None:
    signature = tokens.signature(tokens.key(alg), alg, MESSAGE)
    assert verifies(published(alg), label, signature) == (alg == label)


RFC_7515_A2 = {
    "kty": "RSA",
    "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pC"
    "gNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xs"
    "mtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ",
    "e": "AQAB",
}
RFC_7515_A3 = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}
RFC_7515_A4 = {
    "kty": "EC",
    "crv": "P-521",
    "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
    "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
}
RFC_7520_3_3 = {
    "kty": "RSA",
    "n": "n4EPtAOCc9AlkeQHPzHStgAbgs7bTZLwUBZdR8_KuKPEHLd4rHVTeT-O-XV2jRojdNhxJWTDvNd7nqQ0VEiZQHz_AJmSCpMaJMRBSFKrKb2wqVwG"
    "U_NsYOYL-QtiWN2lbzcEe6XC0dApr5ydQLrHqkHHig3RBordaZ6Aj-oBHqFEHYpPe7Tpe-OfVfHd1E6cS6M1FZcD1NNLYD5lFHpPI9bTwJlsde3uhGqC"
    "0ZCuEHg8lhzwOHrtIQbS0FVbb9k3-tVTU4fg_3L_vniUFAKwuCLqKnS2BYwdq_mzSnbLY7h_qixoR7jig3__kRhuaxwUkRz5iaiQkqgc5gHdrNP5zw",
    "e": "AQAB",
}
RFC_8037_A2 = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
JOE = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"


@pytest.mark.parametrize(
    ("member", "alg", "jws"),
    [
        pytest.param(
            RFC_7515_A2,
            "RS256",
            f"eyJhbGciOiJSUzI1NiJ9.{JOE}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O"
            "8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB"
            "_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywl"
            "VmtVrBp0igcN_IoypGlUPQGe77Rw",
            id="RFC 7515 A.2",
        ),
        pytest.param(
            RFC_7515_A3,
            "ES256",
            f"eyJhbGciOiJFUzI1NiJ9.{JOE}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
            id="RFC 7515 A.3",
        ),
        pytest.param(
            RFC_7515_A4,
            "ES512",
            "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0a"
            "w_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
            id="RFC 7515 A.4",
        ),
        pytest.param(
            RFC_7520_3_3,
            "PS384",
            "eyJhbGciOiJQUzM4NCIsImtpZCI6ImJpbGJvLmJhZ2dpbnNAaG9iYml0b24uZXhhbXBsZSJ9.SXTigJlzIGEgZGFuZ2Vyb3VzIGJ1c2luZXNzLCBG"
            "cm9kbywgZ29pbmcgb3V0IHlvdXIgZG9vci4gWW91IHN0ZXAgb250byB0aGUgcm9hZCwgYW5kIGlmIHlvdSBkb24ndCBrZWVwIHlvdXIgZmVldCwgd"
            "GhlcmXigJlzIG5vIGtub3dpbmcgd2hlcmUgeW91IG1pZ2h0IGJlIHN3ZXB0IG9mZiB0by4.cu22eBqkYDKgIlTpzDXGvaFfz6WGoz7fUDcfT0kkOy"
            "42miAh2qyBzk1xEsnk2IpN6-tPid6VrklHkqsGqDqHCdP6O8TTB5dDDItllVo6_1OLPpcbUrhiUSMxbbXUvdvWXzg-UD8biiReQFlfz28zGWVsdiN"
            "AUf8ZnyPEgVFn442ZdNqiVJRmBqrYRXe8P_ijQ7p8Vdz0TTrxUeT3lm8d9shnr2lfJT8ImUjvAA2Xez2Mlp8cBE5awDzT0qI0n6uiP1aCN_2_jLAe"
            "QTlqRHtfa64QQSUmFAAjVKPbByi7xho0uTOcbH510a6GYmJUAfmWjwZ6oD4ifKo8DYM-X72Eaw",
            id="RFC 7520 4.2",
        ),
        pytest.param(
            RFC_8037_A2,
            "EdDSA",
            "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4i"
            "ylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
            id="RFC 8037 A.4",
        ),
    ],
)
def test_the_examples_of_the_rfcs_verify(member: dict[str, str], alg: str, jws: str) -> None:
    message, signature = jws.rpartition(".")[0].encode(), tokens.parts(jws)[2]
    assert verifies(member, alg, signature, message)
    assert not verifies(member, alg, signature, message[:-1])


# Nearly valid signatures

Malleation = Callable[[bytes], bytes]
MODULUS = tokens.rsa_key(2048, "a").public_key().public_numbers().n


def changed(signature: bytes, change: Callable[[int], int]) -> bytes:
    return change(int.from_bytes(signature)).to_bytes(len(signature) + 1).removeprefix(b"\0")


ANY_SIGNATURE = [
    pytest.param(lambda s: b"", id="empty"),
    pytest.param(lambda s: bytes(len(s)), id="zero"),
    pytest.param(lambda s: b"\xff" * len(s), id="ff bytes"),
    pytest.param(lambda s: b"\1" * len(s), id="1 bytes"),
    pytest.param(lambda s: s[:-1], id="truncated"),
    pytest.param(lambda s: s[1:], id="truncated in front"),
    pytest.param(lambda s: s + b"\0", id="+1 byte"),
    pytest.param(lambda s: b"\0" + s, id="leading zero"),
    pytest.param(lambda s: s + s, id="twice"),
    pytest.param(lambda s: s[:-1] + bytes([s[-1] ^ 1]), id="bit flip, last"),
    pytest.param(lambda s: bytes([s[0] ^ 1]) + s[1:], id="bit flip, first"),
    pytest.param(lambda s: s[::-1], id="turned round"),
]


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "ES512", "EdDSA"])
@pytest.mark.parametrize("malleate", ANY_SIGNATURE)
def test_a_changed_signature_does_not_verify(alg: str, malleate: Malleation) -> None:
    signature = tokens.signature(tokens.key(alg), alg, MESSAGE)
    assert verifies(published(alg), alg, signature)
    assert not verifies(published(alg), alg, malleate(signature))


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
@pytest.mark.parametrize(
    "change",
    [pytest.param(lambda s: s + MODULUS, id="s+n"), pytest.param(lambda s: MODULUS - s, id="n-s")],
)
def test_an_rsa_signature_is_one_number_below_the_modulus(alg: str, change: Callable[[int], int]) -> None:
    signature = tokens.signature(tokens.key(alg), alg, MESSAGE)
    assert not verifies(published(alg), alg, changed(signature, change))


def raw_rsa(encoded: bytes) -> bytes:
    """The RSA signature of any encoded message (RFC 8017 section 5.2.1)."""
    numbers = tokens.rsa_key(2048, "a").private_numbers()
    return pow(int.from_bytes(encoded), numbers.d, MODULUS).to_bytes(256)


SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")
SHA512_INFO = bytes.fromhex("3051300d060960864801650304020305000440")
SHA1_INFO = bytes.fromhex("3021300906052b0e03021a05000414")
DIGEST_INFO = SHA256_INFO + sha256(MESSAGE).digest()


def padded(info: bytes, block_type: bytes = b"\x01", fill: bytes = b"\xff", size: int = 256) -> bytes:
    return b"\0" + block_type + fill * (size - 3 - len(info)) + b"\0" + info


@pytest.mark.parametrize(
    ("encoded", "expected"),
    [
        pytest.param(padded(DIGEST_INFO), True, id="well formed"),
        pytest.param(padded(DIGEST_INFO, size=200) + bytes(56), False, id="garbage after hash"),
        pytest.param(
            padded(bytes.fromhex("302f300b0609608648016503040201") + b"\x04\x20" + DIGEST_INFO[-32:]),
            False,
            id="missing NULL",
        ),
        pytest.param(padded(DIGEST_INFO + b"\0"), False, id="a byte after the hash"),
        pytest.param(padded(b"\0" + DIGEST_INFO), False, id="a byte before the DigestInfo"),
        pytest.param(padded(DIGEST_INFO[:-1]), False, id="a hash without its last byte"),
        pytest.param(padded(SHA512_INFO + sha512(MESSAGE).digest()), False, id="SHA-512 DigestInfo"),
        pytest.param(padded(SHA1_INFO + sha1(MESSAGE).digest()), False, id="SHA-1 DigestInfo"),
        pytest.param(padded(DIGEST_INFO[-32:]), False, id="no DigestInfo"),
        pytest.param(padded(DIGEST_INFO, block_type=b"\x02", fill=b"\x55"), False, id="BT 02"),
        pytest.param(padded(DIGEST_INFO, fill=b"\0"), False, id="zero padding"),
        pytest.param(bytes(100) + padded(DIGEST_INFO, size=156), False, id="short padding"),
    ],
)
def test_pkcs_1_v1_5_forgeries_do_not_verify(encoded: bytes, expected: bool) -> None:
    signature = raw_rsa(encoded)
    assert verifies(published("RS256"), "RS256", signature) == expected
    assert judged_by_openssl(signature) == expected


def judged_by_openssl(signature: bytes) -> bool:
    """The judgement of the key's own `verify`, which the sidecar does not use for PKCS #1 v1.5."""
    try:
        tokens.rsa_key(2048, "a").public_key().verify(signature, MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True


@pytest.mark.parametrize(
    ("mask", "salt", "expected"),
    [
        pytest.param(hashes.SHA256(), 32, True, id="as RFC 7518 section 3.5 requires"),
        pytest.param(hashes.SHA256(), 0, False, id="no salt"),
        pytest.param(hashes.SHA256(), 20, False, id="short salt"),
        pytest.param(hashes.SHA256(), padding.PSS.MAX_LENGTH, False, id="longest salt"),
        pytest.param(hashes.SHA1(), 32, False, id="mask by another hash"),
    ],
)
def test_a_pss_signature_needs_the_right_salt_length_and_hash(
    mask: hashes.HashAlgorithm, salt: Any, expected: bool
) -> None:
    signature = tokens.rsa_key(2048, "a").sign(MESSAGE, padding.PSS(padding.MGF1(mask), salt), hashes.SHA256())
    assert verifies(published("PS256"), "PS256", signature) == expected


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def test_ecdsa_degenerate_signatures_do_not_verify() -> None:
    edges = (0, 1, P256_ORDER - 1, P256_ORDER, P256_ORDER + 1)
    for r, s in [(r, s) for r in edges for s in edges]:
        assert not verifies(published("ES256"), "ES256", r.to_bytes(32) + s.to_bytes(32)), (r, s)


def test_an_ecdsa_signature_is_r_and_s_in_fixed_length() -> None:
    key = tokens.ec_key("P-256", "a")
    r, s = decode_dss_signature(key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())))
    member = published("ES256")
    assert verifies(member, "ES256", r.to_bytes(32) + s.to_bytes(32))
    assert not verifies(member, "ES256", s.to_bytes(32) + r.to_bytes(32))
    assert not verifies(member, "ES256", r.to_bytes(33) + s.to_bytes(33))
    assert not verifies(member, "ES256", r.to_bytes(32) + s.to_bytes(33))
    assert not verifies(member, "ES256", encode_dss_signature(r, s))


ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493


def test_an_ed25519_signature_is_one_number_below_the_order() -> None:
    signature = tokens.signature(tokens.key("EdDSA"), "EdDSA", MESSAGE)
    again = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    assert not verifies(published("EdDSA"), "EdDSA", signature[:32] + again.to_bytes(32, "little"))


# The algorithms of a key


@pytest.mark.parametrize(
    ("member", "algorithms"),
    [
        pytest.param(rsa_jwk(), RSA, id="RSA"),
        pytest.param(published("ES256"), ["ES256"], id="P-256"),
        pytest.param(published("ES384"), ["ES384"], id="P-384"),
        pytest.param(published("ES512"), ["ES512"], id="P-521"),
        pytest.param(published("EdDSA"), ["EdDSA"], id="Ed25519"),
        pytest.param(rsa_jwk(alg="PS256"), ["PS256"], id="the alg of the JWK"),
        pytest.param(published("EdDSA", alg="EdDSA"), ["EdDSA"], id="Ed25519 as EdDSA"),
        pytest.param(published("EdDSA", alg="Ed25519"), ["EdDSA"], id="Ed25519 by its name of RFC 9864"),
    ],
)
def test_a_key_is_bound_to_the_algorithms_of_its_kind(member: dict[str, Any], algorithms: list[str]) -> None:
    assert list(usable(member).by_algorithm) == list(algorithms)


def test_a_key_is_bound_to_the_allowed_algorithms() -> None:
    key = verification_key(published("RS256"), ["RS256", "ES256"])
    assert list(key.by_algorithm) == ["RS256"]


# Skipped keys

NOT_ALLOWED = "it fits none of the allowed algorithms"
NO_KEY = "its numbers make no key"
CURVE = "its crv is not P-256, P-384, P-521 or Ed25519"
KTY = "its kty is not RSA, EC or OKP"
KID = "its kid is not a short string"
HALF = "its kid is not Unicode text: it holds half of a surrogate pair; remove it"
USE = "its use is not sig"
ISSUER = "its issuer is not text"
OPS = "its key_ops do not hold verify"
EXPONENT = "its exponent is not a small odd number from 3"


def bits(n: int) -> str:
    return b64uint(2 ** (n - 1) + 1)


def off_curve() -> str:
    y = tokens.ec_key("P-256", "a").public_key().public_numbers().y
    return b64uint(y ^ 1, 32)


@pytest.mark.parametrize(
    ("member", "why"),
    [
        pytest.param([], "it is not an object", id="non-object: list"),
        pytest.param("x", "it is not an object", id="non-object: string"),
        pytest.param(None, "it is not an object", id="non-object: null"),
        pytest.param({}, KTY, id="no kty"),
        pytest.param(rsa_jwk(kty="AKP"), KTY, id="unknown kty"),
        pytest.param(rsa_jwk(kty="rsa"), KTY, id="kty in another case"),
        pytest.param(rsa_jwk(kty=["RSA"]), KTY, id="kty list"),
        pytest.param(rsa_jwk(kty=5), KTY, id="kty number"),
        pytest.param(tokens.jwk(b"secret of at least 32 bytes, as is right"), KTY, id="oct key in the JWKS"),
        pytest.param(rsa_jwk(kid=5), KID, id="kid number"),
        pytest.param(rsa_jwk(kid=["a"]), KID, id="kid list"),
        pytest.param(rsa_jwk(kid={"a": 1}), KID, id="kid object"),
        pytest.param(rsa_jwk(kid="x" * 257), KID, id="kid huge"),
        pytest.param(rsa_jwk(kid="a\ud800"), HALF, id="kid with half a surrogate pair: first"),
        pytest.param(rsa_jwk(kid="\udfff"), HALF, id="kid with half a surrogate pair: last"),
        pytest.param(rsa_jwk(issuer=5), ISSUER, id="issuer number"),
        pytest.param(rsa_jwk(issuer=["a"]), ISSUER, id="issuer list"),
        pytest.param(rsa_jwk(issuer="a\ud800"), ISSUER, id="issuer with half a surrogate pair"),
        pytest.param(rsa_jwk(use="enc"), USE, id="use=enc"),
        pytest.param(rsa_jwk(use=["sig"]), USE, id="use list"),
        pytest.param(rsa_jwk(key_ops=["sign", "encrypt"]), OPS, id="key_ops without verify"),
        pytest.param(rsa_jwk(key_ops=5), OPS, id="key_ops=5"),
        pytest.param(rsa_jwk(key_ops="verify"), OPS, id="key_ops string"),
        pytest.param(rsa_jwk(key_ops={"verify": 1}), OPS, id="key_ops object"),
        pytest.param(rsa_jwk(key_ops=[["verify"]]), OPS, id="key_ops nested"),
        pytest.param(rsa_jwk(alg="HS256"), NOT_ALLOWED, id="JWK alg != token alg: HS256"),
        pytest.param(rsa_jwk(alg="ES256"), NOT_ALLOWED, id="JWK alg != token alg: of another kty"),
        pytest.param(rsa_jwk(alg="RSA-OAEP"), NOT_ALLOWED, id="JWK alg != token alg: encryption"),
        pytest.param(rsa_jwk(alg=["RS256"]), NOT_ALLOWED, id="JWK alg list"),
        pytest.param(published("ES256", alg="ES384"), NOT_ALLOWED, id="JWK alg of another curve"),
        pytest.param(rsa_jwk(n=ABSENT), "its n is missing or not text", id="RSA without n"),
        pytest.param(rsa_jwk(e=ABSENT), "its e is missing or not text", id="RSA without e"),
        pytest.param(rsa_jwk(n=5), "its n is missing or not text", id="n=5"),
        pytest.param(rsa_jwk(n="é"), "its n is missing or not text", id='n="é"'),
        pytest.param(rsa_jwk(n=""), "its n is missing or not text", id='n=""'),
        pytest.param(rsa_jwk(n="A"), "n or e is not base64url", id="n of an impossible length"),
        pytest.param(rsa_jwk(n="!!!!" + rsa_jwk()["n"]), "n or e is not base64url", id="n with junk"),
        pytest.param(rsa_jwk(e="A!QAB"), "n or e is not base64url", id="e with junk"),
        pytest.param(
            tokens.jwk(tokens.rsa_key(512)), "its modulus has 512 bits; 2048 to 8192 are accepted", id="weak RSA 512"
        ),
        pytest.param(rsa_jwk(n=bits(768)), "its modulus has 768 bits; 2048 to 8192 are accepted", id="weak RSA 768"),
        pytest.param(
            tokens.jwk(tokens.rsa_key(1024)), "its modulus has 1024 bits; 2048 to 8192 are accepted", id="weak RSA 1024"
        ),
        pytest.param(
            rsa_jwk(n=bits(MIN_RSA_BITS - 1)), "its modulus has 2047 bits; 2048 to 8192 are accepted", id="RSA 2047"
        ),
        pytest.param(
            rsa_jwk(n=b64uint(1, 256)), "its modulus has 1 bits; 2048 to 8192 are accepted", id="weak RSA, long text"
        ),
        pytest.param(
            rsa_jwk(n=bits(MAX_RSA_BITS + 1)), "its modulus has 8193 bits; 2048 to 8192 are accepted", id="RSA 8193"
        ),
        pytest.param(
            rsa_jwk(n=bits(100_000)), "its modulus has 100000 bits; 2048 to 8192 are accepted", id="100 kbit n"
        ),
        pytest.param(rsa_jwk(e=""), "its e is missing or not text", id='e=""'),
        pytest.param(rsa_jwk(e=b64uint(1)), EXPONENT, id="e=1"),
        pytest.param(rsa_jwk(e=b64uint(65536)), EXPONENT, id="e even"),
        pytest.param(rsa_jwk(e=b64uint(2**33 + 1)), EXPONENT, id="e huge"),
        pytest.param(rsa_jwk(e=rsa_jwk()["n"]), EXPONENT, id="e of full size"),
        pytest.param(published("ES256", y=off_curve()), NO_KEY, id="off-curve"),
        pytest.param(published("ES256", x=b64(bytes(32)), y=b64(bytes(32))), NO_KEY, id="point at zero"),
        pytest.param(published("ES256", x=b64uint(2**100_000)), NO_KEY, id="coordinate of 100 kbit"),
        pytest.param(published("ES256", x=""), "its x is missing or not text", id="coordinate empty"),
        pytest.param(published("ES256", x="A"), NO_KEY, id="coordinate of an impossible length"),
        pytest.param(published("ES256", x=ABSENT), "its x is missing or not text", id="EC without x"),
        pytest.param(published("ES256", y=5), "its y is missing or not text", id="EC with y=5"),
        pytest.param(published("ES256", crv="P-384"), NO_KEY, id="crv of another size"),
        pytest.param(published("ES256", crv="secp256k1"), CURVE, id="unknown crv"),
        pytest.param(published("ES256", crv="Ed25519"), CURVE, id="crv of another kty"),
        pytest.param(published("ES256", crv=["P-256"]), "its crv is missing or not text", id="crv list"),
        pytest.param(published("ES256", crv=ABSENT), "its crv is missing or not text", id="no crv"),
        pytest.param(published("ES256", kty="OKP"), CURVE, id="kty mismatch: EC as OKP"),
        pytest.param(rsa_jwk(kty="EC"), "its crv is missing or not text", id="kty mismatch: RSA as EC"),
        pytest.param(published("EdDSA", crv="X25519"), CURVE, id="OKP of another curve"),
        pytest.param(published("EdDSA", crv="Ed448"), CURVE, id="OKP of an unsupported curve"),
        pytest.param(published("EdDSA", x=b64(bytes(31))), NO_KEY, id="OKP too short"),
        pytest.param(published("EdDSA", x=b64(bytes(33))), NO_KEY, id="OKP too long"),
        pytest.param(published("EdDSA", x="A"), NO_KEY, id="OKP of an impossible length"),
        pytest.param(published("EdDSA", x=ABSENT), "its x is missing or not text", id="OKP without x"),
    ],
)
def test_a_bad_key_is_skipped_with_its_reason(member: object, why: str) -> None:
    with pytest.raises(UnusableKey) as caught:
        usable(member)
    assert str(caught.value) == why


def test_a_key_without_an_allowed_algorithm_is_skipped() -> None:
    with pytest.raises(UnusableKey, match=NOT_ALLOWED):
        verification_key(published("ES256"), ["RS256", "EdDSA"])


@pytest.mark.parametrize(
    "member",
    [
        pytest.param(rsa_jwk(use=ABSENT), id="no use/alg (Azure)"),
        pytest.param(rsa_jwk(key_ops=["verify"]), id='key_ops ["verify"]'),
        pytest.param(rsa_jwk(key_ops=["sign", "verify"]), id="key_ops sign and verify"),
        pytest.param(rsa_jwk(x5c=["MII"], x5t="x", ext=True, iat=5), id="extra members"),
        pytest.param(rsa_jwk(kid=ABSENT), id="kid missing"),
        pytest.param(rsa_jwk(kid="x" * 256), id="kid of the maximum length"),
        pytest.param(rsa_jwk(kid="Schlüssel 🔑\n"), id="kid of any characters"),
        pytest.param(rsa_jwk(n=rsa_jwk()["n"] + "=="), id="padded n"),
        pytest.param(rsa_jwk(n=b64(b"\0" + MODULUS.to_bytes(256))), id="n with a leading zero"),
        pytest.param(published("ES256", x=published("ES256")["x"] + "="), id="padded x of EC"),
        pytest.param(published("EdDSA", x=published("EdDSA")["x"] + "="), id="padded x of OKP"),
        pytest.param(rsa_jwk(n=bits(MIN_RSA_BITS)), id="RSA 2048"),
        pytest.param(rsa_jwk(n=bits(MAX_RSA_BITS)), id="RSA 8192"),
        pytest.param(rsa_jwk(e=b64uint(3)), id="e=3"),
        pytest.param(rsa_jwk(e=b64uint(3) + "=="), id="padded e"),
        pytest.param(rsa_jwk(e=b64uint(2**32 - 1)), id="e of the maximum size"),
    ],
)
def test_an_unusual_but_valid_key_is_used(member: dict[str, Any]) -> None:
    assert usable(member).kid == member.get("kid")


@pytest.mark.parametrize("empty", [None, "", [], {}], ids=repr)
@pytest.mark.parametrize("name", ["kid", "use", "key_ops", "alg", "crv", "x5t", "x5c"])
def test_a_null_or_empty_member_counts_as_missing(name: str, empty: object) -> None:
    assert usable(rsa_jwk(**{name: empty})) == usable(rsa_jwk(**{name: ABSENT}))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
def test_private_members_are_not_read(alg: str) -> None:
    key = usable(tokens.private_jwk(tokens.key(alg)))
    assert key == usable(tokens.jwk(tokens.key(alg)))
    public = next(iter(key.by_algorithm.values()))
    assert not isinstance(getattr(public, "prepared_key", None), rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey)


def test_an_exponent_has_at_most_32_bits() -> None:
    with pytest.raises(UnusableKey, match=EXPONENT):
        usable(rsa_jwk(e=b64uint(2**32 + 1)))


def test_a_secret_verifies_only_with_its_own_algorithms() -> None:
    assert list(secret_key(b"x" * 64, ["HS512", "RS256", "HS256"]).by_algorithm) == ["HS256", "HS512"]
    with pytest.raises(UnusableKey) as caught:
        secret_key(b"x" * 64, ["RS256"])
    assert str(caught.value) == NOT_ALLOWED


def test_invalid_private_members_do_not_matter() -> None:
    usable({**tokens.jwk(tokens.key("RS256")), "d": "é", "p": 5})


# Identity


def test_keys_with_the_same_kid_material_and_algorithms_are_equal() -> None:
    key = usable(rsa_jwk())
    assert (key, hash(key)) == (usable(rsa_jwk(x5t="x")), hash(usable(rsa_jwk(x5t="x"))))
    others = [
        rsa_jwk(kid="other"),
        rsa_jwk(kid=ABSENT),
        rsa_jwk(alg="RS256"),
        tokens.jwk(tokens.key("RS256", "b"), kid="rsa-a", use="sig"),
    ]
    assert key not in [usable(other) for other in others]
    assert key != "rsa-a"


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("bound", [True, False])
def test_a_key_survives_its_conversion_to_a_jwk(alg: str, named: bool, bound: bool) -> None:
    material = tokens.jwk(tokens.key(alg))
    name = {"kid": "a"} if named else {}
    key = usable({**material, **name, **({"alg": alg} if bound else {})})
    assert usable(key.jwk()) == key
    told = {"alg": alg} if bound or alg != "RS256" else {}  # the other kinds of key have only this algorithm
    assert key.jwk() == {**material, **name, **told}


def test_the_text_of_a_key_is_its_kid_and_algorithms() -> None:
    assert repr(usable(published("EdDSA"))) == "<VerificationKey 'ed25519-a': EdDSA>"


@pytest.mark.parametrize("alg", ["RS256", "PS256"])
def test_a_signature_without_its_leading_zero_is_another_signature(alg: str) -> None:
    signed = ((message, tokens.signature(tokens.key(alg), alg, message)) for message in map(b"%d".__mod__, count()))
    message, signature = next((message, one) for message, one in signed if not one[0])  # one in 256
    assert verifies(published(alg), alg, signature, message)
    assert not verifies(published(alg), alg, signature[1:], message)


def test_a_modulus_may_have_any_number_of_bits() -> None:
    p, q = (rsa.generate_private_key(65537, bits).private_numbers().p for bits in (2050, 2048))
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    key = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key()
    assert key.key_size == 2049  # OpenSSL makes no such key
    for alg in ("RS256", "PS256"):
        assert verifies(tokens.jwk(key), alg, tokens.signature(key, alg, MESSAGE))


def test_a_key_names_its_kty() -> None:
    assert [usable(published(alg)).kty for alg in ("RS256", "ES256", "EdDSA")] == ["RSA", "EC", "OKP"]
    secret = secret_key(b"x" * 64, ["HS384"])
    assert (secret.kty, secret.public, usable(published("EdDSA")).public) == ("oct", False, True)


def test_only_short_ascii_thumbprints_are_read() -> None:
    odd = ("é", "a\ud800", "x" * 257, 5, ["x"])
    assert usable(rsa_jwk(x5t="ab-_", **{"x5t#S256": "x" * 256})).thumbprints == {"x5t": "ab-_", "x5t#S256": "x" * 256}
    assert [usable(rsa_jwk(**{"x5t": text, "x5t#S256": text})).thumbprints for text in odd] == [{}] * len(odd)
