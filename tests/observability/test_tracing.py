"""OpenTelemetry traces: the spans that a real OTLP/HTTP receiver gets, and the trace context that the backend gets."""

import asyncio
import gzip
import re
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from benchmarks.process import reserved_port
from sidecar.app.explain.explanation import explain
from sidecar.app.explain.question import Question
from tests.peers import patience
from tests.peers.backend import RawBackend, never, send
from tests.peers.issuer import ScriptedIssuer
from tests.peers.wire import request
from tests.proxy.conftest import Stack, ok, running

TRACE_ID, PARENT_ID = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"
PARENT = f"00-{TRACE_ID}-{PARENT_ID}-01"
ROUTES: list[dict[str, Any]] = [{"path": "/public/*", "auth": "none"}, {"path": "/trial/*", "mode": "report"}]


@dataclass
class Collector:
    """An OTLP/HTTP receiver: the received spans, and the attributes of their resource."""

    url: str = ""
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)
    status: int = 200
    messages: int = 0

    async def receive(self, sent: web.Request) -> web.Response:
        body = await sent.read()
        self.messages += 1
        if self.status != 200:
            return web.Response(status=self.status)
        assert sent.content_type == "application/x-protobuf"
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        message = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for of_resource in message.resource_spans:
            self.resource = attributes(of_resource.resource)
            for scope in of_resource.scope_spans:
                self.spans += scope.spans
        return web.Response(content_type="application/x-protobuf")

    async def received(self, number: int) -> None:
        """Wait for so many messages."""
        async with patience("spans"):
            while self.messages < number:
                await asyncio.sleep(0.01)

    def the(self, kind: int) -> Span:
        [span] = [span for span in self.spans if span.kind == kind]
        return span


def attributes(of: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in of.attributes}


@asynccontextmanager
async def collector() -> AsyncIterator[Collector]:
    it = Collector()
    app = web.Application(client_max_size=10_000_000)
    app.router.add_post("/v1/traces", it.receive)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        it.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
        yield it
    finally:
        await runner.cleanup()


@asynccontextmanager
async def traced(to: Collector, **settings: Any) -> AsyncIterator[Stack]:
    """A sidecar that sends all its spans there at its end."""
    async with running(tracing={"endpoint": to.url}, routes=ROUTES, **settings) as stack:
        yield stack


async def test_a_request_is_a_server_and_a_client_span_in_the_clients_trace() -> None:
    async with collector() as it, traced(it) as stack:
        headers = [("traceparent", PARENT), ("tracestate", "vendor=x"), ("baggage", "a=b"), ("b3", "0")]
        await stack.fetch(stack.good("GET", "/orders/1?access_token=secret", headers=headers))
        seen = await stack.backend.received()
        port = stack.backend.address[1]
    server, client = it.the(Span.SPAN_KIND_SERVER), it.the(Span.SPAN_KIND_CLIENT)
    assert (server.name, client.name) == ("GET (default)", "GET")
    assert (server.trace_id.hex(), server.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    assert (client.trace_id.hex(), client.parent_span_id) == (TRACE_ID, server.span_id)
    assert seen.all("traceparent") == [f"00-{TRACE_ID}-{client.span_id.hex()}-01"]
    assert (seen.get("tracestate"), seen.get("baggage"), seen.get("b3")) == ("vendor=x", "a=b", "0")
    assert server.start_time_unix_nano <= client.start_time_unix_nano
    assert client.end_time_unix_nano <= server.end_time_unix_nano
    assert attributes(server) == {
        "http.request.method": "GET", "http.response.status_code": 200, "http.route": "(default)",
        "url.scheme": "http", "url.path": "/orders/1", "server.address": "sidecar.test", "client.address": "127.0.0.1",
        "network.protocol.version": "1.1", "jwt_sidecar.result": "allow", "jwt_sidecar.issuer": "main",
    }  # fmt: skip
    assert attributes(client) == {
        "http.request.method": "GET", "http.response.status_code": 200, "server.address": "127.0.0.1", "server.port": port,
        "url.full": f"http://127.0.0.1:{port}/orders/1", "network.protocol.version": "1.1", "jwt_sidecar.upstream": "default",
    }  # fmt: skip
    assert {server.status.code, client.status.code} == {0}
    assert it.resource["service.name"] == "jwt-sidecar"


@pytest.mark.parametrize("said", [[], ["secret"], [PARENT, PARENT], [f"00-{'0' * 32}-{PARENT_ID}-01"]])
async def test_a_new_trace_begins_without_exactly_one_valid_traceparent(said: list[str]) -> None:
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good(headers=[("traceparent", value) for value in said]))
        [told] = (await stack.backend.received()).all("traceparent")
    server = it.the(Span.SPAN_KIND_SERVER)
    assert (server.parent_span_id, server.trace_id.hex() != TRACE_ID) == (b"", True)
    assert told.split("-")[1] == server.trace_id.hex()


async def test_an_unsampled_trace_is_forwarded_and_not_exported() -> None:
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good(headers=[("traceparent", PARENT[:-1] + "0")]))
        told = (await stack.backend.received()).get("traceparent") or ""
    assert (told.split("-")[1], told[-2:], it.spans) == (TRACE_ID, "00", [])


async def test_a_refusal_is_a_server_span_with_its_reason_and_no_error() -> None:
    async with collector() as it, traced(it) as stack:
        assert (await stack.fetch(request("PURGE", "/orders", token="a.b.c"))).status == 401
    [span] = it.spans
    told = attributes(span)
    assert (span.name, span.status.code) == ("HTTP (default)", 0)
    assert (told["http.request.method"], told["http.response.status_code"]) == ("_OTHER", 401)
    assert (told["jwt_sidecar.result"], told["jwt_sidecar.reason"]) == ("deny", "token_malformed")
    assert not {"error.type", "jwt_sidecar.issuer"} & told.keys()


async def test_an_unreadable_request_is_a_span() -> None:
    async with collector() as it, traced(it, underscore_headers="reject") as stack:
        await stack.fetch(request("GET", "/x", headers=[("x_y", "z")]))
    [span] = it.spans
    assert (span.name, attributes(span)["jwt_sidecar.reason"]) == ("GET", "request_malformed")


@pytest.mark.parametrize(
    ("answer", "status", "server_error", "client_error"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", 404, None, "404"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", 500, "500", "500"),
        (b"no HTTP\r\n\r\n", 502, "upstream_invalid", "upstream_invalid"),
    ],
)
async def test_errors_of_spans_follow_the_conventions(
    answer: bytes, status: int, server_error: str | None, client_error: str
) -> None:
    async with collector() as it, traced(it, backend=RawBackend(send(answer, close=True))) as stack:
        assert (await stack.fetch(stack.good("POST"))).status == status
    server, client = it.the(Span.SPAN_KIND_SERVER), it.the(Span.SPAN_KIND_CLIENT)
    assert attributes(server).get("error.type") == server_error
    assert attributes(client).get("error.type") == client_error
    assert (server.status.code, client.status.code) == (2 if server_error else 0, 2)
    assert attributes(server)["http.response.status_code"] == status


async def test_a_refusal_of_report_mode_is_not_an_error_of_the_span() -> None:
    async with collector() as it, traced(it) as stack:
        assert (await stack.fetch(request("GET", "/trial/x"))).status == 200
    told = attributes(it.the(Span.SPAN_KIND_SERVER))
    assert (told["jwt_sidecar.result"], told["jwt_sidecar.reason"]) == ("report", "token_missing")
    assert it.the(Span.SPAN_KIND_CLIENT).status.code == 0


async def test_the_access_log_has_the_trace_id_of_the_span(capfd: pytest.CaptureFixture[str]) -> None:
    async with collector() as it, traced(it, access_log="json") as stack:
        await stack.fetch(stack.good())
    [trace_id] = re.findall('"trace_id":"(.*?)"', capfd.readouterr().out)
    assert trace_id == it.the(Span.SPAN_KIND_SERVER).trace_id.hex()


async def test_a_collector_that_is_down_delays_no_request_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with reserved_port() as port:
        async with traced(Collector(f"http://127.0.0.1:{port}/v1/traces")) as stack:
            for _ in range(3):
                assert (await stack.fetch(stack.good())).status == 200
    said = [record.getMessage() for record in caplog.records if "spans" in record.getMessage()]
    assert said == ["event=spans_lost do='Check the collector at tracing.endpoint; requests are served without spans.'"]
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]


async def test_the_return_of_a_collector_is_logged(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO", "sidecar.tracing")
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    async with collector() as it:
        it.status = 400
        async with traced(it) as stack:
            for status, event in ((400, "spans_lost"), (200, "spans_sent_again"), (400, "spans_lost")):
                it.status = status
                caplog.clear()
                async with patience(event):
                    while f"event={event}" not in caplog.text:
                        await stack.fetch(stack.good())
                        await asyncio.sleep(0.01)
                for _ in range(3):
                    before = it.messages
                    await stack.fetch(stack.good())
                    await it.received(before + 1)
                assert caplog.text.count("event=spans") == 1


async def test_the_server_span_begins_with_the_complete_head() -> None:
    async with collector() as it, traced(it, issuer=ScriptedIssuer(algs=["EdDSA"])) as stack:
        stack.issuer.hang()
        late = asyncio.create_task(stack.fetch(stack.good()))
        async with patience("the request to wait for keys"):
            while not stack.sidecar.live.resources.requests_in_flight:
                await asyncio.sleep(0)
        before_ns = time.time_ns()
        stack.issuer.release()
        assert (await late).status == 200
    server, client = it.the(Span.SPAN_KIND_SERVER), it.the(Span.SPAN_KIND_CLIENT)
    assert server.start_time_unix_nano < before_ns < client.start_time_unix_nano


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("a.test:8443", ("a.test", 8443)),
        ("a.test", ("a.test", None)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", None)),
    ],
)
async def test_a_span_has_host_and_port(host: str, expected: tuple[str, int | None]) -> None:
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good(host=host))
    told = attributes(it.the(Span.SPAN_KIND_SERVER))
    assert (told["server.address"], told.get("server.port")) == expected


async def test_an_explanation_makes_no_span() -> None:
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good())
        question = Question("GET", "/orders", stack.alice.encode())
        explanation = await explain(stack.sidecar.assembly, question, stack.clock)
        assert not [line for line in explanation.head if line.startswith("traceparent")]
    assert len(it.spans) == 2


async def test_a_span_names_a_backend_on_a_unix_socket_by_its_path(tmp_path: Any) -> None:
    async with collector() as it, traced(it, backend=RawBackend(ok, unix=tmp_path / "app.sock")) as stack:
        await stack.fetch(stack.good())
    told = attributes(it.the(Span.SPAN_KIND_CLIENT))
    assert (told["server.address"], told["network.transport"]) == (str(tmp_path / "app.sock"), "unix")
    assert told["url.full"] == "http://localhost/"


async def test_spans_are_exported_while_the_sidecar_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "orders")
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good())
        async with patience("the spans"):
            while len(it.spans) < 2:
                await asyncio.sleep(0.01)
    assert it.resource["service.name"] == "orders"


# The extra


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_opentelemetry_is_imported_only_if_configured() -> None:
    serving = "import sys, sidecar.cli.main, sidecar.app.server, sidecar.cli.check, sidecar.app.explain.explanation"
    assert python(f"{serving}; print('opentelemetry' in sys.modules)") == "False\n"


def test_tracing_without_the_extra_says_what_to_install() -> None:
    text = (
        "{issuers: {a: {issuer: 'https://a.test/', audiences: any}}, upstream: 'http://127.0.0.1:1', "
        "tracing: {endpoint: 'http://127.0.0.1:1/v1/traces'}}"
    )
    code = f"""
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
from sidecar.config import parse
from sidecar.app.server import CannotStart, build
try:
    build(parse({text!r}, environ={{}}))
except CannotStart as error:
    print(error)
"""
    assert python(code).startswith("tracing: needs OpenTelemetry; install the extra otel ")


async def test_several_lines_of_tracestate_are_joined() -> None:
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good(headers=[("traceparent", PARENT), ("tracestate", "a=1"), ("tracestate", "b=2")]))
        assert (await stack.backend.received()).get("tracestate") == "a=1,b=2"


async def test_a_span_has_an_unknown_method_as_sent() -> None:
    async with collector() as it, traced(it) as stack:
        await stack.fetch(stack.good("PROPFIND"))
    told = attributes(it.the(Span.SPAN_KIND_SERVER))
    assert (told["http.request.method"], told["http.request.method_original"]) == ("_OTHER", "PROPFIND")


async def test_a_client_that_leaves_is_the_error_client_left() -> None:
    async with collector() as it, traced(it, backend=RawBackend(never)) as stack:
        async with stack.client() as client:
            await client.send(stack.good())
            await stack.backend.received()
        async with patience("the request to end"):
            while stack.sidecar.live.resources.requests_in_flight:
                await asyncio.sleep(0.01)
    for kind in (Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT):
        assert attributes(it.the(kind))["error.type"] == "client_left"


async def test_a_hanging_collector_does_not_delay_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sidecar.observability.tracing.EXPORT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, and no program answers
        it = Collector(f"http://127.0.0.1:{silent.getsockname()[1]}/v1/traces")
        async with patience("the end"), traced(it) as stack:
            await stack.fetch(stack.good())
