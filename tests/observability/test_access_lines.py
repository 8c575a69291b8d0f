"""The lines of the access log: their fields in each format, the user, and which requests have a line."""

import asyncio
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.observability.access_lines import combined_line, json_line
from sidecar.observability.record import Record
from tests.observability.test_telemetry import ROUTES, TRACE_ID
from tests.peers import patience
from tests.peers.backend import RawBackend, never
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

SECRET = "/x?access_token=secret&q=%2F"


Said = pytest.CaptureFixture[str]


def lines(capfd: Said) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


async def leave(stack: Stack) -> None:
    """A client that leaves before the answer."""
    async with stack.client() as client:
        await client.send(stack.good())
        await stack.backend.received()
    async with patience("the request to end"):
        while stack.sidecar.live.resources.requests_in_flight:
            await asyncio.sleep(0.01)


async def test_a_line_names_the_client_of_a_trusted_proxy(capfd: Said) -> None:
    async with running(access_log="json", trusted_proxies=["127.0.0.1/32"]) as stack:
        said = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Proto", "https")]
        await stack.fetch(stack.good(headers=said))
        await stack.fetch(request("GET", "/", headers=said))
        assert [kept.peer for kept in stack.sidecar.live.telemetry.refusals] == ["203.0.113.9"]
    assert [(one["client.address"], one["url.scheme"]) for one in lines(capfd)] == [("203.0.113.9", "https")] * 2


@pytest.mark.parametrize(("sample", "let_in"), [(1, 10), (5, 2), (0, 0)])
async def test_refusals_are_written_for_every_sample_rate(sample: int, let_in: int, capfd: Said) -> None:
    settings: dict[str, Any] = {"access_log_sample": sample, "routes": [{"path": "/t", "mode": "report"}]}
    async with running(access_log="json", **settings) as stack, stack.client() as client:
        for _ in range(10):
            await client.request(stack.good())
        for _ in range(3):
            await client.request(request("GET", "/"))
        await client.request(request("GET", "/t"))
    results = [one["auth.result"] for one in lines(capfd)]
    assert {name: results.count(name) for name in ("allow", "deny", "report")} == {
        "allow": let_in,
        "deny": 3,
        "report": 1,
    }


@pytest.mark.parametrize("form", ["json", "ecs", "combined"])
async def test_a_client_that_leaves_is_logged_as_left(form: str, capfd: Said) -> None:
    async with running(access_log=form, backend=RawBackend(never)) as stack:
        await leave(stack)
        assert stack.sidecar.live.telemetry.decisions == {("main", "left", "allowed"): 1}
    line = capfd.readouterr().out
    if form == "combined":
        assert line.split('"')[2].startswith(" 499 ")
        return
    told = json.loads(line)
    assert told["http.response.status_code"] == 499
    if form == "ecs":
        assert (told["event.action"], told["event.outcome"]) == ("left", "unknown")
    else:
        assert told["auth.result"] == "left"


@pytest.mark.parametrize("form", ["json", "ecs", "combined"])
async def test_a_line_about_invalid_bytes_does_not_contain_them(form: str, capfd: Said) -> None:
    async with running(access_log=form) as stack:
        for raw, status in ((b"secret nonsense\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nX: " + b"secret" * 12000, 431)):
            assert (await stack.fetch(raw)).status == status
    out = capfd.readouterr().out
    assert "secret" not in out
    assert [str(status) in line for status, line in zip((400, 431), out.splitlines(), strict=True)] == [True, True]
    if form == "combined":
        assert '"-" 400 ' in out
    else:
        assert "url.path" not in out


@pytest.mark.parametrize(("minor", "version"), [(0, "1.0"), (1, "1.1")])
async def test_a_line_has_the_http_version_of_the_client(minor: int, version: str, capfd: Said) -> None:
    async with running(access_log="combined") as stack:
        await stack.fetch(stack.raw(f"GET / HTTP/1.{minor}\nHost: a\nConnection: close\nALICE\n\n"))
    assert f'"GET / HTTP/{version}" 200 ' in capfd.readouterr().out


async def test_lost_lines_are_counted(tmp_path: Path) -> None:
    async with running(access_log="json") as stack:
        log = stack.sidecar.live.telemetry.access_log
        assert log is not None
        log._bytes = 1 << 30  # the reader is too slow
        await stack.fetch(stack.good())
        assert stack.sidecar.live.telemetry.lost_lines == 1
        log._bytes = 0


# The formats, and requests with secrets


async def logged(stack: Stack, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a few requests that hold secrets, none of which is in a line."""
    for raw in (
        stack.good(
            "GET",
            SECRET,
            headers=[
                ("X-Request-Id", "id-1"),
                ("traceparent", f"00-{TRACE_ID}-{'b' * 16}-01"),
                ("Cookie", "a=secret"),
                ("Referer", "http://x/?secret"),
            ],
        ),
        request("POST", SECRET, token="secret.secret.secret"),
        request("GET", "/public/a%20b?secret"),
        request("GET", "/trial/x?secret"),
        stack.good("GET", '/"quoted"\\x?secret'),
        stack.good("GET", "/#secret"),
    ):
        await stack.fetch(raw)
    assert stack.sidecar.live.telemetry.access_log is not None
    stack.sidecar.live.telemetry.access_log.flush()
    out, err = capfd.readouterr()
    assert "secret" not in out.partition("/#secret")[0]
    assert "secret" not in err
    assert not any(part in out for part in stack.alice.split("."))
    return out.splitlines()


async def test_lines_in_json_have_the_documented_fields(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="json", routes=ROUTES) as stack:
        lines = [json.loads(line) for line in await logged(stack, capfd)]
    assert len(lines) == 6
    first, bad, public, trial, *_ = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first.pop("duration_ms") >= first.pop("upstream_ms") >= 0
    assert first == {
        "http.request.method": "GET",
        "http.route": "(default)",
        "url.path": "/x",
        "url.scheme": "http",
        "network.protocol.version": "1.1",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "request_id": "id-1",
        "auth.result": "allow",
        "auth.issuer": "main",
        "auth.kid": "ed25519-a",
        "user.hash": hashlib.sha256(f"{stack.issuer.issuer} alice".encode()).hexdigest()[:16],
        "trace_id": TRACE_ID,
    }
    assert (bad["http.response.status_code"], bad["auth.reason"]) == (401, "token_malformed")
    assert bad["auth.result"] == "deny"
    assert not {"auth.issuer", "auth.kid", "user.hash", "upstream_ms"} & bad.keys()
    assert (public["url.path"], public["http.route"], public.get("auth.reason")) == ("/public/a%20b", "/public/*", None)
    assert (trial["http.response.status_code"], trial["auth.reason"]) == (200, "token_missing")
    assert trial["auth.result"] == "report"


async def test_lines_in_ecs_have_the_documented_fields(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="ecs", routes=ROUTES) as stack:
        lines = [json.loads(line) for line in await logged(stack, capfd)]
    assert len(lines) == 6
    first, bad, _, trial, *_ = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("@timestamp"))
    assert isinstance(first.pop("event.duration"), int)
    assert re.fullmatch(r"\d+\.\d+\.\d+", first.pop("ecs.version"))
    assert first == {
        "jwt_sidecar.route": "(default)",
        "event.dataset": "jwt_sidecar.access",
        "event.action": "allow",
        "event.category": ["web"],
        "event.kind": "event",
        "event.outcome": "success",
        "event.type": ["access", "allowed"],
        "http.request.id": "id-1",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.version": "1.1",
        "url.path": "/x",
        "url.scheme": "http",
        "client.address": "127.0.0.1",
        "client.ip": "127.0.0.1",
        "jwt_sidecar.issuer": "main",
        "jwt_sidecar.kid": "ed25519-a",
        "user.hash": hashlib.sha256(f"{stack.issuer.issuer} alice".encode()).hexdigest()[:16],
        "trace.id": TRACE_ID,
    }
    assert (bad["event.outcome"], bad["event.reason"]) == ("failure", "token_malformed")
    assert (trial["event.outcome"], trial["event.reason"]) == ("success", "token_missing")


async def test_combined_lines_have_the_documented_form(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="combined", routes=ROUTES) as stack:
        lines = await logged(stack, capfd)
    assert len(lines) == 6
    form = re.compile(
        r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}] "
        r'"(\S+) ([^\s"]+) HTTP/1\.1" (\d{3}) \S+ "[^"]*" "[^"]*".*'
    )
    found = [match.groups() for line in lines if (match := form.fullmatch(line)) is not None]
    assert len(found) == len(lines)
    assert [found[0][:3], found[1][:3]] == [("GET", "/x", "200"), ("POST", "/x", "401")]
    assert [line.rpartition(" ")[2] for line in lines[:4]] == ["-", "token_malformed", "-", "report:token_missing"]


def test_no_character_of_a_path_ends_a_line_or_a_field() -> None:
    """This includes characters that no request has."""
    record = Record("id-1", "GET", '/a b\tc"d/\x85\udce9', b"sidecar.test", 1, "127.0.0.1", "http", 0.0)
    line, combined = json_line(record, 0.0), combined_line(record, 0.0).decode()
    assert line.isascii()
    assert json.loads(line)["url.path"] == '/a b\tc"d/\\x85\\udce9'
    assert combined.split('"')[1] == "GET /a%20b%09c%22d/\\x85\\udce9 HTTP/1.1"


@pytest.mark.parametrize("said", ["jsk_0123456789abcdef_" + "a" * 43, "eyJhbGci.eyJzdWIi.c2ln"])
async def test_text_that_looks_like_a_secret_is_not_used_as_request_id(
    said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(access_log="json") as stack:
        answer = await stack.fetch(stack.good(headers=[("X-Request-Id", said)]))
        assert answer.get("x-request-id") not in (said, None)
    assert said not in capfd.readouterr().out


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ([f"00-{TRACE_ID}-00f067aa0ba902b7-01"], True),
        ([f"cc-{TRACE_ID}-00f067aa0ba902b7-01"], True),
        ([f"cc-{TRACE_ID}-00f067aa0ba902b7-01-what-comes"], True),
        ([f"00-{TRACE_ID}-00f067aa0ba902b7-01-what-comes"], False),
        ([f"ff-{TRACE_ID}-00f067aa0ba902b7-01"], False),
        ([f"00-{'0' * 32}-00f067aa0ba902b7-01"], False),
        ([f"00-{TRACE_ID}-{'0' * 16}-01"], False),
        ([f"00-{TRACE_ID.upper()}-00f067aa0ba902b7-01"], False),
        ([f"00-{TRACE_ID}-00f067aa0ba902b7"], False),
        (["secret"], False),
        ([f"00-{TRACE_ID}-00f067aa0ba902b7-01"] * 2, False),
    ],
)
async def test_a_valid_traceparent_is_logged_and_every_one_is_forwarded(
    said: list[str], found: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    async with running(access_log="json") as stack:
        await stack.fetch(stack.good(headers=[("Traceparent", value) for value in said]))
        assert (await stack.backend.received()).all("traceparent") == said
    [line] = map(json.loads, capfd.readouterr().out.splitlines())
    assert line.get("trace_id") == (TRACE_ID if found else None)


async def test_an_unreadable_request_is_logged(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="json", underscore_headers="reject") as stack:
        await stack.fetch(request(headers=[("x_other", "secret")]))
    [line] = map(json.loads, capfd.readouterr().out.splitlines())
    assert (line["auth.result"], line["auth.reason"]) == ("deny", "request_malformed")


async def test_bytes_that_are_no_request_have_a_line_in_the_access_log(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="json") as stack:
        [answer] = await stack.converse(b"no HTTP\r\n\r\n")
    [line] = map(json.loads, capfd.readouterr().out.splitlines())
    assert line.pop("time")
    assert line.pop("error.message").startswith("A request must begin with a method")
    assert line == {
        "http.route": "(none)",
        "http.response.status_code": 400,
        "auth.result": "deny",
        "auth.reason": "request_malformed",
        "duration_ms": 0,
        "client.address": "127.0.0.1",
        "request_id": answer.get("x-request-id"),
    }


async def test_access_log_off_writes_no_line(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="off") as stack:
        await stack.fetch(stack.good())
        assert stack.sidecar.live.telemetry.access_log is None
    assert capfd.readouterr().out == ""


async def test_lines_of_many_requests_are_written_without_an_explicit_flush(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="json") as stack:
        for _ in range(50):
            await stack.fetch(stack.good())
        lines = 0
        async with patience("50 lines"):
            while lines < 50:
                await asyncio.sleep(0.01)
                lines += capfd.readouterr().out.count("\n")
