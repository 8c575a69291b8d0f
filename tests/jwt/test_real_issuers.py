"""Keys and tokens in the forms of real issuers are accepted, and invalid ones of such an issuer are refused."""

import asyncio
import json
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from sidecar.app.explain.explanation import explain
from sidecar.app.explain.question import Question
from sidecar.app.server import Sidecar, build
from sidecar.common.errors import Rejection, Unusable
from sidecar.config import parse
from sidecar.jwt.examination import Examination, shown
from sidecar.jwt.jwks.fetcher import MOST_KIDS, MOST_WANTED, KeysByKid
from sidecar.jwt.jwks.key_server import KeyServer
from sidecar.jwt.jwks.key_set import FetchFailed
from sidecar.jwt.verifier import Verifier
from tests.peers import tokens
from tests.peers.backend import Request
from tests.peers.clock import HandClock, in_its_time, in_its_time_with_sockets
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.tokens import AUDIENCE, certificate
from tests.peers.waiting import cached, verified, verifier_of

ISS = "https://idp.test/"
Token = Callable[..., str]
"""Makes tokens of one shape: `name` is the key that signs, the rest are claims to change."""


@asynccontextmanager
async def sidecar_of(
    clock: HandClock, *keys: Any, jwks_snapshot_dir: str | None = None, **issuer: Any
) -> AsyncIterator[Sidecar]:
    """The objects of a configuration with one issuer, without listeners. Keys that are given here come from a file."""
    settings = {"issuer": ISS, "audiences": [AUDIENCE], **({"jwks_file": "keys.json"} if keys else {}), **issuer}
    config = {"upstream": "http://127.0.0.1:1", "access_log": "off", "issuers": {"main": settings}}
    config |= {} if jwks_snapshot_dir is None else {"jwks_snapshot_dir": jwks_snapshot_dir}
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "keys.json").write_text(json.dumps({"keys": keys}))
        sidecar = build(parse(json.dumps(config), base=Path(directory)), clock)
        try:
            await sidecar.assembly.sources["main"].fetch_now()
            yield sidecar
        finally:
            await sidecar.stop()


async def refusal(verifier: Verifier, token: str, seen: Examination | None = None) -> Rejection:
    with pytest.raises(Rejection) as caught:
        await verified(verifier, token.encode(), seen)
    assert cached(verifier, token.encode()) is None
    return caught.value


async def only_the_right_one(sidecar: Sidecar, token: Token) -> None:
    """Accept a good token of the shape. Refuse one of another issuer, for another audience or by another key."""
    verifier = sidecar.assembly.handler.authentication.verifier
    good = token().encode()
    claims = await verified(verifier, good)
    assert cached(verifier, good) is claims
    assert (await refusal(verifier, token(iss="https://other.test/"))).reason.code == "issuer_unknown"
    assert (await refusal(verifier, token(aud="another"))).reason.code == "audience_mismatch"
    assert (await refusal(verifier, token(name="forger"))).reason.code == "signature_invalid"
    assert (await refusal(verifier, token().rpartition(".")[0] + ".")).reason.code == "signature_invalid"


def shaped(clock: HandClock, alg: str = "EdDSA", header: Any = None, **shape: Any) -> Token:
    """Makes tokens with these members in the header (by default the kid of key "a") and these claims."""
    members = {"kid": tokens.kid(alg)} if header is None else header

    def token(name: str = "a", **over: Any) -> str:
        payload = tokens.claims(**{"now": clock.wall(), "iss": ISS, "exp": 2**33, **shape, **over})
        return tokens.sign(tokens.key(alg, name), alg, members, payload)

    return token


# The servers of keys


class Picky(ScriptedIssuer):
    """Serves its keys like kube-apiserver, only as application/jwk-set+json, and refuses the user agents of libraries."""

    async def _handle(self, request: Request, writer: asyncio.StreamWriter) -> None:
        self.on_jwks = None
        if "application/jwk-set+json" not in (request.get("accept") or ""):
            self.on_jwks = Answer(406)
        if not (request.get("user-agent") or "").startswith("jwt-sidecar/"):
            self.on_jwks = Answer(403)
        await super()._handle(request, writer)


@in_its_time_with_sockets
async def test_keys_are_fetched_from_servers_that_check_accept_and_user_agent(clock: HandClock) -> None:
    async with Picky(algs=["EdDSA"]) as issuer, sidecar_of(clock, jwks_uri=issuer.jwks_uri) as sidecar:
        assert sidecar.assembly.sources["main"].last_error is None
        await only_the_right_one(sidecar, shaped(clock))


# Their tokens


def padded(token: Token) -> Token:
    """The same tokens in the spelling of AWS's load balancers: base64url with padding."""

    def made(name: str = "a", **over: Any) -> str:
        header, payload, _ = (urlsafe_b64encode(tokens.unb64(part)) for part in token(name, **over).split("."))
        signed = header + b"." + payload
        signature = tokens.signature(tokens.key("ES256", name), "ES256", signed)
        return (signed + b"." + urlsafe_b64encode(signature)).decode()

    return made


@in_its_time
async def test_padded_tokens_are_refused_as_such_and_accepted_if_allowed(clock: HandClock) -> None:
    token = padded(shaped(clock, "ES256", sub="padded"))
    assert all(part.endswith("=") for part in token().split(".")[::2])
    async with sidecar_of(clock, tokens.public_jwk("ES256")) as sidecar:
        said = await refusal(sidecar.assembly.handler.authentication.verifier, token())
        assert (said.reason.code, said.details) == (
            "token_malformed", "The token's parts are padded with =; a JWT has no padding."
        )  # fmt: skip
    async with sidecar_of(clock, tokens.public_jwk("ES256"), allow_padding=True) as sidecar:
        await only_the_right_one(sidecar, token)
        await only_the_right_one(sidecar, shaped(clock, "ES256", sub="padded"))
        claims = await verified(sidecar.assembly.handler.authentication.verifier, token().encode())
        assert json.loads(tokens.unb64(claims.payload_segment.decode()))["sub"] == "padded"
        assert b"=" not in claims.payload_segment


@in_its_time
async def test_padding_is_allowed_only_for_its_configured_issuer(clock: HandClock) -> None:
    async with (
        sidecar_of(clock, tokens.public_jwk("ES256"), allow_padding=True) as lax,
        sidecar_of(clock, tokens.public_jwk("ES256"), issuer="https://strict.test/") as strict,
    ):
        issuers = [
            *lax.assembly.handler.authentication.verifier.issuers.all,
            *strict.assembly.handler.authentication.verifier.issuers.all,
        ]
        both = verifier_of(issuers, clock)
        await verified(both, padded(shaped(clock, "ES256"))().encode())
        said = await refusal(both, padded(shaped(clock, "ES256", iss="https://strict.test/"))())
        assert said.details == "The token's parts are padded with =; a JWT has no padding."


@pytest.mark.parametrize("name", ["sub", "jti"])
@in_its_time
async def test_numeric_users_are_accepted_with_lenient_claims(name: str, clock: HandClock) -> None:
    numeric: dict[str, Any] = {name: 12}
    token = shaped(clock, **numeric)
    async with sidecar_of(clock, tokens.public_jwk("EdDSA")) as sidecar:
        said = await refusal(sidecar.assembly.handler.authentication.verifier, token())
        assert said.details == f"The token's {name} claim is not a string."
    async with sidecar_of(clock, tokens.public_jwk("EdDSA"), lenient_claims=[name]) as sidecar:
        await only_the_right_one(sidecar, token)
        verifier = sidecar.assembly.handler.authentication.verifier
        assert (await verified(verifier, token().encode())).claims[name] == "12"
        verifier.denylist.add({"iss": ISS, name: "12"})
        assert (await refusal(verifier, token())).reason.code == "token_revoked"


@in_its_time
async def test_an_empty_aud_leaves_the_audience_to_the_next_claim(clock: HandClock) -> None:
    """Ory Hydra writes `aud: []` for a client that requests no audience."""
    async with sidecar_of(clock, tokens.public_jwk("EdDSA"), audience_claims=["aud", "client_id"]) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, aud=[], client_id=AUDIENCE))
        said = await refusal(
            sidecar.assembly.handler.authentication.verifier, shaped(clock, aud=[], client_id="another")()
        )
        assert said.reason.code == "audience_mismatch"


@in_its_time
async def test_requirements_of_an_issuer_apply_to_its_tokens(clock: HandClock) -> None:
    """Amazon Cognito signs ID tokens with the same key as access tokens."""
    require = {"claims": {"token_use": {"equals": "access"}}, "scopes": ["read"], "roles": ["admin"]}
    good: dict[str, Any] = {"token_use": "access", "scp": ["read"], "resource_access": {"api": {"roles": ["admin"]}}}
    key = tokens.public_jwk("EdDSA")
    async with sidecar_of(clock, key, require=require, role_claims=["resource_access.api.roles"]) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, **good))
        verifier = sidecar.assembly.handler.authentication.verifier
        for wrong, code in (({"token_use": "id"}, "claim_mismatch"), ({"scp": []}, "scope_insufficient")):
            assert (await refusal(verifier, shaped(clock, **{**good, **wrong})())).reason.code == code
        said = await refusal(verifier, shaped(clock, **{**good, "resource_access": {}, "roles": ["admin"]})())
        assert said.details == "The token lacks a required role."
        question = Question("GET", "/", shaped(clock, **{**good, "token_use": "id"})().encode())
        refused = 'FAIL  required claim token_use claim_mismatch: expected {"equals": "access"}; found: id'
        assert refused in (await explain(sidecar.assembly, question, clock)).lines


TENANT, OTHER = "72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"
MANY: dict[str, Any] = {"issuer": "https://login.test/{tid}/v2.0", "issuer_aliases": ["https://sts.test/{tid}/"]}


def of_tenant(clock: HandClock, iss: str = "https://login.test/{}/v2.0", **shape: Any) -> Token:
    return shaped(clock, iss=iss.format(TENANT), tid=TENANT, **shape)


@pytest.mark.parametrize("iss", ["https://login.test/{}/v2.0", "https://sts.test/{}/"])
@in_its_time
async def test_a_templated_issuer_must_match_the_tenant_of_the_token(iss: str, clock: HandClock) -> None:
    async with sidecar_of(clock, tokens.public_jwk("EdDSA"), **MANY) as sidecar:
        token = of_tenant(clock, iss)
        await only_the_right_one(sidecar, token)
        await only_the_right_one(sidecar, shaped(clock, iss=iss.format(OTHER), tid=OTHER))
        wrong: list[dict[str, Any]] = [
            {"tid": OTHER}, {"tid": tokens.ABSENT}, {"tid": [TENANT]}, {"iss": iss}, {"tid": "{tid}", "iss": iss},
            {"tid": "", "iss": iss.format("")}, {"tid": "a/b", "iss": iss.format("a/b")}, {"tid": "..", "iss": iss.format("..")},
            {"iss": iss.format(TENANT) + "/"}, {"iss": iss.format(TENANT).replace("://", "://evil.")},
        ]  # fmt: skip
        for over in wrong:
            said = await refusal(sidecar.assembly.handler.authentication.verifier, token(**over))
            assert said.reason.code == "issuer_unknown", over


@pytest.mark.parametrize(
    ("of_key", "good"),
    [
        (None, True), ("https://login.test/{tenantid}/v2.0", True), (f"https://login.test/{TENANT}/v2.0", True),
        (f"https://login.test/{OTHER}/v2.0", False), ("https://evil.test/{tenantid}/v2.0", False), ("elsewhere", False),
        (f"https://sts.test/{OTHER}/", False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("iss", ["https://login.test/{}/v2.0", "https://sts.test/{}/"])
@in_its_time
async def test_a_key_of_one_tenant_verifies_no_token_of_another(
    iss: str, of_key: str | None, good: bool, clock: HandClock
) -> None:
    """In Entra's key set for all tenants, each key names its issuer."""
    async with sidecar_of(clock, {**tokens.public_jwk("EdDSA"), "issuer": of_key}, **MANY) as sidecar:
        if good:
            await only_the_right_one(sidecar, of_tenant(clock, iss))
            return
        said = await refusal(sidecar.assembly.handler.authentication.verifier, of_tenant(clock, iss)())
        assert said.details == "The issuer publishes this key for the tokens of another tenant."


@in_its_time
async def test_a_key_of_an_alias_verifies_only_tokens_of_that_alias(clock: HandClock) -> None:
    async with sidecar_of(
        clock, {**tokens.public_jwk("EdDSA"), "issuer": f"https://sts.test/{TENANT}/"}, **MANY
    ) as sidecar:
        await only_the_right_one(sidecar, of_tenant(clock, "https://sts.test/{}/"))
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, of_tenant(clock)())
        ).reason.code == "key_unknown"


@in_its_time
async def test_a_revocation_for_one_tenant_does_not_affect_another(clock: HandClock) -> None:
    async with sidecar_of(clock, tokens.public_jwk("EdDSA"), **MANY) as sidecar:
        verifier = sidecar.assembly.handler.authentication.verifier
        with pytest.raises(Unusable, match=r"one of: https://login.test/\{tid\}/v2.0, https://sts.test/\{tid\}/"):
            verifier.denylist.add({"iss": "https://other.test/", "sub": "alice"})
        verifier.denylist.add({"iss": f"https://sts.test/{TENANT}/", "sub": "alice"})
        for iss in ("https://login.test/{}/v2.0", "https://sts.test/{}/"):
            assert (await refusal(verifier, of_tenant(clock, iss)())).reason.code == "token_revoked"
            await verified(verifier, shaped(clock, iss=iss.format(OTHER), tid=OTHER)().encode())


@in_its_time
async def test_assume_issuer_accepts_tokens_without_iss(clock: HandClock) -> None:
    """Tokens of PingFederate and SPIFFE have no iss."""
    token = shaped(clock, iss=tokens.ABSENT)
    async with sidecar_of(clock, tokens.public_jwk("EdDSA")) as sidecar:
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, token())
        ).details == "The token has no iss claim."
    async with sidecar_of(clock, tokens.public_jwk("EdDSA"), assume_issuer=True) as sidecar:
        await only_the_right_one(sidecar, token)
        for odd in ("", None, [ISS], 5, ISS.rstrip("/")):
            assert (
                await refusal(sidecar.assembly.handler.authentication.verifier, token(iss=odd))
            ).reason.code == "issuer_unknown"


@in_its_time
async def test_a_load_balancers_token_must_name_the_configured_signer(clock: HandClock) -> None:
    header = {"kid": tokens.kid("EdDSA"), "signer": "arn:ours"}
    async with sidecar_of(clock, tokens.public_jwk("EdDSA"), signer="arn:ours") as sidecar:
        await only_the_right_one(sidecar, shaped(clock, header=header))
        for wrong in ({"signer": "arn:theirs"}, {"signer": ["arn:ours"]}, {"signer": None}):
            seen = Examination()
            said = await refusal(
                sidecar.assembly.handler.authentication.verifier, shaped(clock, header={**header, **wrong})(), seen
            )
            assert said.details == "The token's header names a signer that is not trusted here."
            assert seen.begun[-1].name == "signer"
            assert (said.expected, said.found) == ("arn:ours", shown(wrong["signer"]))


# Their keys


@pytest.mark.parametrize("of_key", ["Ed25519", "EdDSA", None])
@pytest.mark.parametrize("of_token", ["Ed25519", "EdDSA"])
@in_its_time
async def test_ed25519_and_eddsa_name_the_same_algorithm(of_key: str | None, of_token: str, clock: HandClock) -> None:
    key = {**tokens.public_jwk("EdDSA"), "alg": of_key}
    for algorithms in (["EdDSA"], ["Ed25519"], ["RS256", "EdDSA"]):
        async with sidecar_of(clock, key, algorithms=algorithms) as sidecar:
            header = {"alg": of_token, "kid": tokens.kid("EdDSA")}
            await only_the_right_one(sidecar, shaped(clock, header=header))
    async with sidecar_of(clock, tokens.public_jwk("RS256"), algorithms=["RS256"]) as sidecar:
        token = shaped(clock, header={"alg": of_token})()
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, token)
        ).reason.code == "algorithm_not_allowed"


@pytest.mark.parametrize(
    "written",
    [
        {"use": None}, {"use": ""}, {"key_ops": None}, {"key_ops": []}, {"alg": ""}, {"alg": None},
        {"use": None, "key_ops": None, "alg": None, "x5c": None, "x5t": "", "x5u": None},
    ],
    ids=str,
)  # fmt: skip
@in_its_time
async def test_empty_members_of_a_key_are_accepted(written: dict[str, Any], clock: HandClock) -> None:
    async with sidecar_of(clock, {**tokens.public_jwk("EdDSA"), **written}) as sidecar:
        await only_the_right_one(sidecar, shaped(clock))


def signers(count: int, **members: str) -> list[dict[str, Any]]:
    """Keys of one kind, each with its kid, and members whose text ends with its name. The last one is the key "a"."""
    names = [*(f"other-{n}" for n in range(count - 1)), "a"]
    extra = [{member: f"{text} {name}" for member, text in members.items()} for name in names]
    return [{**tokens.public_jwk("EdDSA", name), **more} for name, more in zip(names, extra, strict=True)]


@in_its_time
async def test_tokens_without_kid_are_accepted_with_six_keys(clock: HandClock) -> None:
    async with sidecar_of(clock, *signers(6)) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, header={}))


@in_its_time
async def test_a_token_without_kid_is_refused_if_too_many_keys_fit(clock: HandClock) -> None:
    async with sidecar_of(clock, *signers(11)) as sidecar:
        await only_the_right_one(sidecar, shaped(clock))
        said = await refusal(sidecar.assembly.handler.authentication.verifier, shaped(clock, header={})())
        assert said.reason.code == "key_unknown"
        assert said.details == "The token names no key (kid), and more than 10 keys of its issuer could have signed it."


@pytest.mark.parametrize("name", ["x5t", "x5t#S256"])
@in_its_time
async def test_a_certificate_thumbprint_selects_the_key_without_kid(name: str, clock: HandClock) -> None:
    async with sidecar_of(clock, *signers(11, **{name: "thumb of"})) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, header={name: "thumb of a"}))
        verifier = sidecar.assembly.handler.authentication.verifier
        said = await refusal(verifier, shaped(clock, header={name: "thumb of other-3"})())
        assert said.reason.code == "signature_invalid"
        for odd in (5, None, ["thumb of a"], "", "thumb of nobody"):
            assert (await refusal(verifier, shaped(clock, header={name: odd})())).reason.code == "key_unknown"


@in_its_time
async def test_a_token_may_have_a_kid_if_the_key_has_none(clock: HandClock) -> None:
    keys = [tokens.jwk(tokens.key("EdDSA")), tokens.public_jwk("EdDSA", "b")]
    async with sidecar_of(clock, *keys) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, header={"kid": "of today"}))
        await only_the_right_one(sidecar, shaped(clock, header={}))
        named = shaped(clock, header={"kid": tokens.kid("EdDSA", "b")})
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, named())
        ).reason.code == "signature_invalid"


async def test_the_first_1000_keys_of_an_issuer_are_used(clock: HandClock, caplog: pytest.LogCaptureFixture) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer:
        issuer.keys = [*signers(400), *({**tokens.public_jwk("EdDSA", "b"), "kid": f"more-{n}"} for n in range(700))]
        async with sidecar_of(clock, jwks_uri=issuer.jwks_uri) as sidecar:
            await only_the_right_one(sidecar, shaped(clock))
            last = shaped(clock, header={"kid": "more-599"})
            await verified(sidecar.assembly.handler.authentication.verifier, last(name="b").encode())
            assert '100 keys after the first 1000, which is the limit ("more-600", ' in caplog.text


@in_its_time_with_sockets
async def test_a_new_key_may_have_the_kid_of_an_old_one(clock: HandClock) -> None:
    """Zuplo and others reuse the kid when they replace their only key. From then on the old key is refused."""
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, sidecar_of(clock, jwks_uri=issuer.jwks_uri) as sidecar:
        verifier = sidecar.assembly.handler.authentication.verifier
        token = shaped(clock)
        await verified(verifier, token().encode())
        issuer.keys = [{**tokens.public_jwk("EdDSA", "b"), "kid": tokens.kid("EdDSA")}]
        await verified(verifier, token(name="b").encode())
        assert cached(verifier, token().encode()) is None
        assert (await refusal(verifier, token())).reason.code == "signature_invalid"
        assert issuer.fetches[issuer.jwks_path] == 2


class Files(ScriptedIssuer):
    """Serves `files` by path, and nothing else."""

    files: dict[str, Answer]

    def _answer_to(self, target: str) -> Answer:
        return self.files.get(target, Answer(404))


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("written", [certificate, lambda alg, name="a": tokens.public_pem(alg, name).decode()])
@in_its_time
async def test_a_key_set_may_hold_pem_texts_by_kid(alg: str, written: Callable[..., str], clock: HandClock) -> None:
    """Google's service accounts and Firebase's session cookies have such key sets."""
    document = {tokens.kid(alg): written(alg), "another": written(alg, "b")}
    async with sidecar_of(clock, jwks_inline=document) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, alg))
        named = shaped(clock, alg, header={"kid": "another"})
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, named())
        ).reason.code == "signature_invalid"
        await verified(sidecar.assembly.handler.authentication.verifier, named(name="b").encode())
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, shaped(clock, alg, header={"kid": "c"})())
        ).reason.code == ("key_unknown")


@in_its_time_with_sockets
async def test_a_jwks_uri_with_kid_fetches_each_key_by_its_url(clock: HandClock) -> None:
    """AWS's load balancers publish their keys so."""
    async with Files() as issuer:
        pem = Answer(200, tokens.public_pem("ES256"))
        issuer.files = {f"/{tokens.kid('ES256')}": pem, "/forbidden": Answer(403), "/broken": Answer(500)}
        async with sidecar_of(clock, jwks_uri=f"{issuer.url}/{{kid}}", algorithms=["ES256"]) as sidecar:
            verifier, source = sidecar.assembly.handler.authentication.verifier, sidecar.assembly.sources["main"]
            assert len(issuer.requests) == 0
            await only_the_right_one(sidecar, shaped(clock, "ES256"))
            assert len(issuer.requests) == 1
            for odd in ("../admin", "a/b", "", "a?b", "a" * 65, "%2e"):
                assert (
                    await refusal(verifier, shaped(clock, "ES256", header={"kid": odd})())
                ).reason.code == "key_unknown"
            assert len(issuer.requests) == 1
            for absent in ("none", "forbidden"):
                clock.advance(31)
                assert (
                    await refusal(verifier, shaped(clock, "ES256", header={"kid": absent})())
                ).reason.code == "key_unknown"
            clock.advance(31)
            said = await refusal(verifier, shaped(clock, "ES256", header={"kid": "broken"})())
            assert said.reason.code == "jwks_unavailable"
            await verified(verifier, shaped(clock, "ES256")().encode())
            del issuer.files[f"/{tokens.kid('ES256')}"]
            await source.fetch_now()
            assert (await refusal(verifier, shaped(clock, "ES256")())).reason.code == "key_unknown"


@in_its_time_with_sockets
async def test_made_up_kids_do_not_displace_a_real_key(clock: HandClock) -> None:
    """All load balancers of a region share one place for keys, and some servers answer an unknown kid with 200 and a page."""
    async with Files() as issuer:
        others = {f"/other-{number}": Answer(200, tokens.public_pem("ES256", "b")) for number in range(MOST_KIDS)}
        own = f"/{tokens.kid('ES256')}"
        issuer.files = {**others, own: Answer(200, tokens.public_pem("ES256")), "/page": Answer(200, b"<html>")}
        async with sidecar_of(clock, jwks_uri=f"{issuer.url}/{{kid}}", algorithms=["ES256"]) as sidecar:
            verifier = sidecar.assembly.handler.authentication.verifier

            async def named(kid: str) -> str:
                clock.advance(31)
                return (await refusal(verifier, shaped(clock, "ES256", header={"kid": kid})())).reason.code

            assert await named("page") == "key_unknown"
            assert {await named(kid[1:]) for kid in others} == {"signature_invalid"}
            clock.advance(31)
            await verified(verifier, shaped(clock, "ES256")().encode())


@in_its_time_with_sockets
async def test_made_up_kids_delay_the_fetch_of_a_real_key_only_for_a_cooldown(clock: HandClock) -> None:
    async with Files() as issuer:
        own = shaped(clock, "ES256")()
        issuer.files = {f"/{tokens.kid('ES256')}": Answer(200, tokens.public_pem("ES256"))}
        async with sidecar_of(clock, jwks_uri=f"{issuer.url}/{{kid}}", algorithms=["ES256"]) as sidecar:
            verifier = sidecar.assembly.handler.authentication.verifier
            for number in range(MOST_WANTED + 2):
                await refusal(verifier, shaped(clock, "ES256", header={"kid": f"made-up-{number}"})())
            assert (await refusal(verifier, own)).reason.code == "jwks_unavailable"
            clock.advance(31)
            await verified(verifier, own.encode())


@in_its_time_with_sockets
async def test_of_more_wanted_kids_than_one_fetch_tries_the_last_one_replaces_another(clock: HandClock) -> None:
    async with Files() as issuer, aiohttp.ClientSession() as session:
        issuer.files = {}
        uri = f"{issuer.url}/{{kid}}"
        keys = KeysByKid(KeyServer(lambda: session, uri), uri, ["ES256"], choose=lambda number: number - 1)
        names = [f"made-up-{number}" for number in range(MOST_WANTED + 1)]
        for name in (*names, names[-1], names[0]):
            keys.want(name)
        assert (await keys()).looked_up == [*names[:-2], names[-1]]


@in_its_time_with_sockets
async def test_only_some_answers_say_that_a_key_does_not_exist(clock: HandClock) -> None:
    async with Files() as issuer, aiohttp.ClientSession() as session:
        uri = f"{issuer.url}/{{kid}}"
        absent: list[int] = []
        for status in (204, 400, 401, 402, 403, 404, 405, 408, 409, 410, 411, 425, 429, 500):
            issuer.files = {"/a": Answer(status)}
            keys = KeysByKid(KeyServer(lambda: session, uri), uri, ["ES256"])
            keys.want("a")
            with suppress(FetchFailed):
                absent += [status] * ((await keys()).looked_up == ["a"])
        assert absent == [400, 403, 404, 410]


@in_its_time_with_sockets
async def test_without_any_key_every_failed_url_is_reported(clock: HandClock) -> None:
    async with Files() as issuer, aiohttp.ClientSession() as session:
        issuer.files = {"/a": Answer(500), "/b": Answer(503)}
        uri = f"{issuer.url}/{{kid}}"
        keys = KeysByKid(KeyServer(lambda: session, uri), uri, ["ES256"])
        for name in ("a", "b"):
            keys.want(name)
        with pytest.raises(FetchFailed) as caught:
            await keys()
        assert str(caught.value) == f"{issuer.url}/a: status 500; {issuer.url}/b: status 503"


@in_its_time_with_sockets
async def test_a_key_whose_url_becomes_a_page_fails_the_fetch(clock: HandClock) -> None:
    async with Files() as issuer:
        own = f"/{tokens.kid('ES256')}"
        issuer.files = {own: Answer(200, tokens.public_pem("ES256"))}
        async with sidecar_of(clock, jwks_uri=f"{issuer.url}/{{kid}}", algorithms=["ES256"]) as sidecar:
            await verified(sidecar.assembly.handler.authentication.verifier, shaped(clock, "ES256")().encode())
            issuer.files[own] = Answer(200, b"<html>")
            source = sidecar.assembly.sources["main"]
            await source.fetch_now()
            assert source.last_error == (
                f"{issuer.url}{own}: it holds no PEM public key or certificate; write one with openssl pkey -pubout"
            )


@pytest.mark.parametrize("status", [401, 408, 425, 429, 500])
@in_its_time_with_sockets
async def test_a_failing_url_of_a_key_keeps_the_key(status: int, clock: HandClock) -> None:
    async with Files() as issuer:
        own = f"/{tokens.kid('ES256')}"
        issuer.files = {own: Answer(200, tokens.public_pem("ES256"))}
        async with sidecar_of(clock, jwks_uri=f"{issuer.url}/{{kid}}", algorithms=["ES256"]) as sidecar:
            verifier, source = sidecar.assembly.handler.authentication.verifier, sidecar.assembly.sources["main"]
            await verified(verifier, shaped(clock, "ES256")().encode())
            issuer.files[own] = Answer(status)
            await source.fetch_now()
            assert (source.state, source.last_error) == ("stale", f"{issuer.url}{own}: status {status}")
            await verified(verifier, shaped(clock, "ES256", sub="another")().encode())


@in_its_time_with_sockets
async def test_a_failing_made_up_kid_does_not_affect_other_keys(clock: HandClock) -> None:
    async with Files() as issuer:
        issuer.files = {f"/{tokens.kid('ES256')}": Answer(200, tokens.public_pem("ES256")), "/broken": Answer(500)}
        async with sidecar_of(clock, jwks_uri=f"{issuer.url}/{{kid}}", algorithms=["ES256"]) as sidecar:
            verifier, source = sidecar.assembly.handler.authentication.verifier, sidecar.assembly.sources["main"]
            await verified(verifier, shaped(clock, "ES256")().encode())
            clock.advance(31)
            broken = shaped(clock, "ES256", header={"kid": "broken"})()
            assert (await refusal(verifier, broken)).reason.code == "jwks_unavailable"
            assert (source.state, source.skipped) == ("fresh", (f"{issuer.url}/broken: status 500",))


@in_its_time
async def test_a_spiffe_bundle_is_read_as_a_key_set(clock: HandClock) -> None:
    svid = {**tokens.public_jwk("ES256"), "use": "jwt-svid"}
    x509_svid = {**tokens.public_jwk("ES256", "b"), "use": "x509-svid", "x5c": ["MIIB"]}
    bundle = {"keys": [x509_svid, svid], "spiffe_sequence": 12, "spiffe_refresh_hint": 300}
    async with sidecar_of(clock, jwks_inline=bundle) as sidecar:
        await only_the_right_one(sidecar, shaped(clock, "ES256"))
        other = shaped(clock, "ES256", header={"kid": tokens.kid("ES256", "b")})
        assert (
            await refusal(sidecar.assembly.handler.authentication.verifier, other(name="b"))
        ).reason.code == "key_unknown"
        assert sidecar.assembly.sources["main"].skipped == ()


@in_its_time_with_sockets
async def test_a_spiffe_refresh_hint_sets_the_next_fetch(clock: HandClock) -> None:
    async with ScriptedIssuer() as issuer:
        bundle = {"keys": [tokens.public_jwk("ES256")], "spiffe_refresh_hint": 300}
        issuer.on_jwks = Answer.json(bundle)
        async with sidecar_of(clock, jwks_uri=issuer.jwks_uri) as sidecar:
            source = sidecar.assembly.sources["main"]
            assert 270 <= source.next_fetch_at - clock.monotonic() <= 330


SECRET = b"a secret of an issuer before its migration"


def by_secret(clock: HandClock, alg: str = "HS256", header: Any = None) -> Token:
    def made(name: str = "a", **over: Any) -> str:
        payload = tokens.claims(**{"now": clock.wall(), "iss": ISS, "exp": 2**33, **over})
        return tokens.sign(SECRET if name == "a" else b"forger" * 8, alg, header or {}, payload)

    return made


@in_its_time
async def test_an_issuer_may_have_several_sources_of_keys(tmp_path: Path, clock: HandClock) -> None:
    """Supabase has several while it migrates to ES256, and Azure AD B2C has one per policy."""
    Path(tmp_path, "secret").write_bytes(SECRET)
    Path(tmp_path, "policy.json").write_text(json.dumps({"keys": [tokens.public_jwk("RS256")]}))
    more = [{"secret_file": str(tmp_path / "secret")}, {"jwks_file": str(tmp_path / "policy.json")}]
    async with sidecar_of(clock, tokens.public_jwk("ES256"), more_keys=more) as sidecar:
        for header in ({}, {"kid": "any"}, {"kid": tokens.kid("ES256")}):
            await only_the_right_one(sidecar, by_secret(clock, header=header))
        await only_the_right_one(sidecar, shaped(clock, "ES256"))
        await only_the_right_one(sidecar, shaped(clock, "RS256"))
        verifier = sidecar.assembly.handler.authentication.verifier
        for alg, name in (("ES256", "p-256-a"), ("RS256", "rsa-a")):  # a public key never counts as a secret
            forged = tokens.sign(tokens.public_pem(alg), "HS256", {"kid": name}, tokens.claims(iss=ISS, exp=2**33))
            assert (await refusal(verifier, forged)).reason.code == "signature_invalid"


@in_its_time
async def test_a_failing_source_keeps_the_keys_of_all_sources(tmp_path: Path, clock: HandClock) -> None:
    policy = Path(tmp_path, "policy.json")
    policy.write_text(json.dumps({"keys": [tokens.public_jwk("RS256")]}))
    async with sidecar_of(clock, tokens.public_jwk("ES256"), more_keys=[{"jwks_file": str(policy)}]) as sidecar:
        policy.unlink()
        source = sidecar.assembly.sources["main"]
        await source.fetch_now()
        assert source.last_error == f"{policy}: cannot be read: No such file or directory"
        await only_the_right_one(sidecar, shaped(clock, "ES256"))
        await only_the_right_one(sidecar, shaped(clock, "RS256"))


@in_its_time_with_sockets
async def test_a_snapshot_never_holds_the_secret_of_an_issuer(tmp_path: Path, clock: HandClock) -> None:
    Path(tmp_path, "secret").write_bytes(SECRET)
    async with ScriptedIssuer(algs=["ES256"]) as issuer:
        settings = {"jwks_uri": issuer.jwks_uri, "more_keys": [{"secret_file": str(tmp_path / "secret")}]}
        async with sidecar_of(clock, jwks_snapshot_dir=str(tmp_path), **settings) as sidecar:
            await only_the_right_one(sidecar, by_secret(clock))
            saved = json.loads((tmp_path / "main.json").read_text())
            assert [key["kid"] for key in saved["keys"]] == [tokens.kid("ES256")]
