"""Keys that no issuer publishes: a public key in PEM, a shared secret, a key set in the configuration."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from sidecar.app.builder.key_sources import places, same_place
from sidecar.app.server import Sidecar, build
from sidecar.common.errors import Reason, Rejection
from sidecar.config import parse
from sidecar.jwt.jwks.algorithms import ALGORITHMS, SECRET_ALGORITHMS
from sidecar.jwt.jwks.fetcher import FileKeySet
from sidecar.jwt.jwks.jwk import UnusableKey, public_key, secret_key
from sidecar.jwt.jwks.key_set import FetchFailed, Jwks
from tests.peers import tokens
from tests.peers.clock import HandClock, in_its_time
from tests.peers.tokens import ABSENT, AUDIENCE
from tests.peers.waiting import cached, verified

FILE_POLL_S = 5.0  # the value of docs/reference/issuers.md
SECRET = b"0123456789abcdef0123456789abcdef"
OTHER = b"fedcba9876543210fedcba9876543210"
ISS = "https://hmac.test/"


@asynccontextmanager
async def running(
    clock: HandClock, directory: Path, settings: dict[str, Any] | None = None, /, **issuers: dict[str, Any]
) -> AsyncIterator[Sidecar]:
    """The objects of a configuration with local keys, kept fresh as in a running sidecar; without listeners."""
    config = {
        "upstream": "http://127.0.0.1:1",
        "access_log": "off",
        "issuers": {name: {"audiences": [AUDIENCE], **keys} for name, keys in issuers.items()},
        **(settings or {}),
    }
    sidecar = build(parse(json.dumps(config), base=directory, environ={"SECRET": SECRET.decode()}), clock)
    keeping = [asyncio.create_task(source.keep_fresh()) for source in sidecar.assembly.sources.values()]
    await asyncio.sleep(0.001)
    try:
        yield sidecar
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        await sidecar.stop()


async def verdict(sidecar: Sidecar, token: str) -> str:
    """`accepted`, or the code of the refusal. A remembered token gets the same verdict."""
    verifier = sidecar.assembly.handler.authentication.verifier
    try:
        cached(verifier, token.encode()) or await verified(verifier, token.encode())
    except Rejection as rejection:
        return rejection.reason.code
    assert cached(verifier, token.encode()) is not None
    return "accepted"


def signed(secret: bytes, clock: HandClock, alg: str = "HS256", *, header: Any = None, **over: Any) -> str:
    claims = tokens.claims(**{"now": clock.wall(), "iss": ISS, "exp": 2**33, **over})
    return tokens.sign(secret, alg, {"typ": "JWT", **(header or {})}, claims)


# Shared secrets


@pytest.mark.parametrize("alg", SECRET_ALGORITHMS)
@pytest.mark.parametrize("kid", [ABSENT, "a", "anything else"])
@in_its_time
async def test_a_secret_verifies_tokens_with_every_kid(alg: str, kid: Any, clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    for keys in ({"secret_file": "secret"}, {"secret_env": "SECRET"}):
        async with running(clock, tmp_path, a={"issuer": ISS, **keys}) as sidecar:
            assert await verdict(sidecar, signed(SECRET, clock, alg, header={"kid": kid})) == "accepted"
            for wrong in (OTHER, SECRET + b"\n", SECRET[:-1], b""):
                token = signed(wrong, clock, alg, header={"kid": kid})
                assert await verdict(sidecar, token) == "signature_invalid"
            unsigned = signed(SECRET, clock, alg).rpartition(".")[0] + "."
            assert await verdict(sidecar, unsigned) == "signature_invalid"


@in_its_time
async def test_only_the_listed_hmac_algorithms_are_accepted(clock: HandClock, tmp_path: Path) -> None:
    async with running(clock, tmp_path, a={"issuer": ISS, "secret_env": "SECRET", "algorithms": ["HS512"]}) as sidecar:
        assert await verdict(sidecar, signed(SECRET, clock, "HS512")) == "accepted"
        assert await verdict(sidecar, signed(SECRET, clock, "HS256")) == "algorithm_not_allowed"


@pytest.mark.parametrize("alg", ALGORITHMS)
@in_its_time
async def test_an_issuer_with_a_secret_refuses_public_key_signatures(
    alg: str, clock: HandClock, tmp_path: Path
) -> None:
    async with running(clock, tmp_path, a={"issuer": ISS, "secret_env": "SECRET"}) as sidecar:
        token = tokens.token(alg, now=clock.wall(), iss=ISS)
        assert await verdict(sidecar, token) == "algorithm_not_allowed"
        for name in ("none", "None", "hs256", "HS256 ", "HS2", ""):
            header = {"alg": name}
            assert await verdict(sidecar, signed(SECRET, clock, header=header)) == "algorithm_not_allowed"


def public_forms() -> list[Any]:
    """The public key of `key("RS256")` in every form that could serve as a secret."""
    key = tokens.rsa_key(2048, "a").public_key()
    jwk = tokens.public_jwk("RS256")
    n = key.public_numbers().n
    forms = {
        "PEM SPKI": tokens.public_pem("RS256"),
        "PEM SPKI without its last line break": tokens.public_pem("RS256").rstrip(),
        "PEM PKCS#1": key.public_bytes(Encoding.PEM, PublicFormat.PKCS1),
        "DER SPKI": key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        "DER PKCS#1": key.public_bytes(Encoding.DER, PublicFormat.PKCS1),
        "OpenSSH": key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "JWK text": json.dumps(jwk).encode(),
        "JWKS text": json.dumps({"keys": [jwk]}).encode(),
        "modulus": n.to_bytes(256),
        "modulus in base64url": jwk["n"].encode(),
        "kid": jwk["kid"].encode(),
        "nothing": b"",
    }
    return [pytest.param(form, id=name) for name, form in forms.items()]


@pytest.mark.parametrize("alg", ["HS256", "HS512"])
@pytest.mark.parametrize("secret", public_forms())
@in_its_time
async def test_a_public_key_is_never_used_as_a_secret(
    secret: bytes, alg: str, clock: HandClock, tmp_path: Path
) -> None:
    """RFC 8725 section 3.1, CVE-2016-10555, CVE-2022-29217, CVE-2024-33663."""
    (tmp_path / "key.pem").write_bytes(tokens.public_pem("RS256"))
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [tokens.public_jwk("RS256")]}))
    async with running(
        clock,
        tmp_path,
        pem={"issuer": "https://pem.test/", "public_key_file": "key.pem"},
        jwks={"issuer": "https://jwks.test/", "jwks_file": "keys.json"},
        hmac={"issuer": ISS, "secret_env": "SECRET"},
    ) as sidecar:
        for iss in ("https://pem.test/", "https://jwks.test/"):
            good = tokens.token("RS256", now=clock.wall(), iss=iss)
            assert await verdict(sidecar, good) == "accepted"
            for kid in (ABSENT, tokens.kid("RS256")):
                forged = signed(secret, clock, alg, iss=iss, header={"kid": kid})
                assert await verdict(sidecar, forged) == "algorithm_not_allowed"
        assert await verdict(sidecar, signed(secret, clock, alg)) == "signature_invalid"


@in_its_time
async def test_the_secret_of_one_issuer_verifies_no_token_of_another(clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(OTHER)
    keys = {"keys": [tokens.public_jwk("RS256")]}
    async with running(
        clock,
        tmp_path,
        a={"issuer": ISS, "secret_env": "SECRET"},
        b={"issuer": "https://b.test/", "secret_file": "other"},
        c={"issuer": "https://c.test/", "jwks_inline": keys},
    ) as sidecar:
        assert await verdict(sidecar, signed(OTHER, clock, iss="https://b.test/")) == "accepted"
        assert await verdict(sidecar, signed(SECRET, clock, iss="https://b.test/")) == "signature_invalid"
        assert await verdict(sidecar, signed(SECRET, clock, iss="https://c.test/")) == "algorithm_not_allowed"
        token = tokens.token("RS256", now=clock.wall(), iss=ISS)
        assert await verdict(sidecar, token) == "algorithm_not_allowed"
        assert await verdict(sidecar, signed(SECRET, clock, iss="https://d.test/")) == "issuer_unknown"


@in_its_time
async def test_a_secret_is_never_saved_in_a_snapshot(clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "snapshots").mkdir()
    settings = {"jwks_snapshot_dir": "snapshots"}
    issuers = {
        "a": {"issuer": ISS, "secret_file": "secret"},
        "b": {"issuer": "https://b.test/", "secret_env": "SECRET"},
    }
    async with running(clock, tmp_path, settings, **issuers) as sidecar:
        assert await verdict(sidecar, signed(SECRET, clock)) == "accepted"
        assert list((tmp_path / "snapshots").iterdir()) == []


def test_a_snapshot_belongs_to_every_place_of_the_keys(tmp_path: Path) -> None:
    url, key = "jwks_uri: https://k.test/", "{kty: OKP, crv: Ed25519, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    settings = [
        "", url, f"{url}a",
        *(f"{url}, more_keys: [{{{more}}}]" for more in (
            "jwks_uri: https://k.test/b", "jwks_file: c", "jwks_file: d", "secret_env: SECRET",
            f"jwks_inline: {{keys: [{key}}}]}}", f"jwks_inline: {{keys: [{key}, kid: e}}]}}",
        )),
    ]  # fmt: skip
    said = set()
    for more in settings:
        text = f"issuers: {{a: {{issuer: 'https://a.test', audiences: any, {more}}}}}\nupstream: http://127.0.0.1:1\n"
        said.add(places(parse(text, environ={"SECRET": SECRET.decode()}, base=tmp_path).issuers["a"]))
    assert len(said) == len(settings)
    assert {"discovery", "https://k.test/"} < said
    assert SECRET.decode() not in str(said)


@in_its_time
async def test_a_changed_secret_invalidates_tokens_of_the_old_one(clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    async with running(clock, tmp_path, a={"issuer": ISS, "secret_file": "secret"}) as sidecar:
        old, new = signed(SECRET, clock), signed(OTHER, clock)
        assert (await verdict(sidecar, old), await verdict(sidecar, new)) == ("accepted", "signature_invalid")
        (tmp_path / "secret").write_bytes(OTHER)
        await asyncio.sleep(FILE_POLL_S * 1.1 + 0.1)
        assert (await verdict(sidecar, old), await verdict(sidecar, new)) == ("signature_invalid", "accepted")


@in_its_time
async def test_both_secrets_verify_during_the_grace_period(clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    keys = {"secret_file": "secret", "removed_key_grace": "60s"}
    async with running(clock, tmp_path, a={"issuer": ISS, **keys}) as sidecar:
        (tmp_path / "secret").write_bytes(OTHER)
        await asyncio.sleep(FILE_POLL_S * 1.1 + 0.1)
        old, new = signed(SECRET, clock), signed(OTHER, clock)
        assert (await verdict(sidecar, old), await verdict(sidecar, new)) == ("accepted", "accepted")
        await asyncio.sleep(60)
        assert (await verdict(sidecar, old), await verdict(sidecar, new)) == ("signature_invalid", "accepted")


@pytest.mark.parametrize("content", [None, b"", SECRET[1:], tokens.public_pem()], ids=["gone", "empty", "short", "PEM"])
@in_its_time
async def test_a_bad_secret_file_keeps_the_last_secret_for_max_stale(
    content: bytes | None, clock: HandClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    file = tmp_path / "secret"
    file.write_bytes(SECRET)
    async with running(clock, tmp_path, a={"issuer": ISS, "secret_file": "secret", "max_stale": "120s"}) as sidecar:
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        await asyncio.sleep(60)
        assert await verdict(sidecar, signed(SECRET, clock)) == "accepted"
        await asyncio.sleep(120)
        assert await verdict(sidecar, signed(SECRET, clock)) == "jwks_unavailable"
        file.write_bytes(SECRET)
        await asyncio.sleep(FILE_POLL_S + 0.1)  # after a failure the file is read as often
        assert await verdict(sidecar, signed(SECRET, clock)) == "accepted"
    assert SECRET[1:].decode() not in caplog.text
    assert "event=keys_not_fetched" in caplog.text


@in_its_time
async def test_a_secret_that_is_mounted_later_is_read(clock: HandClock, tmp_path: Path) -> None:
    async with running(clock, tmp_path, a={"issuer": ISS, "secret_file": "secret"}) as sidecar:
        assert await verdict(sidecar, signed(SECRET, clock)) == "jwks_unavailable"
        assert not sidecar.assembly.sources["a"].usable
        (tmp_path / "secret").write_bytes(SECRET)
        await asyncio.sleep(FILE_POLL_S)
        assert await verdict(sidecar, signed(SECRET, clock)) == "accepted"


def test_no_member_of_a_key_set_is_used_as_a_secret() -> None:
    for document in (SECRET.decode(), {"keys": SECRET.decode()}, {"keys": [tokens.jwk(SECRET)]}, [SECRET.decode()]):
        with pytest.raises(FetchFailed):
            Jwks.of(json.loads(json.dumps(document)), [*ALGORITHMS, *SECRET_ALGORITHMS])


def test_a_secret_does_not_appear_in_the_text_of_its_key() -> None:
    key = secret_key(SECRET, ["HS256"])
    shown = repr(key) + repr(Jwks([key])) + repr(vars(Jwks([key])))
    assert SECRET.decode() not in shown
    assert key != secret_key(OTHER, ["HS256"])
    assert key == secret_key(SECRET, ["HS256"])


def test_a_secret_is_refused_for_other_algorithms_and_as_pem() -> None:
    with pytest.raises(UnusableKey, match="fits none"):
        secret_key(SECRET, ALGORITHMS)
    with pytest.raises(UnusableKey):
        secret_key(tokens.public_pem(), SECRET_ALGORITHMS)


# Public keys in PEM


@pytest.mark.parametrize("alg", ALGORITHMS)
@pytest.mark.parametrize(
    ("kid", "named", "expected"),
    [
        pytest.param(None, ABSENT, "accepted", id="key without kid, token without kid"),
        pytest.param(None, "anything", "accepted", id="key without kid, token with any kid"),
        pytest.param("a", "a", "accepted", id="the token names the kid of the key"),
        pytest.param("a", ABSENT, "accepted", id="key with kid, token without kid"),
        pytest.param("a", "b", "key_unknown", id="the token names another kid"),
    ],
)
@in_its_time
async def test_a_public_key_in_pem_verifies(
    alg: str, kid: str | None, named: Any, expected: str, clock: HandClock, tmp_path: Path
) -> None:
    (tmp_path / "key.pem").write_bytes(tokens.public_pem(alg))
    keys = {"public_key_file": "key.pem"} | ({} if kid is None else {"kid": kid})
    async with running(clock, tmp_path, a={"issuer": ISS, **keys}) as sidecar:
        token = tokens.token(alg, now=clock.wall(), iss=ISS, header={"kid": named})
        assert await verdict(sidecar, token) == expected
        assert await verdict(sidecar, tokens.flip(token)) != "accepted"
        stranger = tokens.token(alg, name="b", now=clock.wall(), iss=ISS, header={"kid": named})
        assert await verdict(sidecar, stranger) == ("signature_invalid" if expected == "accepted" else expected)


@in_its_time
async def test_a_changed_public_key_file_replaces_the_old_key(clock: HandClock, tmp_path: Path) -> None:
    (tmp_path / "key.pem").write_bytes(tokens.public_pem("EdDSA", "a"))
    async with running(clock, tmp_path, a={"issuer": ISS, "public_key_file": "key.pem"}) as sidecar:
        old, new = (tokens.token("EdDSA", name=name, now=clock.wall(), iss=ISS) for name in "ab")
        assert (await verdict(sidecar, old), await verdict(sidecar, new)) == ("accepted", "signature_invalid")
        (tmp_path / "key.pem").write_bytes(tokens.public_pem("EdDSA", "b"))
        await asyncio.sleep(FILE_POLL_S * 1.1 + 0.1)
        assert (await verdict(sidecar, old), await verdict(sidecar, new)) == ("signature_invalid", "accepted")


def pem(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return encoded


NO_PEM = "it holds no PEM public key or certificate; write one with openssl pkey -pubout"
PRIVATE = "it holds a private key; keep it with the signer and use the public half: openssl pkey -pubout"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        pytest.param(b"", NO_PEM, id="empty"),
        pytest.param(b"junk", NO_PEM, id="junk"),
        pytest.param(tokens.public_pem()[:-60], NO_PEM, id="cut"),
        pytest.param(tokens.public_pem().replace(b"PUBLIC KEY", b"CERTIFICATE"), NO_PEM, id="certificate"),
        pytest.param(
            tokens.rsa_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()), PRIVATE, id="private key"
        ),
        pytest.param(
            tokens.ec_key().private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
            PRIVATE,
            id="EC PRIVATE KEY",
        ),
        pytest.param(
            pem(rsa.RSAPublicNumbers(65537, 2**1023 + 1).public_key()),
            "its modulus has 1024 bits; 2048 to 8192 are accepted",
            id="weak RSA",
        ),
        pytest.param(
            pem(ec.generate_private_key(ec.SECP256K1()).public_key()),
            "its crv is not P-256, P-384, P-521 or Ed25519",
            id="another curve",
        ),
        pytest.param(
            pem(ed448.Ed448PrivateKey.generate().public_key()), "it is not RSA, EC or Ed25519", id="another kind"
        ),
    ],
)
async def test_an_invalid_public_key_in_pem_is_reported_with_its_fault(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(content)
    with pytest.raises(FetchFailed) as caught:
        await FileKeySet(file, lambda content: Jwks([public_key(content, None, ALGORITHMS)]))()
    assert str(caught.value) == f"{file}: {why}"


def test_a_key_in_pem_equals_the_same_key_as_a_jwk() -> None:
    for alg in ("RS256", "ES256", "ES384", "ES512", "EdDSA"):
        key = public_key(tokens.public_pem(alg), "a", ALGORITHMS)
        assert key == Jwks.of({"keys": [tokens.jwk(tokens.key(alg), kid="a")]}, ALGORITHMS).keys[0]


def test_a_key_in_pem_is_bound_to_the_allowed_algorithms() -> None:
    assert list(public_key(tokens.public_pem("RS256"), None, ["PS256", "EdDSA"]).by_algorithm) == ["PS256"]
    with pytest.raises(UnusableKey, match="fits none"):
        public_key(tokens.public_pem("RS256"), None, ["ES256"])


# A key set in the configuration, and other names of an issuer


@in_its_time
async def test_a_key_set_in_the_configuration_verifies(clock: HandClock, tmp_path: Path) -> None:
    keys = {"jwks_inline": {"keys": [tokens.public_jwk("EdDSA"), {"kty": "AKP"}, tokens.public_jwk("RS256")]}}
    async with running(clock, tmp_path, a={"issuer": ISS, **keys}) as sidecar:
        for alg, expected in (("EdDSA", "accepted"), ("RS256", "accepted"), ("ES256", "key_unknown")):
            assert await verdict(sidecar, tokens.token(alg, now=clock.wall(), iss=ISS)) == expected
        await asyncio.sleep(86_400)  # inline keys never become stale
        assert await verdict(sidecar, tokens.token("EdDSA", now=clock.wall(), iss=ISS)) == "accepted"


@in_its_time
async def test_an_alias_is_accepted_as_the_issuer(clock: HandClock, tmp_path: Path) -> None:
    keys = {"jwks_inline": {"keys": [tokens.public_jwk("EdDSA")]}, "issuer_aliases": ["https://old.test", "service"]}
    other = {"jwks_inline": {"keys": [tokens.public_jwk("EdDSA", "b")]}}
    async with running(clock, tmp_path, a={"issuer": ISS, **keys}, b={"issuer": "https://b.test", **other}) as sidecar:
        for iss in (ISS, "https://old.test", "service"):
            assert await verdict(sidecar, tokens.token("EdDSA", now=clock.wall(), iss=iss)) == "accepted"
            stranger = tokens.token("EdDSA", name="b", now=clock.wall(), iss=iss)
            assert await verdict(sidecar, stranger) == "key_unknown"
        for odd in ("https://old.test/", "Service", ["service"], ABSENT):
            token = tokens.token("EdDSA", now=clock.wall(), iss=odd)
            assert await verdict(sidecar, token) == Reason.ISSUER_UNKNOWN.code
        claims = await verified(
            sidecar.assembly.handler.authentication.verifier,
            tokens.token("EdDSA", now=clock.wall(), iss="https://old.test").encode(),
        )
        assert (claims.issuer, claims.claims["iss"]) == ("a", "https://old.test")


# After a reload


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ({"clock_skew": "61s"}, {"algorithms": ["EdDSA"]}, True),
        ({"jwks_uri": f"{ISS}keys"}, {"jwks_uri": f"{ISS}keys", "jwks_headers": {"X-Key": "a"}}, True),
        ({"public_key_file": "key.pem"}, {"public_key_file": "key.pem"}, True),
        ({"public_key_file": "key.pem"}, {"public_key_file": "other.pem"}, False),
        ({"public_key_file": "key.pem"}, {"public_key_file": "key.pem", "kid": "a"}, False),
        ({"jwks_file": "keys.json"}, {}, False),
        ({}, {"jwks_uri": f"{ISS}keys"}, False),
        ({}, {"jwks_tls": {"server_name": "other.test"}}, False),
        ({}, {"issuer": "https://other.test/"}, False),
        ({"allow_http": True}, {}, False),
    ],
)
def test_keys_are_only_taken_over_from_the_same_issuer_and_source(
    before: dict[str, Any], after: dict[str, Any], same: bool
) -> None:
    one, other = (
        parse(
            json.dumps({"upstream": "http://127.0.0.1:1", "issuers": {"a": {"issuer": ISS, "audiences": "any"} | keys}})
        )
        for keys in (before, after)
    )
    assert same_place(one.issuers["a"], other.issuers["a"]) is same
