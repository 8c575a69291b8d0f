"""Whole tokens: which are accepted, and which are refused with which code."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.common.errors import Rejection
from sidecar.jwt.jwks.algorithms import ALGORITHMS
from tests.jwt.issuers import ANYONE, KEYS, NARROW, NOW, RELAXED, Issuers, good
from tests.peers import tokens
from tests.peers.clock import HandClock, in_its_time
from tests.peers.tokens import ABSENT, b64

RSA, EC, ED = tokens.key("RS256"), tokens.key("ES256"), tokens.key("EdDSA")


def signed(header: Any, payload: Any = None, *, key: Any = RSA, alg: str = "RS256") -> str:
    """A token with a valid signature over any header and payload."""
    return tokens.sign(key, alg, header, tokens.claims(now=NOW) if payload is None else payload)


def headed(**over: Any) -> str:
    """A good RS256 token with a changed header."""
    return signed({"alg": "RS256", "kid": "rsa-a", **over})


def unsigned(alg: object) -> str:
    header = {"kid": "rsa-a", "alg": alg} if alg is not ABSENT else {"kid": "rsa-a"}
    return tokens.join(json.dumps(header).encode(), json.dumps(tokens.claims(now=NOW)).encode(), b"")


def malleated(change: Callable[[bytes], bytes], alg: str = "RS256") -> str:
    head, _, signature = good(alg).rpartition(".")
    return f"{head}.{b64(change(tokens.unb64(signature)))}"


def raw(header: bytes, payload: bytes | None = None) -> str:
    return signed(header, payload)


RAW_HEADER = b'{"alg":"RS256","kid":"rsa-a"}'
PUBLIC = tokens.rsa_key(2048, "a").public_key()
SPKI = PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_KEY_AS_SECRET = {
    "PEM SPKI": SPKI,
    "PEM SPKI without the last newline": SPKI.strip(),
    "PEM PKCS#1": PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
    "DER": PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    "OpenSSH": PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
    "JWK text": json.dumps(tokens.public_jwk()).encode(),
    "JWKS text": KEYS.encode(),
    "modulus": tokens.public_jwk()["n"].encode(),
    "empty": b"",
}
EVIL = tokens.key("RS256", "evil")
EVIL_JWK = tokens.jwk(EVIL, kid="rsa-a")


# Accepted tokens


@pytest.mark.parametrize("alg", ALGORITHMS)
@in_its_time
async def test_a_valid_token_is_accepted_and_names_its_issuer(issuers: Issuers, alg: str, clock: HandClock) -> None:
    token = good(alg)
    claims = await issuers.verify(token)
    assert (claims.issuer, claims.claims) == ("main", tokens.claims(now=NOW))
    assert claims.payload_segment.decode() == token.split(".")[1]
    assert (claims.valid_from, claims.valid_until) == (NOW - 60, NOW + 300 + 60)
    assert issuers.asked == []


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(headed(kid=ABSENT), id="kid missing"),
        pytest.param(headed(typ="JWT"), id="typ: JWT"),
        pytest.param(headed(typ="at+jwt"), id="typ: at+jwt"),
        pytest.param(headed(zip="DEF"), id="zip, which means nothing in a JWS"),
        pytest.param(headed(cty="x"), id="cty"),
        pytest.param(headed(x="y", nonce=5), id="unknown header parameters"),
        pytest.param(headed(jku="https://evil.example/", x5u="https://evil.example/", x5c=["MII"]), id="jku, x5u, x5c"),
        pytest.param(headed(jwk=EVIL_JWK), id="embedded jwk, the signature by the issuer"),
        pytest.param(good(exp=9999999999.5), id="exp float"),
        pytest.param(good(exp=1e10), id="exponent form"),
        pytest.param(good(aud=["x", "also-me"]), id="aud: in list"),
        pytest.param(good(at_hash="x"), id="at_hash in the token"),
        pytest.param(good(pad="x" * 6000), id="6 KB claims"),
        pytest.param(good(iss=ANYONE, name="b", alg="EdDSA"), id="aud not configured, token has aud"),
        pytest.param(good(iss=ANYONE, name="b", alg="EdDSA", aud=ABSENT), id="aud not configured"),
        pytest.param(good(iss=RELAXED, exp=ABSENT), id="exp missing, not required"),
    ],
)
@in_its_time
async def test_an_unusual_but_valid_token_is_accepted(issuers: Issuers, token: str, clock: HandClock) -> None:
    await issuers.verify(token)
    assert issuers.asked == []


# Table 1: algorithm, signature, header parameters


@pytest.mark.parametrize(
    ("token", "code"),
    [
        *(
            pytest.param(make(alg), code, id=f"alg none: {alg!r}, {how}")
            for how, make in (("empty signature", unsigned), ("genuine signature", lambda alg: headed(alg=alg)))
            for alg, code in (
                ("none", "algorithm_not_allowed"),
                ("None", "algorithm_not_allowed"),
                ("NONE", "algorithm_not_allowed"),
                ("nOnE", "algorithm_not_allowed"),
                ("none ", "algorithm_not_allowed"),
                ("", "algorithm_not_allowed"),
                (None, "token_malformed"),
                (0, "token_malformed"),
                ([], "token_malformed"),
                ({}, "token_malformed"),
            )
        ),
        pytest.param(unsigned(ABSENT), "token_malformed", id="alg none: missing, empty signature"),
        pytest.param(headed(alg=ABSENT), "token_malformed", id="alg none: missing, genuine signature"),
        *(
            pytest.param(headed(alg=alg), "token_malformed", id=f"alg odd types: {alg!r}")
            for alg in (["RS256"], {"RS256": 1}, 256, True)
        ),
        *(
            pytest.param(headed(alg=alg), "algorithm_not_allowed", id=f"alg odd types: {alg!r}")
            for alg in ("rs256", "RS256 ", "RS256\0", "RS2", "S256", "RSA-OAEP", "dir", "ES256K", "ed25519", "Ed448")
        ),
        *(
            pytest.param(
                tokens.sign(secret, alg, {"kid": "rsa-a"}, tokens.claims(now=NOW)),
                "algorithm_not_allowed",
                id=f"alg confusion: {alg}, {what}",
            )
            for what, secret in PUBLIC_KEY_AS_SECRET.items()
            for alg in ("HS256", "HS512")
        ),
        pytest.param(
            tokens.sign(b"a secret of thirty-two bytes and more", "HS256", {"kid": "oct"}, tokens.claims(now=NOW)),
            "algorithm_not_allowed",
            id="oct key in the JWKS",
        ),
        pytest.param(headed(kid="p-256-a"), "key_unknown", id="allowed alg, wrong key type: RS256 + kid of an EC key"),
        pytest.param(
            signed({"kid": "rsa-a"}, key=EC, alg="ES256"),
            "key_unknown",
            id="allowed alg, wrong key type: ES256 + kid of an RSA key",
        ),
        *(
            pytest.param(
                signed({"kid": tokens.kid(curve)}, key=tokens.key(curve), alg="ES256"),
                "key_unknown",
                id=f"allowed alg, wrong key type: ES256 + key of {curve}",
            )
            for curve in ("ES384", "ES512")
        ),
        *(
            pytest.param(good(alg, iss=NARROW), "algorithm_not_allowed", id=f"alg outside the allow-list: {alg}")
            for alg in ("RS384", "PS256", "EdDSA")
        ),
        pytest.param(
            signed({"alg": "RS256", "kid": "rsa-a"}, alg="PS256"),
            "signature_invalid",
            id="alg outside the allow-list: PSS signature under RS256",
        ),
        pytest.param(
            signed({"alg": "RS512", "kid": "rsa-a"}), "signature_invalid", id="alg of another hash than the signature"
        ),
        pytest.param(malleated(lambda s: b""), "signature_invalid", id="empty / missing signature: h.p."),
        pytest.param(good().rpartition(".")[0], "token_malformed", id="empty / missing signature: h.p"),
        pytest.param(malleated(lambda s: bytes(len(s))), "signature_invalid", id="RSA signature malleation: zero"),
        pytest.param(malleated(lambda s: b"\xff" * len(s)), "signature_invalid", id="RSA signature malleation: ff"),
        pytest.param(malleated(lambda s: s[:-1]), "signature_invalid", id="RSA signature malleation: truncated"),
        pytest.param(malleated(lambda s: s + b"\0"), "signature_invalid", id="RSA signature malleation: +1 byte"),
        pytest.param(malleated(lambda s: b"\0" + s), "signature_invalid", id="RSA signature malleation: leading zero"),
        pytest.param(tokens.flip(good()), "signature_invalid", id="RSA signature malleation: bit flip"),
        pytest.param(malleated(lambda s: bytes(64), "ES256"), "signature_invalid", id="ECDSA degenerate: r=s=0"),
        pytest.param(malleated(lambda s: s[32:] + s[:32], "ES256"), "signature_invalid", id="ECDSA degenerate: swapped"),
        pytest.param(malleated(lambda s: s + b"\0", "ES256"), "signature_invalid", id="ECDSA degenerate: trailing zero"),
        pytest.param(
            malleated(lambda s: b"\0" + s[:32] + b"\0" + s[32:], "ES256"),
            "signature_invalid",
            id="ECDSA degenerate: 33-byte halves",
        ),
        pytest.param(tokens.flip(good("EdDSA")), "signature_invalid", id="EdDSA bit flip"),
        pytest.param(tokens.flip(good(sub="alicf"), 1, 67), "signature_invalid", id="payload bit flip"),
        pytest.param(
            signed({"jwk": EVIL_JWK, "kid": "rsa-a"}, key=EVIL), "signature_invalid", id="embedded `jwk`, kid of a real key"
        ),
        pytest.param(signed({"jwk": EVIL_JWK}, key=EVIL), "signature_invalid", id="embedded `jwk`, without kid"),
        pytest.param(
            signed({"jwk": EVIL_JWK, "kid": "evil"}, key=EVIL), "key_unknown", id="embedded `jwk`, with its kid"
        ),
        pytest.param(
            tokens.sign(
                b"k", "HS256", {"jwk": {"kty": "oct", "k": "aw"}, "kid": "rsa-a"}, tokens.claims(now=NOW)
            ),
            "algorithm_not_allowed",
            id="embedded `jwk`, oct",
        ),
        *(
            pytest.param(
                signed({name: value, "kid": "rsa-a"}, key=EVIL), "signature_invalid", id=f"`jku`, `x5u`, `x5c`: {name}"
            )
            for name, value in (
                ("jku", "https://evil.example/jwks"),
                ("x5u", "https://evil.example/cert.pem"),
                ("x5c", [b64(b"a certificate")]),
            )
        ),
        *(
            pytest.param(headed(kid=kid), "key_unknown", id=f"kid injection: {kid!r}")
            for kid in (
                "../../dev/null", "' OR 1=1 --", "a\r\nX: y", "rsa-a\0", "https://evil.example/jwks", "RSA-A", "rsa-a ",
                "__proto__", "",
            )
        ),
        *(
            pytest.param(headed(kid=kid), "token_malformed", id=f"kid type: {kid!r}")
            for kid in (5, True, ["rsa-a"], {"rsa-a": 1}, None)
        ),
        pytest.param(headed(kid="k" * 4096), "token_too_large", id="kid huge (4 KB)"),
        pytest.param(headed(kid="k" * 1000), "key_unknown", id="kid huge (1 KB)"),
        *(
            pytest.param(headed(crit=crit, **over), "token_malformed", id=f"`crit`: {what}")
            for what, crit, over in (
                ("unknown name", ["x"], {"x": 1}),
                ("registered name", ["alg"], {}),
                ("[]", [], {}),
                ("string", "exp", {}),
                ("object", {}, {}),
                ("null", None, {}),
                ("absent parameter", ["exp"], {}),
            )
        ),
        pytest.param(headed(b64=False, crit=["b64"]), "token_malformed", id="b64=false, with crit"),
        pytest.param(headed(b64=False), "token_malformed", id="b64=false, without crit"),
        pytest.param(headed(b64=True), "token_malformed", id="b64=true"),
        pytest.param(
            raw(b'{"alg":"none","alg":"RS256","kid":"rsa-a"}'), "token_malformed", id="duplicate header members: alg"
        ),
        pytest.param(
            raw(b'{"alg":"RS256","kid":"x","kid":"rsa-a"}'), "token_malformed", id="duplicate header members: kid"
        ),
        *(
            pytest.param(raw(header), "token_malformed", id=f"header not an object / bad JSON: {header[:20]!r}")
            for header in (
                b"[]", b'"x"', b"null", b"{alg:RS256}", b'{"alg":"RS256","kid":"\xff"}', RAW_HEADER.decode().encode("utf-16"),
                b'{"alg":"RS256","kid":"rsa-a","x":NaN}', RAW_HEADER + b"x", RAW_HEADER + b"\0",
            )
        ),
        pytest.param(
            tokens.join(b"[" * 2500, b"{}", b""), "token_malformed", id="deep header"
        ),
        pytest.param(
            raw(RAW_HEADER, b'{"iss":"x","n":' + b"9" * 5000 + b"}"), "token_malformed", id="huge integer in the payload"
        ),
        pytest.param("a.b.c.d.e", "token_malformed", id="JWE"),
        pytest.param(
            tokens.join(b'{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483648}', b"x", b"x") + ".eA.eA",
            "token_malformed",
            id="JWE: PBES2 p2c=2^31",
        ),
        pytest.param('{"payload":"e30","protected":"e30","signature":""}', "token_malformed", id="JSON serialisation"),
        *(
            pytest.param(token, "token_malformed", id=f"segments: {token[:6]!r}")
            for token in ("", ".", "..", "a", "a.b", "a.b.c.d", "." * 3000)
        ),
        pytest.param(good().replace(".eyJ", ".e..yJ", 1), "token_malformed", id="dots inside the payload"),
        pytest.param(good() + "!!!!", "token_malformed", id="base64url: junk"),
        pytest.param(good() + "=", "token_malformed", id="base64url `=` padding"),
        pytest.param(good() + "\u00e9", "token_malformed", id="bytes >= 0x80"),
        pytest.param(good() + "\udce9", "token_malformed", id="bytes >= 0x80, not UTF-8"),
        pytest.param(good() + "\0", "token_malformed", id="NUL in the token"),
        pytest.param(good(pad="x" * 16_000), "token_too_large", id="oversize: 16 KB"),
        pytest.param("x" * 65_536, "token_too_large", id="oversize: 64 KB"),
        pytest.param("x" * 307_200, "token_too_large", id="oversize: 300 KB"),
        pytest.param(
            signed({"kid": "weak"}, key=tokens.rsa_key(1024)), "key_unknown", id="weak RSA 512/768/1024: its key"
        ),
        *(
            pytest.param(
                signed({"kid": kid}, key=tokens.key("RS256", "b")), "key_unknown", id=f"a key for another use: {kid}"
            )
            for kid in ("enc", "wrap", "pss")
        ),
    ],
)  # fmt: skip
@in_its_time
async def test_a_token_with_a_bad_algorithm_signature_or_header_is_refused(
    issuers: Issuers, token: str, code: str, clock: HandClock
) -> None:
    assert await issuers.refusal(token) == code
    # Only a well-formed token of a known issuer with an allowed algorithm and an unknown kid causes a fetch.
    assert set(issuers.asked) <= ({"main"} if code in ("key_unknown", "signature_invalid") else set())


# Table 3: claims

NOT_DATES: list[Any] = ["1", True, None, [], {}]
NOT_EXP = [*NOT_DATES, "9999999999", " 9 ", "9_9", "\uff19\uff19", 10**300, 1e300]
NOT_US: list[Any] = ["other", [], "", None, {}, 5, "my-ap", [["my-api"]], ["my-api", 5]]
DEEP = b'{"a":' + b"[" * 2300 + b"]" * 2300 + b"}"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        pytest.param(good(exp=NOW - 3600), "token_expired", id="exp past"),
        pytest.param(good(exp=NOW - 60), "token_expired", id="exp now+leeway boundary"),
        pytest.param(good(exp=0), "token_expired", id="exp 0"),
        pytest.param(good(exp=-1), "token_expired", id="exp negative"),
        *(
            pytest.param(good(exp=exp), "claim_invalid", id=f"exp types: {exp!r}")
            for exp in NOT_EXP
        ),
        *(
            pytest.param(
                raw(RAW_HEADER, b'{"iss":"https://issuer.test/","aud":"my-api","exp":%b}' % exp),
                "token_malformed",
                id=f"exp types: {exp.decode()}",
            )
            for exp in (b"NaN", b"Infinity", b"-Infinity", b"1e400")
        ),
        pytest.param(good(exp=ABSENT), "claim_missing", id="exp missing"),
        pytest.param(good(nbf=NOW + 61), "token_not_yet_valid", id="nbf future"),
        pytest.param(good(iat=NOW + 61), "token_issued_in_future", id="iat future"),
        *(
            pytest.param(good("RS256", **{name: value}), "claim_invalid", id=f"{name} wrong types: {value!r}")
            for name in ("nbf", "iat")
            for value in NOT_DATES
        ),
        *(
            pytest.param(good(iss=iss), "issuer_unknown", id=f"iss: {iss!r}")
            for iss in (
                ["https://issuer.test/"], {"https://issuer.test/": 1}, None, 5, True, "", "https://issuer.test",
                "https://issuer.test//", "https://issuer.tes", "xhttps://issuer.test/", "HTTPS://ISSUER.TEST/",
                "https://issuer.test/\0", " https://issuer.test/", "https://evil.example/", "main",
            )
        ),
        pytest.param(good(iss=ABSENT), "issuer_unknown", id="iss: missing"),
        *(
            pytest.param(good(aud=aud), "audience_mismatch", id=f"aud: {aud!r}")
            for aud in NOT_US
        ),
        pytest.param(good(aud=ABSENT), "audience_mismatch", id="aud: missing"),
        *(
            pytest.param(raw(RAW_HEADER, payload), "token_malformed", id=f"payload not an object: {payload[:16]!r}")
            for payload in (b"[]", b'"x"', b"null", b"x", b'{"iss":"\xff"}', "{}".encode("utf-16"), b"{}x", b'{"x":NaN}')
        ),
        *(
            pytest.param(
                raw(RAW_HEADER, json.dumps(tokens.claims(now=NOW)).encode()[:-1] + more),
                "token_malformed",
                id=f"duplicate members: {more.decode()}",
            )
            for more in (b',"exp":9999999999}', b',"sub":"bob"}')
        ),
        pytest.param(
            raw(RAW_HEADER, DEEP), "token_malformed", id="deep payload (2300 levels, signed)"
        ),
        pytest.param(good(sub="\ud800"), "token_malformed", id="claim -> header: lone surrogate"),
    ],
)  # fmt: skip
@in_its_time
async def test_a_token_with_a_bad_claim_is_refused(issuers: Issuers, token: str, code: str, clock: HandClock) -> None:
    assert await issuers.refusal(token) == code
    assert issuers.asked == []


@in_its_time
async def test_the_signature_is_checked_before_any_claim(issuers: Issuers, clock: HandClock) -> None:
    assert await issuers.refusal(tokens.flip(good(exp=0, aud="x"))) == "signature_invalid"


@pytest.mark.parametrize(
    "over",
    [{"iss": "https://evil.example/"}, {"alg": "RS384", "iss": NARROW}],
    ids=["unknown issuer", "other algorithm"],
)
@in_its_time
async def test_a_token_of_an_unknown_issuer_or_algorithm_causes_no_fetch(
    issuers: Issuers, over: dict[str, Any], clock: HandClock
) -> None:
    await issuers.refusal(good(header={"kid": "random"}, **over))
    assert issuers.asked == []


@in_its_time
async def test_a_token_without_iss_is_refused_with_that_reason(issuers: Issuers, clock: HandClock) -> None:
    for iss in (ABSENT, None):
        with pytest.raises(Rejection) as caught:
            await issuers.verify(good(iss=iss))
        assert caught.value.details == "The token has no iss claim."


@in_its_time
async def test_only_the_keys_of_the_tokens_own_issuer_are_tried(issuers: Issuers, clock: HandClock) -> None:
    assert await issuers.refusal(good("EdDSA", iss=ANYONE)) == "key_unknown"
    issuers.publish(tokens.jwk(tokens.key("EdDSA", "b"), kid="ed25519-a"), name="anyone")
    assert await issuers.refusal(good("EdDSA", iss=ANYONE)) == "signature_invalid"
    assert (await issuers.verify(good("EdDSA"))).issuer == "main"


@in_its_time
async def test_each_fitting_key_is_tried_without_a_kid(issuers: Issuers, clock: HandClock) -> None:
    issuers.publish(*(tokens.public_jwk("EdDSA", name) for name in ("b", "c", "a", "d", "e")))
    for name in ("a", "b", "e"):
        await issuers.verify(good("EdDSA", name=name, header={"kid": ABSENT}))
    assert await issuers.refusal(good("EdDSA", name="f", header={"kid": ABSENT})) == "signature_invalid"


@in_its_time
async def test_a_new_key_is_fetched_and_used(issuers: Issuers, clock: HandClock) -> None:
    issuers.publish(tokens.public_jwk("RS256"))
    assert await issuers.verify(good("EdDSA"))
    assert issuers.asked == ["main"]


@in_its_time
async def test_a_token_is_jwks_unavailable_without_usable_keys(issuers: Issuers, clock: HandClock) -> None:
    issuers.sources["main"].trusted_until = clock.monotonic()
    assert await issuers.refusal(tokens.flip(good())) == "jwks_unavailable"


@in_its_time
async def test_a_refusal_holds_no_part_of_the_token(issuers: Issuers, clock: HandClock) -> None:
    secret = "s3cret"
    for token in (good(aud=secret), good(iss=secret), headed(kid=secret), headed(alg=secret), good(exp=secret)):
        with pytest.raises(Rejection) as caught:
            await issuers.verify(token)
        assert secret not in caught.value.details
        assert secret not in str(caught.value)
