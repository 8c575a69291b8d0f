"""Whole tokens: which are accepted, which are refused with which code, and how long a verified one is remembered."""

import functools
import json
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sidecar.common.errors import Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.claims import Claims
from sidecar.jwt.compact_jws import Jws
from sidecar.jwt.issuer import Issuer
from sidecar.jwt.jwks.algorithms import ALGORITHMS
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.key_set import Jwks, KeySet
from sidecar.jwt.token_cache import digest, entry_bytes
from sidecar.jwt.verifier import REMEMBERED_S, TokenCacheUse, Verifier
from tests.peers import tokens
from tests.peers.clock import EPOCH, HandClock, in_its_time
from tests.peers.identity import identity_headers
from tests.peers.tokens import ABSENT, b64
from tests.peers.waiting import cached, verified, verifier_of

NOW = int(EPOCH)
NARROW, ANYONE, RELAXED = "https://narrow.test/", "https://anyone.test/", "https://relaxed.test/"
RSA, EC, ED = tokens.key("RS256"), tokens.key("ES256"), tokens.key("EdDSA")
KEYS = json.dumps(
    {
        "keys": [
            tokens.public_jwk("RS256"),
            tokens.public_jwk("ES256"),
            tokens.public_jwk("ES384"),
            tokens.public_jwk("ES512"),
            tokens.public_jwk("EdDSA"),
            tokens.jwk(tokens.key("RS256", "b"), kid="enc", use="enc"),
            tokens.jwk(tokens.key("RS256", "b"), kid="wrap", key_ops=["wrapKey"]),
            tokens.jwk(tokens.key("RS256", "b"), kid="pss", alg="PS256"),
            tokens.jwk(tokens.rsa_key(1024), kid="weak"),
            tokens.jwk(b"a secret of thirty-two bytes and more", kid="oct"),
        ]
    }
)
OTHER_KEYS = json.dumps({"keys": [tokens.public_jwk("EdDSA", "b")]})


@functools.cache
def key_set(text: str, *algorithms: str) -> Jwks:
    """Made once in a run, since no test changes it."""
    return Jwks.of(json.loads(text), algorithms)


class Issuers:
    """A Verifier of issuers whose keys are there already. `asked` lists the issuers that are asked for keys."""

    def __init__(self, clock: HandClock) -> None:
        self.clock = clock
        self.asked: list[str] = []
        self.sources: dict[str, JwksSource] = {}
        skewed = ClaimRules(["my-api", "also-me"], clock_skew_s=60)
        self.verifier = verifier_of(
            [
                self._issuer("main", tokens.ISSUER, skewed),
                self._issuer("narrow", NARROW, skewed, ["RS256"]),
                self._issuer("anyone", ANYONE, ClaimRules(None), keys=OTHER_KEYS),
                self._issuer("relaxed", RELAXED, ClaimRules(None, require_exp=False)),
            ],
            clock,
        )

    def _issuer(
        self, name: str, iss: str, rules: ClaimRules, algorithms: Sequence[str] = ALGORITHMS, keys: str = KEYS
    ) -> Issuer:
        async def fetch() -> KeySet:
            self.asked.append(name)
            return KeySet(json.loads(keys), None)

        source = self.sources[name] = JwksSource(name, fetch, algorithms, self.clock)
        source.jwks = key_set(keys, *algorithms)
        source.trusted_until = float("inf")
        return Issuer(name, iss, algorithms, rules, source)

    def remembering(self, **bounds: int) -> Verifier:
        """Another verifier of the same issuers, with its own limits."""
        return verifier_of(self.verifier.issuers.all, self.clock, None, **bounds)

    def publish(self, *keys: Any, name: str = "main") -> None:
        """Replace the keys of an issuer at once."""
        self.sources[name].jwks = Jwks.of({"keys": [*keys]}, ALGORITHMS)

    async def verify(self, token: str) -> Claims:
        return await verified(self.verifier, sent(token))

    def cached(self, token: str) -> Claims | None:
        return cached(self.verifier, sent(token))

    async def refusal(self, token: str) -> str:
        with pytest.raises(Rejection) as caught:
            await self.verify(token)
        assert self.cached(token) is None
        return caught.value.reason.code


def sent(token: str) -> bytes:
    """The bytes of a header's text, as the server receives them."""
    return token.encode("utf-8", "surrogateescape")


@pytest.fixture
def issuers(clock: HandClock) -> Issuers:
    return Issuers(clock)


def good(alg: str = "RS256", **over: Any) -> str:
    return tokens.token(alg, now=NOW, **over)


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


# Remembered tokens


@in_its_time
async def test_a_verified_token_is_remembered(issuers: Issuers, clock: HandClock) -> None:
    token = good()
    assert issuers.cached(token) is None
    claims = await issuers.verify(token)
    assert issuers.cached(token) is claims
    assert (issuers.verifier.hits, issuers.verifier.misses) == (1, 1)
    assert repr(issuers.verifier).endswith(": 1 tokens remembered>")


@in_its_time
async def test_a_remembered_token_expires_between_two_uses(issuers: Issuers, clock: HandClock) -> None:
    token = good(exp=NOW + 10)
    await issuers.verify(token)
    clock.advance(69.5)
    assert issuers.cached(token)
    clock.advance(0.5)
    assert await issuers.refusal(token) == "token_expired"


@in_its_time
async def test_a_remembered_token_is_refused_before_its_nbf_when_the_clock_is_set_back(
    issuers: Issuers, clock: HandClock
) -> None:
    token = good(nbf=NOW)
    await issuers.verify(token)
    clock.advance(-60)
    assert issuers.cached(token)
    clock.advance(-1)
    assert await issuers.refusal(token) == "token_not_yet_valid"


@in_its_time
async def test_a_token_is_remembered_for_a_limited_time(issuers: Issuers, clock: HandClock) -> None:
    token = good(exp=NOW + 9999)
    await issuers.verify(token)
    clock.advance(REMEMBERED_S - 0.5)
    assert issuers.cached(token)
    clock.advance(0.5)
    assert issuers.cached(token) is None
    await issuers.verify(token)
    assert issuers.cached(token)


@pytest.mark.parametrize(
    ("variant", "code"),
    [
        pytest.param(lambda token: tokens.flip(token), "signature_invalid", id="same h.p, other signature"),
        pytest.param(lambda token: token.rpartition(".")[0] + ".", "signature_invalid", id="same h.p, no signature"),
        pytest.param(lambda token: token + "A", "signature_invalid", id="junk variant: a letter more"),
        pytest.param(lambda token: token + "=", "token_malformed", id="junk variant: padding"),
        pytest.param(lambda token: token.upper(), "token_malformed", id="case variant"),
        pytest.param(lambda token: " " + token, "token_malformed", id="junk variant: a space"),
        pytest.param(lambda token: token[:-1], "token_malformed", id="junk variant: a letter less"),
    ],
)
@in_its_time
async def test_a_variant_of_a_remembered_token_is_refused(
    issuers: Issuers, variant: Callable[[str], str], code: str, clock: HandClock
) -> None:
    token = good()
    await issuers.verify(token)
    assert await issuers.refusal(variant(token)) == code
    assert issuers.cached(token)


@in_its_time
async def test_a_remembered_token_is_forgotten_when_its_key_is_withdrawn(issuers: Issuers, clock: HandClock) -> None:
    token = good()
    await issuers.verify(token)
    issuers.publish(tokens.public_jwk("EdDSA"))
    assert issuers.cached(token) is None
    assert repr(issuers.verifier).endswith(": 0 tokens remembered>")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(tokens.jwk(tokens.key("RS256", "b"), kid="rsa-a"), id="another key under the same kid"),
        pytest.param(tokens.jwk(tokens.key("RS256"), kid="renamed"), id="the same key under another kid"),
        pytest.param(
            tokens.jwk(tokens.key("RS256"), kid="rsa-a", alg="PS256"), id="the same key for another algorithm"
        ),
        pytest.param(tokens.jwk(tokens.key("EdDSA"), kid="rsa-a"), id="a key of another kind under the same kid"),
    ],
)
@in_its_time
async def test_a_remembered_token_is_forgotten_when_its_key_changes(
    issuers: Issuers, other: dict[str, Any], clock: HandClock
) -> None:
    token = good()
    await issuers.verify(token)
    issuers.publish(other)
    assert issuers.cached(token) is None


@in_its_time
async def test_a_token_stays_remembered_while_its_key_stays_in_the_set(issuers: Issuers, clock: HandClock) -> None:
    token = good()
    claims = await issuers.verify(token)
    issuers.publish(tokens.public_jwk("RS256", "b"), tokens.public_jwk("RS256"))
    assert issuers.cached(token) is claims
    issuers.publish(tokens.public_jwk("RS256", "b"))
    assert issuers.cached(token) is None


@in_its_time
async def test_a_remembered_token_is_refused_while_its_issuers_keys_are_too_old(
    issuers: Issuers, clock: HandClock
) -> None:
    token = good(exp=NOW + 9999)
    await issuers.verify(token)
    issuers.sources["main"].trusted_until = clock.monotonic() + 10
    clock.advance(9.5)
    assert issuers.cached(token)
    clock.advance(0.5)
    assert await issuers.refusal(token) == "jwks_unavailable"
    issuers.sources["main"].trusted_until = float("inf")
    assert issuers.cached(token)


@in_its_time
async def test_a_token_that_is_verified_again_has_the_same_claims_object(issuers: Issuers, clock: HandClock) -> None:
    """Requests that wait for the same keys share rendered headers and minted tokens. Another key needs new ones."""
    token = good("RS256", header={"kid": ABSENT})
    first = await issuers.verify(token)
    assert await issuers.verify(token) is first
    issuers.publish({**tokens.public_jwk("RS256"), "kid": "another"})
    second = await issuers.verify(token)
    assert second is not first
    assert (first.claims, second.kid) == (second.claims, "another")


def test_the_counts_of_a_new_cache_are_zero() -> None:
    assert tuple(TokenCacheUse()) == (0, 0, 0, 0, 0)


@in_its_time
async def test_a_full_cache_drops_the_least_used_tokens(issuers: Issuers, clock: HandClock) -> None:
    first, second = good("EdDSA", jti="1"), good("EdDSA", jti="2")
    few = issuers.remembering(entries=20)
    for token in (first, second):
        few.verify(sent(token))
    for n in range(19):
        assert cached(few, sent(first))
        few.verify(sent(good("EdDSA", jti=f"-{n}")))
    assert cached(few, sent(first))
    assert cached(few, sent(second)) is None
    assert repr(few).endswith(": 20 tokens remembered>")
    assert (few.cache.entries, few.cache.evictions) == (20, 1)


@in_its_time
async def test_remembered_tokens_stay_within_their_limit_of_memory(issuers: Issuers, clock: HandClock) -> None:
    few = issuers.remembering(most_bytes=20_000)
    small, large = good("EdDSA", jti="1"), good("EdDSA", groups=["g" * 10] * 100)
    few.verify(sent(small))
    few.verify(sent(large))
    assert cached(few, sent(small))
    assert cached(few, sent(large))
    assert few.cache.bytes <= 20_000
    few.verify(sent(good("EdDSA", groups=["h" * 10] * 100)))
    assert cached(few, sent(large)) is None
    assert few.cache.bytes <= 20_000
    few.verify(sent(good("EdDSA", groups=["i" * 10] * 400)))  # larger than the limit
    assert few.cache.entries == 1
    few = issuers.remembering()
    few.verify(sent(small))
    for room, entries in ((few.cache.bytes, 1), (few.cache.bytes - 1, 0)):
        alone = issuers.remembering(most_bytes=room)
        alone.verify(sent(small))
        assert alone.cache.entries == entries


@in_its_time
async def test_the_counted_size_of_a_remembered_token_is_close_to_its_memory(
    issuers: Issuers, clock: HandClock
) -> None:
    payloads: list[dict[str, Any]] = [
        {"groups": []},
        {"groups": [f"group-{g}" for g in range(30)]},
        {"groups": [f"group-{g}" for g in range(300)]},
        {"groups": [{f"group-{g}": g} for g in range(200)]},
        {"sub": "a" * 3000 + "\U0001f600"},
    ]
    for claims in payloads:
        verifier = issuers.remembering()
        made = [sent(good("EdDSA", jti=f"{n}", **claims)) for n in range(50)]
        identity = identity_headers({"X-JWT-Sub": ("sub",)}, "X-JWT-Claims")
        identity.lines(verifier.verify(sent(good("EdDSA"))))
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        counted = -verifier.cache.bytes
        for token in made:
            with suppress(Rejection):  # too large for headers
                identity.lines(verifier.verify(token))
        taken = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        counted += verifier.cache.bytes
        assert 0.7 * taken < counted < 2 * taken, f"{claims}"[:100]


def test_the_size_of_a_remembered_token_is_counted_by_its_payload_and_its_values() -> None:
    assert entry_bytes(Jws({}, {}, b"", b"", b"", b"", padded=False)) == 900 + 3 * 64
    jws = Jws({}, {"aud": list(range(7))}, b"", b"x" * 1000, b"", b"", padded=False)
    assert entry_bytes(jws) == 900 + 2800 + 640
    assert entry_bytes(jws, minted=2) == 900 + 2800 + 640 + 2 * 1900


@in_its_time
async def test_a_repeated_expired_token_is_verified_once(issuers: Issuers, clock: HandClock) -> None:
    token = good("EdDSA", exp=NOW - 3600)
    assert await issuers.refusal(token) == "token_expired"
    clock.advance(60)
    with pytest.raises(Rejection, match="token_expired") as caught:
        issuers.verifier.known(digest(sent(token)))
    assert caught.value.details == "The token expired 61 min ago."
    assert tuple(issuers.verifier.cache)[:2] == (2, 1), "each use of a remembered token is a hit"


@in_its_time
async def test_a_remembered_token_that_expires_is_not_verified_again(issuers: Issuers, clock: HandClock) -> None:
    token = good("EdDSA", exp=NOW + 10)
    await issuers.verify(token)
    clock.advance(70)
    with pytest.raises(Rejection) as caught:
        issuers.verifier.known(digest(sent(token)))
    assert (caught.value.reason.code, caught.value.details) == ("token_expired", "The token expired 60 s ago.")
    assert issuers.verifier.misses == 1


@in_its_time
async def test_an_expired_token_is_checked_completely_when_the_clock_is_set_back(
    issuers: Issuers, clock: HandClock
) -> None:
    token = good("EdDSA", exp=NOW - 3600, iat=NOW - 9000, aud="another")
    assert await issuers.refusal(token) == "token_expired"
    clock.advance(-7200)
    assert await issuers.refusal(token) == "audience_mismatch"


@in_its_time
async def test_a_remembered_expired_token_is_forgotten_with_its_key(issuers: Issuers, clock: HandClock) -> None:
    token = good("EdDSA", exp=NOW - 3600)
    assert await issuers.refusal(token) == "token_expired"
    issuers.publish(tokens.public_jwk("RS256"))
    assert issuers.cached(token) is None
    assert issuers.verifier.cache.entries == 0


@in_its_time
async def test_a_refusal_holds_no_part_of_the_token(issuers: Issuers, clock: HandClock) -> None:
    secret = "s3cret"
    for token in (good(aud=secret), good(iss=secret), headed(kid=secret), headed(alg=secret), good(exp=secret)):
        with pytest.raises(Rejection) as caught:
            await issuers.verify(token)
        assert secret not in caught.value.details
        assert secret not in str(caught.value)
