"""API keys: the file of their hashes, and which requests they authenticate."""

import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.common.watched_file import WatchedFile
from sidecar.gateway.api_keys import NEVER, ApiKey, ApiKeys, Entries, HashedKey
from sidecar.jwt.claims import Claims
from sidecar.jwt.token_places import TokenHeader
from tests.peers.clock import EPOCH, HandClock
from tests.peers.gateway import Keys
from tests.peers.raw import Response
from tests.peers.tokens import unb64
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running


def refusal(answer: Response, status: int, code: str) -> dict[str, Any]:
    told: dict[str, Any] = answer.json()
    assert (answer.status, told["code"]) == (status, code)
    assert answer.get("x-jwt-sidecar") == "rejected"
    return told


# A key


def file_of(stack: Stack) -> WatchedFile[Entries]:
    """The file of API keys as the running sidecar reads it."""
    api_keys = stack.sidecar.assembly.gateway.api_keys
    assert api_keys is not None
    return api_keys.file


def test_a_key_has_256_random_bits_and_only_its_hash_is_stored() -> None:
    entry, key = ApiKey.new("alice", ("read",), {}, NEVER)
    assert re.fullmatch(r"jsk_[0-9a-f]{16}_[A-Za-z0-9_-]{43}", key)
    assert len(unb64(key.split("_", 2)[2])) == 32
    document = json.dumps(entry.document())
    assert (entry.id, entry.digest) == (key.split("_")[1], sha256(key.encode()).digest())
    assert key not in document
    assert key.split("_", 2)[2] not in document
    assert ApiKey.new("alice", (), {}, NEVER)[1] != key


def test_the_holder_of_a_key_gets_its_name_scopes_and_claims() -> None:
    entry, _ = ApiKey.new("alice", ("read", "write"), {"tenant": "acme", "roles": ["a"]}, EPOCH)
    holder = entry.holder()
    expected = {"sub": "alice", "scope": "read write", "tenant": "acme", "roles": ["a"]}
    assert (holder.issuer, holder.claims, holder.valid_until) == ("api_keys", expected, EPOCH)
    assert json.loads(unb64(holder.payload_segment.decode())) == expected
    assert not [
        size for size in range(1, 9) if b"=" in ApiKey.new("a" * size, (), {}, NEVER)[0].holder().payload_segment
    ]
    assert ApiKey.new("bob", (), {}, NEVER)[0].holder().claims == {"sub": "bob"}


# The file

GOOD = {"id": "0123456789abcdef", "sha256": "0" * 64, "name": "alice"}


def entries(*documents: Any) -> Entries:
    return Entries.read(json.dumps({"keys": documents}).encode())


@pytest.mark.parametrize(
    "over",
    [
        {},
        {"scopes": ["read", "write"]},
        {"claims": {"tenant": {"id": 7}}},
        {"expires": "2026-12-31T23:59:59Z"},
        {"enabled": False},
        {"name": "Jörg from acme, Inc."},
        {"name": "x" * 128},
    ],
    ids=str,
)
def test_an_entry_is_written_in_the_form_that_is_read(over: dict[str, Any]) -> None:
    assert ApiKey.read(GOOD | over).document() == GOOD | over


def test_missing_members_have_defaults() -> None:
    assert ApiKey.read(GOOD) == ApiKey("0123456789abcdef", bytes(32), "alice", (), {}, NEVER, True)
    assert ApiKey.read(GOOD | {"enabled": True}).document() == GOOD


TIME = "a time must be written like 2026-12-31T23:59:59Z"
CLAIMS_OF_OTHERS = [
    "iss",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "sub",
    "cnf",
    "act",
    "scope",
    "scp",
    "scopes",
    "original_iss",
]


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        pytest.param(5, "must be an object with id, sha256 and name", id="number"),
        pytest.param({}, "id must be the 16 hexadecimal digits of the key between its two _", id="empty"),
        pytest.param(GOOD | {"id": "0123456789ABCDEF"}, "id must be the 16", id="upper case id"),
        pytest.param(GOOD | {"id": 5}, "id must be the 16", id="number as id"),
        pytest.param(GOOD | {"sha256": "0" * 63}, "sha256 must be the 64", id="short hash"),
        pytest.param(GOOD | {"sha256": None}, "sha256 must be the 64", id="no hash"),
        pytest.param(GOOD | {"name": ""}, "name must be text of 1 to 128", id="empty name"),
        pytest.param(GOOD | {"name": "x" * 129}, "name must be text of 1 to 128", id="long name"),
        pytest.param(GOOD | {"name": "a\nb"}, "name must be text of 1 to 128", id="line break in a name"),
        pytest.param(GOOD | {"name": 5}, "name must be text of 1 to 128", id="number as name"),
        pytest.param(GOOD | {"scopes": "read"}, "scopes must be a list of words", id="scopes as text"),
        pytest.param(GOOD | {"scopes": ["read write"]}, "scopes must be a list of words", id="a scope with a space"),
        pytest.param(GOOD | {"scopes": [5]}, "scopes must be a list of words", id="number as scope"),
        pytest.param(GOOD | {"claims": []}, "claims must be an object", id="list of claims"),
        pytest.param(GOOD | {"expires": 5}, TIME, id="number as time"),
        pytest.param(GOOD | {"expires": "soon"}, TIME, id="word as time"),
        pytest.param(GOOD | {"expires": "2026-12-31T23:59:59"}, TIME, id="time without a time zone"),
        pytest.param(GOOD | {"enabled": "no"}, "enabled must be true or false", id="word as boolean"),
        pytest.param(GOOD | {"scope": "x"}, "'scope' is not a member of a key; one of: claims, enabled", id="unknown"),
        *[
            pytest.param(GOOD | {"claims": {name: "x"}}, f"claims must not hold {name}: the sidecar sets it", id=name)
            for name in CLAIMS_OF_OTHERS
        ],
    ],
)  # fmt: skip
def test_an_invalid_entry_is_refused_with_its_problem(document: Any, problem: str) -> None:
    with pytest.raises(ValueError) as caught:
        entries(GOOD, document)
    assert str(caught.value).startswith(f"key 1: {problem}")


def test_no_problem_shows_a_hash() -> None:
    with pytest.raises(ValueError) as caught:
        entries({"id": "x", "sha256": "f" * 63, "name": 5})
    assert "ff" not in str(caught.value)


def test_two_entries_with_one_id_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^key 1: another one has the same id$"):
        entries(GOOD, GOOD | {"name": "bob"})


@pytest.mark.parametrize("content", [b"", b"x", b"[]", b'{"keys": [], "keys": []}', b"\xff", b'{"keys": [NaN]}'])
def test_a_file_that_is_not_strict_json_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^is not a JSON object, or has a name twice$"):
        Entries.read(content)


@pytest.mark.parametrize("content", [b"{}", b'{"keys": {}}', b'{"keys": null}'])
def test_a_file_without_a_list_of_keys_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^has no list `keys`; write"):
        Entries.read(content)


def test_an_unchanged_entry_keeps_its_claims_and_their_minted_token() -> None:
    before = entries(GOOD, GOOD | {"id": "1" * 16})
    after = Entries.read(json.dumps({"keys": [GOOD, GOOD | {"id": "1" * 16, "scopes": ["x"]}]}).encode(), before)
    assert after[GOOD["id"]][1] is before[GOOD["id"]][1]
    assert after["1" * 16][1] is not before["1" * 16][1]


# Accepted requests


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(tmp_path)


def judge(keys: Keys, clock: HandClock) -> ApiKeys:
    return ApiKeys(WatchedFile.of(keys.api_keys, Entries.read), TokenHeader("Authorization", "Bearer"), clock, "Bearer")


def reason(judged: ApiKeys, key: str) -> Reason | Claims:
    try:
        return judged.holder(HashedKey.of(key.encode()))
    except Rejection as rejection:
        return rejection.reason


def test_a_key_is_valid_until_it_expires_or_is_disabled(keys: Keys) -> None:
    clock = HandClock()
    alice, bob, carl = keys.new("alice"), keys.new("bob", expires=EPOCH + 10), keys.new("carl", enabled=False)
    judged = judge(keys, clock)
    assert [judged.holder(HashedKey.of(key.encode())).claims["sub"] for key in (alice, bob)] == ["alice", "bob"]
    assert reason(judged, carl) is Reason.API_KEY_DISABLED
    clock.advance(9.5)
    assert judged.holder(HashedKey.of(bob.encode())).claims["sub"] == "bob"
    clock.advance(0.5)
    assert reason(judged, bob) is Reason.API_KEY_EXPIRED
    keys.change(bob, enabled=False)
    judged.file.look()
    assert reason(judged, bob) is Reason.API_KEY_DISABLED
    keys.change(alice, enabled=False)
    assert reason(judged, alice) is not Reason.API_KEY_DISABLED  # until the file is read again
    assert judged.file.look()
    assert reason(judged, alice) is Reason.API_KEY_DISABLED
    keys.entries.clear()
    keys.write()
    judged.file.look()
    assert reason(judged, alice) is Reason.API_KEY_UNKNOWN


def test_a_wrong_secret_reveals_nothing_about_the_key(keys: Keys) -> None:
    clock = HandClock()
    on, off, ended = keys.new("a"), keys.new("b", enabled=False), keys.new("c", expires=EPOCH - 1)
    judged = judge(keys, clock)
    other = keys.new("d")  # of no file that is read
    for key in (on, off, ended):
        start, secret = key[:21], key[21:]
        wrong = [
            start + secret[:-1] + ("A" if secret[-1] != "A" else "B"),
            start + other[21:],
            start,
            key + "A",
            key[:-1],
        ]
        assert {reason(judged, one) for one in wrong} == {Reason.API_KEY_UNKNOWN}
    not_keys = [other, "", "jsk_", "x", "a.b.c", on.upper(), f" {on}", f"{on}\n", on.replace("jsk", "Jsk"), "é" * 40]
    assert {reason(judged, one) for one in not_keys} == {Reason.API_KEY_UNKNOWN}


# Through the proxy


async def test_a_key_is_accepted_on_its_routes_and_never_reaches_the_backend(keys: Keys) -> None:
    alice = keys.new("alice", "read", tenant="acme")
    async with running(issuers=None, **keys.settings()) as stack:
        stack.secrets.tokens.add(alice)
        assert (await stack.fetch(request("GET", "/orders?x=1", token=alice))).status == 200
        seen = await stack.backend.received()
        assert (seen.get("x-jwt-status"), seen.get("x-jwt-sub"), seen.get("x-jwt-scope")) == (
            "verified",
            "alice",
            "read",
        )
        assert json.loads(unb64(seen.get("x-jwt-claims") or "")) == {"sub": "alice", "scope": "read", "tenant": "acme"}
        assert seen.get("authorization") is None
        assert alice[21:].encode() not in seen.head


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "token_missing"),
        ([("Authorization", "Basic YTpi")], "token_missing"),
        ([("Authorization", "Bearer nonsense")], "api_key_unknown"),
        ([("Authorization", "Bearer a b")], "token_malformed"),
        ([("X-Api-Key", "nonsense")], "token_missing"),
    ],
    ids=str,
)
async def test_requests_without_a_key_are_refused(keys: Keys, headers: list[tuple[str, str]], code: str) -> None:
    async with running(issuers=None, **keys.settings()) as stack:
        answer = await stack.fetch(request("GET", "/", headers=headers))
        told = refusal(answer, 401, code)
        assert told["error"] == ("No token provided" if code == "token_missing" else "Invalid token")
        bare = 'Bearer realm="jwt-sidecar"'
        error = f'{bare}, error="invalid_token", error_description="{told.get("details")}"'
        assert answer.get("www-authenticate") == (bare if code == "token_missing" else error)
        assert stack.backend.requests == []


async def test_two_keys_in_a_request_are_a_400(keys: Keys) -> None:
    alice, bob = keys.new("alice"), keys.new("bob")
    async with running(issuers=None, **keys.settings()) as stack:
        answer = await stack.fetch(request("GET", "/", token=alice, headers=[("authorization", f"Bearer {bob}")]))
        refusal(answer, 400, "token_ambiguous")


async def test_a_request_that_recurs_is_judged_by_the_current_keys(keys: Keys) -> None:
    alice = keys.new("alice")
    asking = request("GET", "/", token=alice)
    async with running(issuers=None, **keys.settings()) as stack:
        file = file_of(stack)
        for _ in range(4):
            assert (await stack.fetch(asking)).status == 200
        keys.change(alice, enabled=False)
        file.look()
        refusal(await stack.fetch(asking), 401, "api_key_disabled")
        keys.change(alice, enabled=True, digest=bytes(32))
        file.look()
        refusal(await stack.fetch(asking), 401, "api_key_unknown")


async def test_an_expired_and_a_disabled_key_have_different_codes(keys: Keys) -> None:
    off, ended = keys.new("a", enabled=False), keys.new("b", expires=EPOCH)  # EPOCH is in the future of the real clock
    async with running(issuers=None, **keys.settings()) as stack:
        refusal(await stack.fetch(request("GET", "/", token=off)), 401, "api_key_disabled")
        stack.clock.ahead_s += EPOCH - stack.clock.wall() + 1
        told = refusal(await stack.fetch(request("GET", "/", token=ended)), 401, "api_key_expired")
        assert told["details"] == "The API key has expired."


async def test_rules_for_claims_apply_to_keys_as_to_tokens(keys: Keys) -> None:
    reader, admin = keys.new("reader", "read"), keys.new("admin", "read admin", tenant="acme", roles=["boss"])
    demands = {"scopes": ["admin"], "roles": ["boss"], "claims": {"tenant": {"equals": "acme"}}}
    settings = keys.settings(routes=[{"path": "/*", "auth": "api_key", "require": demands}])
    async with running(issuers=None, **settings) as stack:
        answer = await stack.fetch(request("GET", "/", token=reader))
        refusal(answer, 403, "scope_insufficient")
        assert 'scope="admin"' in (answer.get("www-authenticate") or "")
        assert (await stack.fetch(request("GET", "/", token=admin))).status == 200
        keys.change(admin, claims={"tenant": "other", "roles": ["boss"]})
        file_of(stack).look()
        refusal(await stack.fetch(request("GET", "/", token=admin)), 403, "claim_mismatch")


async def test_a_missing_token_gets_no_challenge_for_a_key(keys: Keys) -> None:
    api_keys = {"file": str(keys.api_keys), "header": "X-Key", "prefix": "ApiKey"}
    routes = [{"path": "/keys/*", "auth": "api_key"}]
    async with running(api_keys=api_keys, routes=routes) as stack:
        for path, scheme in (("/keys/x", "ApiKey"), ("/x", "Bearer")):
            answer = await stack.fetch(request("GET", path))
            assert answer.get("www-authenticate") == f'{scheme} realm="jwt-sidecar"'


@pytest.mark.parametrize("value", ["{key}", "ApiKey {key}", "apikey  {key}"])
async def test_header_and_scheme_of_a_key_are_configurable(keys: Keys, value: str) -> None:
    alice = keys.new("alice")
    scheme = "ApiKey" if " " in value else ""
    api_keys = {"file": str(keys.api_keys), "header": "X-Api-Key", "prefix": scheme}
    async with running(issuers=None, **keys.settings(api_keys=api_keys)) as stack:
        spoofed = [("x_api_key", "evil"), ("X.Api.Key", "evil")]
        headers = [("x-api-key", value.format(key=alice)), *spoofed]
        assert (await stack.fetch(request("GET", "/", headers=headers))).status == 200
        seen = await stack.backend.received()
        assert b"pi-key" not in seen.head.lower().replace(b"_", b"-").replace(b".", b"-")
        answer = await stack.fetch(request("GET", "/", token=alice))
        refusal(answer, 401, "token_missing")
        assert answer.get("www-authenticate") == 'ApiKey realm="jwt-sidecar"'


async def test_report_mode_accepts_a_key_that_would_be_refused(keys: Keys) -> None:
    off = keys.new("alice", enabled=False)
    settings = keys.settings(routes=[{"path": "/*", "auth": "api_key", "mode": "report"}])
    async with running(issuers=None, **settings) as stack:
        assert (await stack.fetch(request("GET", "/", token=off))).status == 200
        seen = await stack.backend.received()
        assert (seen.get("x-jwt-status"), seen.get("x-jwt-sub")) == ("report", None)


# Attacks


async def test_keys_and_tokens_are_not_interchangeable(keys: Keys) -> None:
    alice = keys.new("alice")
    routes = [{"path": "/keys/*", "auth": "api_key"}, {"path": "/maybe/*", "auth": "optional"}]
    async with running(**keys.settings(routes=routes)) as stack:
        refusal(await stack.fetch(stack.good(target="/keys/x")), 401, "api_key_unknown")
        refusal(await stack.fetch(request("GET", "/", token=alice)), 401, "token_malformed")
        refusal(await stack.fetch(request("GET", "/maybe/x", token=alice)), 401, "token_malformed")
        assert stack.backend.requests == []
        assert (await stack.fetch(request("GET", "/keys/x", token=alice))).status == 200
        assert (await stack.fetch(stack.good())).status == 200


async def test_only_the_file_sets_the_identity_of_a_key(keys: Keys) -> None:
    alice = keys.new("alice")
    spoofed = [("X-JWT-Sub", "evil"), ("x_jwt_sub", "evil"), ("X-JWT-Status", "evil"), ("X-JWT-Claims", "evil")]
    async with running(issuers=None, **keys.settings()) as stack:
        assert (await stack.fetch(request("GET", "/", token=alice, headers=spoofed))).status == 200
        seen = await stack.backend.received()
        assert seen.get("x-jwt-sub") == "alice"
        assert b"evil" not in seen.head


async def elsewhere(stack: Stack, raw: bytes) -> None:
    refusal(await stack.fetch(raw), 400, "request_malformed")
    assert stack.backend.requests == []


@pytest.mark.parametrize("place", ["query", "path", "another header", "cookie", "forwarded token"])
async def test_a_key_in_a_wrong_place_does_not_reach_the_backend(keys: Keys, place: str) -> None:
    alice = keys.new("alice")
    routes = [{"path": "/open/*", "auth": "none", "forward_token": True}, {"path": "/*", "auth": "api_key"}]
    async with running(issuers=None, **keys.settings(routes=routes, access_log="json")) as stack:
        stack.secrets.tokens.add(alice)
        for token in (None, alice):
            match place:
                case "query":
                    await elsewhere(stack, request("GET", f"/open/x?api_key={alice}", token=token))
                case "path":
                    await elsewhere(stack, request("GET", f"/open/{alice}", token=token))
                case "another header":
                    await elsewhere(stack, request("GET", "/open/x", headers=[("X-Api-Key", alice)]))
                case "cookie":
                    await elsewhere(stack, request("GET", "/open/x", headers=[("Cookie", f"a=b; key={alice}")]))
                case "forwarded token":
                    await elsewhere(stack, request("GET", "/open/x", token=alice))


async def test_a_key_in_a_path_is_not_logged(keys: Keys, capfd: pytest.CaptureFixture[str]) -> None:
    alice = keys.new("alice")
    async with running(issuers=None, **keys.settings(access_log="json")) as stack:
        await stack.fetch(request("GET", f"/x/{alice}?key={alice}", token=alice))
    out, err = capfd.readouterr()
    assert '"url.path":"/x/***"' in out
    assert alice[21:] not in out + err


async def test_a_broken_file_keeps_the_previous_keys(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    alice = keys.new("alice")
    async with running(issuers=None, **keys.settings()) as stack:
        file = file_of(stack)
        keys.api_keys.write_text('{"keys": [')
        assert not file.look()
        assert not file.look()
        problem = f"{keys.api_keys}: is not a JSON object, or has a name twice"
        assert file.problem == problem
        assert (await stack.fetch(request("GET", "/", token=alice))).status == 200
        keys.api_keys.unlink()
        assert not file.look()
        keys.write()
        assert file.look()
        assert file.problem is None
        stack.secrets.errors.clear()
    told = [record.getMessage() for record in caplog.records if "file_kept" in record.getMessage()]
    assert told == [
        f"event=file_kept_as_it_was why={text!r} do='Fix the file or its permissions; its previous content stays in use.'"
        for text in (problem, f"{keys.api_keys}: cannot be read: No such file or directory")
    ]


async def test_a_file_that_everybody_may_read_gets_a_warning(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    keys.api_keys.chmod(0o644)
    async with running(issuers=None, **keys.settings()):
        pass
    assert [record.getMessage() for record in caplog.records if "readable" in record.getMessage()] == [
        f"event=file_readable_by_all path={keys.api_keys} do='Remove the permission: chmod o-r.'"
    ]
