"""The metrics of a scrape: bounded, in the requested format, and with every limit."""

import gzip
import re
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics

from sidecar.observability.prometheus import MAX_ROUTES
from tests.peers.raw import Response, fetch
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running


async def scrape(stack: Stack, *headers: tuple[str, str]) -> Response:
    return await fetch(stack.sidecar.health_address, request("GET", "/metrics", headers=headers))


def value(text: str, sample: str) -> float:
    [found] = [line for line in text.splitlines() if line.startswith(f"{sample} ")]
    return float(found.rpartition(" ")[2])


async def test_a_scrape_names_a_limited_number_of_rules() -> None:
    number = 3 * MAX_ROUTES
    async with running(routes=[{"path": f"/r{one}"} for one in range(number)]) as stack:
        async with stack.client() as client:
            for one in range(number):
                await client.request(stack.good("GET", f"/r{one}"))
            await client.request(stack.good("GET", "/"))
            await client.request(request("GET", f"/r{number - 1}"))
        text = (await scrape(stack)).body.decode()
    routes = set(re.findall(r'jwt_sidecar_request_duration_seconds_count\{route="(.*?)"\}', text))
    assert len(routes) == MAX_ROUTES + 2
    assert {"/r0", "(others)", "(default)"} <= routes
    others = 'jwt_sidecar_requests_total{code="200",method="GET",route="(others)"}'
    assert value(text, others) == number - MAX_ROUTES
    refused = 'jwt_sidecar_refused_total{issuer="none",mode="enforce",reason="token_missing",route="(others)"}'
    assert value(text, refused) == 1


async def test_openmetrics_and_gzip_are_sent_on_request() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        plain = await scrape(stack)
        assert (plain.get("content-type") or "").startswith("text/plain; version=0.0.4")
        assert plain.get("content-encoding") is None
        accept = ("Accept", "application/openmetrics-text; version=1.0.0, text/plain;q=0.5")
        answer = await scrape(stack, accept, ("Accept-Encoding", "gzip"))
        assert (answer.get("content-type") or "").startswith("application/openmetrics-text")
        assert answer.get("content-encoding") == "gzip"
        families = {family.name for family in openmetrics(gzip.decompress(answer.body).decode())}
        assert {"jwt_sidecar_requests", "process_open_fds", "process_max_fds"} <= families


async def test_usage_is_reported_with_its_limit(tmp_path: Path) -> None:
    limits = {"connections": 50, "in_flight": 7, "upstream_connections": 3, "buffered_bytes": 100_000}
    async with running(limits=limits) as stack, stack.client() as client:
        await client.request(stack.good())
        text = (await scrape(stack)).body.decode()
        assert value(text, "jwt_sidecar_connections") == 1
        assert value(text, "jwt_sidecar_connections_limit") == 50
        assert value(text, "jwt_sidecar_requests_in_flight_limit") == 7
        assert value(text, "jwt_sidecar_buffered_bytes_limit") == 100_000
        assert value(text, 'jwt_sidecar_upstream_connections{state="idle",upstream="default"}') == 1
        assert value(text, 'jwt_sidecar_upstream_connections_limit{upstream="default"}') == 3
        assert value(text, "jwt_sidecar_draining") == 0
        assert value(text, "process_max_fds") > value(text, "process_open_fds") > 0
        stack.sidecar.live.drain.begin()
        assert value((await scrape(stack)).body.decode(), "jwt_sidecar_draining") == 1


async def test_a_file_that_becomes_invalid_is_reported_by_name(tmp_path: Path) -> None:
    denied, file = tmp_path / "denied.json", tmp_path / "config.yaml"
    denied.write_text("[]")
    async with running(denylist_file=str(denied), file=file) as stack:
        text = (await scrape(stack)).body.decode()
        assert value(text, 'jwt_sidecar_file_good{file="denied.json"}') == 1
        assert value(text, 'jwt_sidecar_file_good{file="config.yaml"}') == 1
        file.write_text("{")
        assert stack.sidecar.reload is not None
        assert not await stack.sidecar.reload.reload()
        assert value((await scrape(stack)).body.decode(), 'jwt_sidecar_file_good{file="config.yaml"}') == 0
        stack.secrets.errors.clear()


async def test_openmetrics_has_a_trace_as_an_exemplar() -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    async with running() as stack:
        await stack.fetch(stack.good(headers=[("traceparent", f"00-{trace}-00f067aa0ba902b7-01")]))
        plain = (await scrape(stack)).body.decode()
        answer = await scrape(stack, ("Accept", "application/openmetrics-text; version=1.0.0"))
    assert trace not in plain
    [durations] = [
        one for one in openmetrics(answer.body.decode()) if one.name == "jwt_sidecar_request_duration_seconds"
    ]
    [exemplar] = [sample.exemplar for sample in durations.samples if sample.exemplar is not None]
    assert exemplar.labels == {"trace_id": trace}
