"""The metrics cover everything, and hold nothing that a client can invent."""

import asyncio
import platform
import re
import weakref
from asyncio.subprocess import PIPE
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.jwks.shared_fetch import FETCH_S
from sidecar.observability.counters import BUCKETS_S, LAG_S, OVERHEAD_S, SKIPPED
from sidecar.observability.record import Record
from sidecar.observability.telemetry import MAX_OUTCOMES, MAX_SPELLS, Telemetry
from sidecar.policy.routes import Auth
from tests.conftest import Need
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never, send
from tests.peers.clock import HandClock, in_its_time
from tests.peers.gateway import Keys
from tests.peers.issuer import Answer
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, running

ROOT = Path(__file__).parents[2]
ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/trial/*", "mode": "report"},
]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
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
    """The sums of samples by some of their labels."""
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


async def test_the_counters_match_the_sent_requests() -> None:
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


async def test_each_method_of_rfc_9110_and_patch_keeps_its_name() -> None:
    methods = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"}
    async with running() as stack:
        for method in methods:
            async with stack.client() as client:
                await client.send(stack.good(method, "/x"))
                await client.answer(method)
        samples = await metrics(stack)
    assert by(samples["jwt_sidecar_requests_total"], "method") == {(method,): 1 for method in methods}


async def test_clients_cannot_add_values_of_labels() -> None:
    """Otherwise clients could fill the memory of Prometheus."""
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
        "code": {"200", "400", "401", "403", "405", "503"},
        "issuer": {"main", "none"},
        "reason": {"allowed", *(reason.code for reason in Reason)},
        "trigger": {"scheduled", "forced"},
        "result": {"success", "failure", "allow", "deny", "error", "report", "left"},
        "mode": {"enforce", "report"},
        "why": {"public", "optional", "preflight"},
        "kind": {"claim", "underscore", "forwarded", "connect", "timeout", "reset", "protocol"},
        "upstream": {"default"},
        "state": {"fresh", "stale", "absent", "in_force", "waiting", "active", "idle"},
        "origin": {"file", "posted"},
        "hash": {stack.sidecar.config.digest},
        "version": {version("jwt-sidecar")},
        "python": {platform.python_version()},
        "le": set(map(str, (*BUCKETS_S, *OVERHEAD_S, *LAG_S, *FETCH_S))) | {"+Inf"},
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


async def test_the_metrics_describe_the_keys() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        stack.clock.ahead_s += 100
        samples = await metrics(stack)
        main = (("issuer", "main"),)
        assert samples["jwt_sidecar_jwks_keys"] == {main: 1}
        assert state(samples) == "fresh"
        fetched = samples["jwt_sidecar_jwks_last_success_timestamp_seconds"][main]
        assert fetched == pytest.approx(stack.clock.wall() - samples["jwt_sidecar_jwks_age_seconds"][main], abs=60)
        assert samples["jwt_sidecar_jwks_fetch_duration_seconds_count"] == {main: 1}
        assert 100 <= samples["jwt_sidecar_jwks_age_seconds"][main] < 500
        assert 0 < samples["jwt_sidecar_jwks_next_refresh_seconds"][main] < 660
        assert by(samples["jwt_sidecar_jwks_fetches_total"], "trigger", "result") == {("scheduled", "success"): 1}
        for number in range(3):  # the first one causes a fetch; the others come within the cooldown
            await stack.fetch(request("GET", "/x", token=stack.token(header={"kid": f"made-up-{number}"})))
        assert (await metrics(stack))["jwt_sidecar_jwks_refresh_suppressed_total"] == {main: 2}
        stack.clock.ahead_s += 31
        stack.issuer.on_jwks = Answer(500)
        stack.sidecar.assembly.sources["main"].refresh()
        async with patience("a fetch that fails"):
            while state(samples := await metrics(stack)) == "fresh":
                await asyncio.sleep(0)
        assert state(samples) == "stale"
        stack.clock.ahead_s += 24 * 3600
        assert state(await metrics(stack)) == "absent"


def state(samples: dict[str, dict[Labels, float]]) -> str:
    """The state of the keys of `main`."""
    [labels] = [labels for labels, value in samples["jwt_sidecar_jwks_state"].items() if value]
    return dict(labels)["state"]


async def test_requests_accepted_without_a_token_are_counted_by_reason() -> None:
    routes = [{"path": "/public/*", "auth": "none"}, {"path": "/feed", "auth": "optional"}]
    preflight = [("Origin", "http://a"), ("Access-Control-Request-Method", "PUT")]
    async with running(routes=routes) as stack:
        assert (await metrics(stack))["jwt_sidecar_auth_skipped_total"] == {
            (("why", why),): 0 for why in ("public", "optional", "preflight")
        }
        for raw in (
            request("GET", "/public/x"),
            stack.good("GET", "/public/x"),
            request("GET", "/feed"),
            stack.good("GET", "/feed"),
            request("OPTIONS", "/x", headers=preflight),
            request("OPTIONS", "/x"),
        ):
            await stack.fetch(raw)
        samples = await metrics(stack)
    assert by(samples["jwt_sidecar_auth_skipped_total"], "why") == {("public",): 2, ("optional",): 1, ("preflight",): 1}


def test_every_kind_of_route_without_a_token_has_a_reason_in_the_metrics() -> None:
    assert SKIPPED.keys() == set(Auth) - {Auth.DENY}


async def test_stripped_identity_headers_are_counted() -> None:
    forged = [("X-JWT-Sub", "admin"), ("x_jwt_status", "verified"), ("X_Other", "x"), ("X-Real-IP", "192.0.2.1")]
    async with running() as stack:
        await stack.fetch(stack.good(headers=forged))
        samples = await metrics(stack)
    assert by(samples["jwt_sidecar_headers_stripped_total"], "kind") == {
        ("claim",): 2, ("underscore",): 1, ("forwarded",): 1,
    }  # fmt: skip


async def test_failures_of_a_backend_are_counted_by_their_kind() -> None:
    async with running() as stack:
        for handler in (
            send(b"no HTTP\r\n\r\n", close=True),
            send(b"", close=True),
            send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True),
        ):
            stack.backend.handler = handler
            async with stack.client() as client:
                await client.send(stack.good("POST", headers=[("Connection", "close")]))
                await client.closed()
        stack.backend.handler = never
        async with stack.client() as client:
            await client.send(stack.good())
            await stack.backend.received(4)
            stack.clock.ahead_s += 61
            assert (await client.response()).status == 504
        await stack.backend.go_down()
        assert (await stack.fetch(stack.good())).status == 502
        samples = await metrics(stack)
        assert by(samples["jwt_sidecar_upstream_errors_total"], "upstream", "kind") == {
            ("default", "protocol"): 1, ("default", "reset"): 2, ("default", "timeout"): 1, ("default", "connect"): 1,
        }  # fmt: skip
        assert by(samples["jwt_sidecar_auth_total"], "result")["error",] == 5


async def test_the_times_of_the_sidecar_and_the_backend_are_separate() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())

        async def slow(_request: Request, writer: asyncio.StreamWriter) -> None:
            stack.clock.ahead_s += 3
            writer.write(response(200))

        stack.backend.handler = slow
        await stack.fetch(stack.good())
        await stack.fetch(request())  # refused, so the backend gets no request
        samples = await metrics(stack)
    assert samples["jwt_sidecar_upstream_request_duration_seconds_count"] == {(("route", "(default)"),): 2}
    assert samples["jwt_sidecar_upstream_request_duration_seconds_sum"][("route", "(default)"),] > 3
    assert samples["jwt_sidecar_overhead_seconds_count"] == {(): 2}
    assert samples["jwt_sidecar_overhead_seconds_sum"][()] < 3


def record(started: float = 0.0, issuer: str | None = None) -> Record:
    """A request that was refused for its token."""
    found = Record("id-1", "GET", "/", b"sidecar.test", 1, "127.0.0.1", "http", started)
    found.refused(Rejection(Reason.TOKEN_EXPIRED))
    found.token_issuer = issuer
    return found


def test_the_backends_time_is_from_the_request_to_its_answer() -> None:
    telemetry = Telemetry(HandClock())
    one = record(started=10.0)
    one.sent, one.answered = 11.0, 15.0
    telemetry.ended(one, 22.0)
    assert telemetry.overhead.sum == 1.0
    assert [one.sum for one in telemetry.upstream_durations.values()] == [4.0]
    assert [one.sum for one in telemetry.durations.values()] == [12.0]


def test_the_longest_requests_are_exemplars_too() -> None:
    telemetry = Telemetry(HandClock())
    one = record()
    one.span_trace_id = TRACE_ID
    telemetry.ended(one, BUCKETS_S[-1] + 1)
    [*_, longest] = telemetry.exemplars["(none)"]
    assert longest is not None
    assert (longest.trace_id, longest.duration_s) == (TRACE_ID, BUCKETS_S[-1] + 1)


def test_an_exemplar_stays_for_a_second() -> None:
    telemetry = Telemetry(HandClock())
    kept = []
    for trace, now in (("a", 10.0), ("b", 10.5), ("c", 11.0)):
        one = record(started=now)
        one.traceparent = f"00-{trace * 32}-00f067aa0ba902b7-01".encode()
        telemetry.ended(one, now)
        first, *_ = telemetry.exemplars["(none)"]
        assert first is not None
        kept.append(first.trace_id[0])
    assert kept == ["a", "a", "c"]


def test_the_oldest_of_too_many_kinds_of_refusals_is_forgotten() -> None:
    clock = HandClock()
    telemetry = Telemetry(clock)
    for number in range(MAX_SPELLS):
        telemetry.ended(record(issuer=f"issuer-{number}"), 0.0)
        clock.advance(1.0)
    telemetry.ended(record(issuer="issuer-0"), 0.0)
    telemetry.ended(record(issuer="another"), 0.0)
    assert len(telemetry.spells) == MAX_SPELLS
    counts = {issuer: spell.count for (_, issuer, _, _), spell in telemetry.spells.items()}
    assert counts["issuer-0"] == 2
    assert "issuer-1" not in counts
    assert counts["another"] == 1


class Method(str):
    """A method to which a weak reference may exist."""

    __slots__ = ("__weakref__",)


def test_the_methods_of_clients_are_kept_up_to_a_limit() -> None:
    telemetry = Telemetry(HandClock())
    kept: list[weakref.ref[Method]] = []
    for number in range(MAX_OUTCOMES + 1):
        assert all(one() is not None for one in kept[:1])
        method = Method(f"M{number}")
        kept.append(weakref.ref(method))
        telemetry.ended(Record("id-1", method, "/", b"sidecar.test", 1, "127.0.0.1", "http", 0.0), 0.0)
        del method
    assert [number for number, one in enumerate(kept) if one() is not None] == [MAX_OUTCOMES]


def test_reloads_are_counted_by_their_result() -> None:
    telemetry = Telemetry(HandClock())
    assert telemetry.last_reload_successful
    for result, successful in (("success", True), ("failure", False), ("success", True)):
        telemetry.reloaded(result)
        assert telemetry.last_reload_successful is successful
    assert telemetry.reloads == {"success": 2, "failure": 1}


def test_bytes_that_are_no_request_count_as_refusals_of_no_route() -> None:
    telemetry = Telemetry(HandClock())
    telemetry.unread(Reason.REQUEST_MALFORMED, "id-1", "127.0.0.1", "")
    assert {kind: spell.count for kind, spell in telemetry.spells.items()} == {
        ("(none)", "none", "request_malformed", False): 1
    }


async def test_the_metric_of_connections_follows_their_number() -> None:
    async with running() as stack:
        async with stack.client(), stack.client() as second:
            await second.request(stack.good())
            async with patience("two connections"):
                while (await metrics(stack))["jwt_sidecar_connections"] != {(): 2}:
                    await asyncio.sleep(0)
        async with patience("no connection"):
            while (await metrics(stack))["jwt_sidecar_connections"] != {(): 0}:
                await asyncio.sleep(0)


async def test_the_metrics_describe_remembered_tokens() -> None:
    async with running() as stack:
        for _ in range(2):
            await stack.fetch(stack.good())
        await stack.fetch(request(token=stack.token(sub="bob")))
        samples = await metrics(stack)
    assert samples["jwt_sidecar_token_cache_entries"] == {(): 2}
    assert samples["jwt_sidecar_token_cache_evictions_total"] == {(): 0}


@in_its_time
async def test_the_lag_of_the_event_loop_is_measured(clock: HandClock) -> None:
    telemetry = Telemetry(clock)
    watching = asyncio.create_task(telemetry.watch_loop(1.0))
    await asyncio.sleep(0)
    clock.advance(3.0)  # blocks the loop: its timer is 2 s late
    await asyncio.sleep(2.5)  # two more timers, in time
    watching.cancel()
    assert (telemetry.loop_lag.sum, sum(telemetry.loop_lag.counts)) == (2.0, 3)


async def test_promtool_accepts_a_live_scrape(need: Need) -> None:
    promtool = need("promtool")
    async with running(routes=ROUTES) as stack:
        await send_some(stack)
        scrape = (await stack.health("/metrics")).body
    process = await asyncio.create_subprocess_exec(
        promtool, "check", "metrics", stdin=PIPE, stdout=PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate(scrape)
    assert (process.returncode, said.decode()) == (0, "")


async def test_every_metric_on_the_pages_exists(tmp_path: Path) -> None:
    denied = tmp_path / "denied.json"
    denied.write_text("[]")
    async with (
        RawBackend() as backend,
        running(**Keys(tmp_path).settings(backend.url, routes=None, denylist_file=str(denied))) as stack,
    ):
        await stack.fetch(stack.good())
        await stack.fetch(request("GET", "/"))
        stack.sidecar.live.telemetry.handshakes["plain_http"] = 1
        names = set(await metrics(stack))
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("deploy/*/*.y*ml"),
        *ROOT.glob("deploy/grafana/*"),
    ]
    named = {name for page in pages for name in re.findall(r"\bjwt_sidecar_\w+", page.read_text())}
    assert named
    of_workers = {"jwt_sidecar_workers", "jwt_sidecar_worker_replacements_total"}
    assert named <= names | {name.removesuffix("_bucket") for name in names} | of_workers


async def test_clients_that_leave_and_incomplete_answers_are_counted() -> None:
    async with running(backend=RawBackend(never)) as stack:
        async with stack.client() as client:
            await client.send(stack.good())
            await stack.backend.received()
        async with patience("the request to end"):
            while stack.sidecar.live.resources.requests_in_flight:
                await asyncio.sleep(0)
        stack.backend.handler = send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", close=True)
        async with stack.client() as client:
            await client.send(stack.good())
            await client.closed()
        samples = await metrics(stack)
    assert sum(by(samples["jwt_sidecar_requests_total"], "code").values()) == 2
    assert by(samples["jwt_sidecar_requests_total"], "code")["0",] == 1
    assert by(samples["jwt_sidecar_auth_total"], "reason")["upstream_invalid",] == 1


async def test_a_refusal_of_invalid_bytes_is_logged_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "sidecar.requests"):
        async with running() as stack:
            [answer] = await stack.converse(b"GET / HTTP/1.1\r\n" + stack.credentials + b"\x00\r\n\r\n")
    line = next(record.getMessage() for record in caplog.records if record.name == "sidecar.requests")
    request_id = answer.get("x-request-id")
    cause = "A head must not hold control characters."
    assert line == f"event=refused reason=request_malformed request_id={request_id} peer=127.0.0.1 cause={cause!r}"


async def test_the_page_of_metrics_lists_all_metrics_with_their_labels() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        families = list(text_string_to_metric_families((await stack.health("/metrics")).body.decode()))
    rows = re.findall(
        r"^\| (`jwt_.*?) \| (\w+) \| (.*?) ?\| ", (ROOT / "docs/reference/metrics.md").read_text(), re.MULTILINE
    )
    told = {
        name.removesuffix("_total"): (kind, set(re.findall("`(.*?)`", labels)))
        for names, kind, labels in rows
        for name in re.findall("`(.*?)`", names)
    }
    families = [family for family in families if not family.name.startswith("process_")]
    assert set(told) == {family.name for family in families}
    for family in families:
        kind, labels = told[family.name]
        assert family.type == kind
        for sample in family.samples:
            assert sample.labels.keys() - {"le"} == labels
