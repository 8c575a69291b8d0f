"""What is counted and what is logged: all of it, and nothing that a client can make up."""

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.rejections import Reason
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never, send
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, running

ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/trial/*", "mode": "report"},
]
Labels = tuple[tuple[str, str], ...]


async def metrics(stack: Stack) -> dict[str, dict[Labels, float]]:
    """Every sample by its name and its labels."""
    answer = await stack.health("/metrics")
    assert answer.status == 200
    assert (answer.get("content-type") or "").startswith("text/plain; version=0.0.4")
    samples: dict[str, dict[Labels, float]] = {}
    for family in text_string_to_metric_families(answer.body.decode()):
        assert family.documentation
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in samples.setdefault(sample.name, {}), "the same sample twice"
            samples[sample.name][labels] = sample.value
    return samples


def by(samples: dict[Labels, float], *names: str) -> Counter[tuple[str, ...]]:
    """Samples added up by some of their labels."""
    counts: Counter[tuple[str, ...]] = Counter()
    for labels, value in samples.items():
        counts[tuple(dict(labels)[name] for name in names)] += int(value)
    return +counts


async def send_some(stack: Stack) -> None:
    """One request of each kind."""
    for raw in (
        stack.good(),
        stack.good(),
        stack.good("POST", "/x", body=b"hello"),
        stack.good("PURGE", "/x"),
        request("GET", "/public/x"),
        request("GET", "/x"),
        request("GET", "/x", token="a.b.c"),
        stack.good("GET", "/admin/x"),
        request("GET", "/trial/x"),
        stack.good("GET", "/public/../x"),
        stack.good("TRACE", "/x"),
    ):
        await stack.fetch(raw)
    [answer] = await stack.converse(b"no HTTP\r\n\r\n")
    assert answer.status == 400


async def test_the_counts_are_what_was_sent() -> None:
    async with running(routes=ROUTES) as stack:
        await send_some(stack)
        samples = await metrics(stack)
    assert by(samples["jwt_sidecar_requests_total"], "route", "method", "code") == {
        ("(default)", "GET", "200"): 2,
        ("(default)", "POST", "200"): 1,
        ("(default)", "_OTHER", "200"): 1,
        ("(default)", "GET", "401"): 2,
        ("/public/*", "GET", "200"): 1,
        ("/admin/*", "GET", "403"): 1,
        ("/trial/*", "GET", "200"): 1,
        ("(none)", "GET", "400"): 1,
        ("(none)", "TRACE", "405"): 1,
        ("(none)", "_OTHER", "400"): 1,
    }
    assert by(samples["jwt_sidecar_auth_total"], "result", "reason") == {
        ("allow", "allowed"): 5,
        ("report", "token_missing"): 1,
        ("deny", "token_missing"): 1,
        ("deny", "token_malformed"): 1,
        ("deny", "scope_insufficient"): 1,
        ("deny", "path_ambiguous"): 1,
        ("deny", "method_not_allowed"): 1,
        ("deny", "request_malformed"): 1,
    }
    assert by(samples["jwt_sidecar_auth_total"], "issuer", "reason")["main", "allowed"] == 4
    assert by(samples["jwt_sidecar_request_duration_seconds_count"], "route") == {
        ("(default)",): 6, ("/public/*",): 1, ("/admin/*",): 1, ("/trial/*",): 1, ("(none)",): 2,
    }  # fmt: skip
    assert samples["jwt_sidecar_requests_in_flight"] == {(): 0}
    hits, misses = (samples[f"jwt_sidecar_token_cache_{name}_total"][()] for name in ("hits", "misses"))
    assert (hits, misses) == (4, 2)


async def test_the_values_of_labels_are_closed_sets() -> None:
    """Clients cannot fill the memory of whoever scrapes this."""
    async with running(routes=ROUTES) as stack:
        await send_some(stack)
        for number in range(20):
            await stack.fetch(stack.good("GET", f"/made-up-{number}?q={number}"))
            await stack.fetch(request("GET", "/x", token=stack.token(iss=f"https://made-up-{number}.test")))
            await stack.fetch(request("GET", "/x", token=stack.token(header={"kid": f"made-up-{number}"})))
            await stack.fetch(stack.good("PROPFIND", "/x", host=f"made-up-{number}.test"))
        samples = await metrics(stack)
    allowed = {
        "route": {"(default)", "(none)", "/public/*", "/admin/*", "/trial/*"},
        "method": {"GET", "POST", "TRACE", "_OTHER"},
        "code": {"200", "400", "401", "403", "405"},
        "issuer": {"main", "none"},
        "reason": {"allowed", *(reason.code for reason in Reason)},
        "trigger": {"scheduled", "forced"},
        "result": {"success", "failure", "allow", "deny", "report"},
        "le": set(
            re.findall(r"\S+", "0.001 0.0025 0.005 0.01 0.025 0.05 0.075 0.1 0.25 0.5 0.75 1.0 2.5 5.0 7.5 10.0 +Inf")
        ),
    }
    for name, of_name in samples.items():
        for labels in of_name:
            for label, value in labels:
                assert value in allowed[label], f"{name}: {label}={value}"


async def test_the_durations_are_a_histogram() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        slow = asyncio.Event()

        async def handler(_request: Request, writer: asyncio.StreamWriter) -> None:
            await slow.wait()
            writer.write(response(200))

        stack.backend.handler = handler
        fetch = asyncio.create_task(stack.fetch(stack.good()))
        await stack.backend.received(2)
        assert (await metrics(stack))["jwt_sidecar_requests_in_flight"] == {(): 1}
        stack.clock.ahead_s += 3
        slow.set()
        await fetch
        buckets = {
            float(dict(labels)["le"]): value
            for labels, value in (await metrics(stack))["jwt_sidecar_request_duration_seconds_bucket"].items()
        }
    assert list(buckets.values()) == sorted(buckets.values())
    assert (buckets[2.5], buckets[5.0], buckets[float("inf")]) == (1, 2, 2)


async def test_the_keys_are_told() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        stack.clock.ahead_s += 100
        samples = await metrics(stack)
        main = (("issuer", "main"),)
        assert samples["jwt_sidecar_jwks_keys"] == {main: 1}
        assert samples["jwt_sidecar_jwks_usable"] == {main: 1}
        assert 100 <= samples["jwt_sidecar_jwks_age_seconds"][main] < 500
        assert 0 < samples["jwt_sidecar_jwks_next_refresh_seconds"][main] < 660
        assert by(samples["jwt_sidecar_jwks_fetches_total"], "trigger", "result") == {("scheduled", "success"): 1}
        stack.clock.ahead_s += 24 * 3600
        assert (await metrics(stack))["jwt_sidecar_jwks_usable"] == {main: 0}


async def test_a_client_that_left_and_an_answer_that_broke_off_are_counted() -> None:
    async with running(backend=RawBackend(never)) as stack:
        async with stack.client() as client:
            await client.send(stack.good())
            await stack.backend.received()
        async with patience("the request to end"):
            while stack.sidecar.live.telemetry.requests_in_flight:
                await asyncio.sleep(0)
        stack.backend.handler = send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True)
        async with stack.client() as client:
            await client.send(stack.good())
            await client.closed()
        samples = await metrics(stack)
    assert sum(by(samples["jwt_sidecar_requests_total"], "code").values()) == 2
    assert by(samples["jwt_sidecar_requests_total"], "code")["0",] == 1
    assert by(samples["jwt_sidecar_auth_total"], "reason")["upstream_invalid",] == 1


# The access log

SECRET = "/x?access_token=secret&q=%2F"


async def logged(stack: Stack, capfd: pytest.CaptureFixture[str]) -> list[str]:
    """The lines of a few requests, with all that must not be in them."""
    for raw in (
        stack.good(
            "GET", SECRET, headers=[("X-Request-Id", "id-1"), ("Cookie", "a=secret"), ("Referer", "http://x/?secret")]
        ),
        request("POST", SECRET, token="secret.secret.secret"),
        request("GET", "/public/a%20b?secret"),
        request("GET", "/trial/x?secret"),
        stack.good("GET", '/"quoted"\\x?secret'),
        stack.good("GET", "/#secret"),
    ):
        await stack.fetch(raw)
    assert stack.sidecar.access_log is not None
    stack.sidecar.access_log.flush()
    out, err = capfd.readouterr()
    assert "secret" not in out.partition("/#secret")[0]
    assert "secret" not in err
    assert not any(part in out for part in stack.alice.split("."))
    return out.splitlines()


async def test_the_json_lines(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="json", routes=ROUTES) as stack:
        lines = [json.loads(line) for line in await logged(stack, capfd)]
    assert len(lines) == 6
    first, bad, public, trial, *_ = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first.pop("duration_ms") >= 0
    assert first == {
        "http.request.method": "GET",
        "http.route": "(default)",
        "url.path": "/x",
        "http.response.status_code": 200,
        "client.address": "127.0.0.1",
        "request_id": "id-1",
        "auth.issuer": "main",
    }
    assert (bad["http.response.status_code"], bad["auth.reason"]) == (401, "token_malformed")
    assert "auth.mode" not in bad
    assert (public["url.path"], public["http.route"], public.get("auth.reason")) == ("/public/a%20b", "/public/*", None)
    assert (trial["http.response.status_code"], trial["auth.reason"]) == (200, "token_missing")
    assert trial["auth.mode"] == "report"


async def test_the_ecs_lines(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="ecs", routes=ROUTES) as stack:
        lines = [json.loads(line) for line in await logged(stack, capfd)]
    assert len(lines) == 6
    first, bad, _, trial, *_ = lines
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("@timestamp"))
    assert isinstance(first.pop("event.duration"), int)
    assert re.fullmatch(r"\d+\.\d+\.\d+", first.pop("ecs.version"))
    assert first == {
        "event.outcome": "success",
        "http.request.id": "id-1",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/x",
        "client.ip": "127.0.0.1",
    }
    assert (bad["event.outcome"], bad["event.reason"]) == ("failure", "token_malformed")
    assert (trial["event.outcome"], trial["event.reason"]) == ("success", "token_missing")


async def test_the_combined_lines(capfd: pytest.CaptureFixture[str]) -> None:
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


async def test_off_logs_no_request(capfd: pytest.CaptureFixture[str]) -> None:
    async with running(access_log="off") as stack:
        await stack.fetch(stack.good())
        assert stack.sidecar.access_log is None
    assert capfd.readouterr().out == ""


async def test_the_lines_of_many_requests_are_written_without_being_asked_for(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async with running(access_log="json") as stack:
        for _ in range(50):
            await stack.fetch(stack.good())
        lines = 0
        async with patience("50 lines"):
            while lines < 50:
                await asyncio.sleep(0.01)
                lines += capfd.readouterr().out.count("\n")


async def test_bytes_that_are_no_request_leave_a_line_too(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sidecar.requests"):
        async with running() as stack:
            [answer] = await stack.converse(b"GET / HTTP/1.1\r\n" + stack.credentials + b"\x00\r\n\r\n")
    line = next(record.getMessage() for record in caplog.records if record.name == "sidecar.requests")
    request_id = answer.get("x-request-id")
    assert line == f"event=refused reason=request_malformed request_id={request_id} peer=127.0.0.1"
