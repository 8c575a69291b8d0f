"""The last refusals: each with its reason and its sentence, and nothing of a token or a query."""

from sidecar.common.errors import Reason
from sidecar.common.masking import without_tokens
from sidecar.observability.rejection_log import KEPT, MAX_PATH, Refusal
from tests.peers.backend import RawBackend, send
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

ID = [("X-Request-Id", "id-1")]


def kept(stack: Stack) -> list[Refusal]:
    refusals = list(stack.sidecar.live.telemetry.refusals)
    for refusal in refusals:
        stack.secrets.told(repr(refusal))
    return refusals


async def test_a_refusal_is_kept_with_its_sentence() -> None:
    async with running() as stack:
        now = stack.clock.wall()
        expired = stack.token(exp=now - 3600, iat=now - 7200)
        answer = await stack.fetch(request("POST", "/orders/7?secret=1", headers=ID, token=expired))
        [refusal] = kept(stack)
    assert now <= refusal.at <= stack.clock.wall()
    assert refusal == Refusal(
        refusal.at, "id-1", "POST", "/orders/7", "(default)", "main", (), 401, Reason.TOKEN_EXPIRED,
        answer.json()["details"], "127.0.0.1", False, "", "sidecar.test", "ed25519-a",
    )  # fmt: skip


async def test_an_accepted_request_is_not_kept() -> None:
    async with running(routes=[{"path": "/public/*", "auth": "none"}]) as stack:
        await stack.fetch(stack.good())
        await stack.fetch(request("GET", "/public/x"))
        assert kept(stack) == []


async def test_the_names_of_verified_claims_are_kept() -> None:
    async with running(routes=[{"path": "/admin/*", "require": {"scopes": ["admin"]}}]) as stack:
        await stack.fetch(stack.good("GET", "/admin/x"))
        await stack.fetch(request("GET", "/admin/x", token=stack.token(name="b")))
        unverified, verified = kept(stack)
    assert (verified.reason, verified.issuer, verified.route) == (Reason.SCOPE_INSUFFICIENT, "main", "/admin/*")
    assert {"iss", "sub", "aud", "exp"} <= set(verified.claims)
    assert (unverified.issuer, unverified.claims) == ("none", ())


async def test_a_refusal_of_report_mode_is_marked() -> None:
    async with running(routes=[{"path": "/*", "mode": "report"}]) as stack:
        assert (await stack.fetch(request("GET", "/x"))).status == 200
        stack.backend.handler = send(b"no HTTP\r\n\r\n")
        assert (await stack.fetch(request("GET", "/x"))).status == 502
        really, would = kept(stack)
    assert (would.reported, would.status, would.reason) == (True, 200, Reason.TOKEN_MISSING)
    assert (really.reported, really.status, really.reason) == (False, 502, Reason.UPSTREAM_INVALID)


async def test_an_incomplete_answer_is_kept() -> None:
    backend = RawBackend(send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True))
    async with running(backend=backend) as stack:
        async with stack.client() as client:
            await client.send(stack.good())
            await client.closed()
        [refusal] = kept(stack)
    assert (refusal.status, refusal.reason, refusal.details) == (
        200, Reason.UPSTREAM_INVALID, Reason.UPSTREAM_INVALID.details,
    )  # fmt: skip


async def test_invalid_bytes_of_a_request_are_kept_as_a_refusal() -> None:
    async with running() as stack:
        [answer] = await stack.converse(b"GET / HTTP/1.1\r\n" + stack.credentials + b"\x00\r\n\r\n")
        [refusal] = kept(stack)
    assert refusal._replace(at=0) == Refusal(
        0, answer.get("x-request-id") or "", "", "", "(none)", "none", (), 400, Reason.REQUEST_MALFORMED,
        answer.json()["details"], "127.0.0.1", False, "A head must not hold control characters.",
    )  # fmt: skip


async def test_only_the_last_are_kept_the_newest_first() -> None:
    async with running() as stack:
        async with stack.client() as client:
            for number in range(KEPT + 5):
                await client.request(request("GET", f"/{number}", headers=[("X-Request-Id", f"id-{number % 50}")]))
        refusals = stack.sidecar.live.telemetry.refusals
        assert [refusal.path for refusal in refusals] == [f"/{number}" for number in range(KEPT + 4, 4, -1)]
        newest = refusals.find("id-3")
        assert newest is not None
        assert newest.path == "/103"
        assert refusals.find("id-50") is None


async def test_a_kept_path_is_cut_and_has_no_tokens() -> None:
    async with running() as stack:
        await stack.fetch(request("GET", f"/by/{stack.alice}/x"))
        await stack.fetch(request("GET", "/" + "a" * MAX_PATH))
        long, with_token = kept(stack)
    assert with_token.path == "/by/***/x"
    assert long.path == "/" + "a" * (MAX_PATH - 1) + "..."


def test_text_that_looks_like_a_token_is_masked_in_a_path() -> None:
    for text, without in (
        ("", ""),
        ("/a.b.c", "/a.b.c"),
        ("/eyJhIjox", "/eyJhIjox"),
        ("/eyJhIjox.eyJi.c-_d/x", "/***/x"),
        ("/eyJhIjox.eyJi./x", "/***/x"),
        ("/eyJhIjox.a.b.c.d", "/***"),
        ("/eyJhIjox==.eyJi=.c-_d==/x", "/***==/x"),
        ("/eyJhIjox%3D%3d.eyJi%3D%2Ec-_d==/x", "/***==/x"),
        ("/?a=b&c=eyJhIjox.a.b", "/?a=b&c=***"),
        ("/eyJh.b /eyJi.c", "/*** /***"),
    ):
        assert without_tokens(text) == without
