"""OpenTelemetry traces: one SERVER and one CLIENT span for a request, by the semantic conventions for HTTP.

Imported only if tracing is configured; needs the extra `otel`. The service's name, its resource, the sampler and headers for the
collector come from OpenTelemetry's environment variables. No span holds a token, a query or an unverified claim.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import Thread
from typing import NamedTuple, Protocol

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from sidecar.common.clock import Clock
from sidecar.observability.record import Record
from sidecar.observability.telemetry import METHODS

MAX_METHOD = 64  # characters of an unknown method
EXPORT_S = 5.0  # the longest that one export may take, at the end too
CLIENT_LEFT = "client_left"
QUEUE = 2048  # spans that may wait for the collector; further ones are dropped, and no request waits

log = logging.getLogger("sidecar.tracing")


class Upstream(Protocol):
    """The backend: its name, and its address, (host, port) or the path of a unix socket."""

    name: str
    scheme: str
    authority: bytes
    address: tuple[str, int] | str


class Trace(NamedTuple):
    """The spans of a request. There is no client span if the request did not reach the backend."""

    server: trace.Span
    client: trace.Span | None


class Tracing:
    """Makes spans and exports them to a collector in the background."""

    def __init__(self, exporter: SpanExporter, clock: Clock) -> None:
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # _LoggingExporter logs it instead
        self._clock = clock
        resource = Resource.create()
        if str(resource.attributes["service.name"]).startswith("unknown_service"):  # no name is configured
            resource = resource.merge(Resource({"service.name": "jwt-sidecar"}))
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(_LoggingExporter(exporter), max_queue_size=QUEUE))
        self._tracer = self._provider.get_tracer("sidecar")
        self._context = TraceContextTextMapPropagator()

    def asked(self, request: Record, upstream: Upstream) -> bytes:
        """Begin both spans before the request goes to the backend; returns the trace context header lines for the client span."""
        server = self._server(request)
        context = trace.set_span_in_context(server)
        client = self._tracer.start_span(
            _method(request), context, SpanKind.CLIENT, _client_attributes(request, upstream), start_time=self._now_ns()
        )
        request.span_trace_id = _trace_id(server)
        request.spans = Trace(server, client)
        carrier: dict[str, str] = {}
        self._context.inject(carrier, trace.set_span_in_context(client))
        return "".join(f"{name}: {value}\r\n" for name, value in carrier.items()).encode()

    def ended(self, request: Record) -> None:
        """End the spans of a request that was answered or whose client left."""
        spans = request.spans
        if not isinstance(spans, Trace):
            spans = Trace(self._server(request), None)
            request.span_trace_id = _trace_id(spans.server)
        server, client = spans
        if client is not None:
            if request.answered:
                client.set_attribute("http.response.status_code", request.status)
            failed = request.rejected.code if request.rejected is not None and not request.reported else None
            if request.result == "left":
                failed = CLIENT_LEFT
            _conclude(client, failed, request.status, 400)
            client.end()
        if request.status:
            server.set_attribute("http.response.status_code", request.status)
        server.set_attribute("jwt_sidecar.result", request.result)
        if request.rejected is not None:
            server.set_attribute("jwt_sidecar.reason", request.rejected.code)
        if request.claims is not None:
            server.set_attribute("jwt_sidecar.issuer", request.claims.issuer)
        _conclude(
            server,
            CLIENT_LEFT
            if request.result == "left"
            else request.rejected.code
            if request.result == "error" and request.rejected
            else None,
            request.status,
            500,
        )
        server.end()

    async def close(self) -> None:
        """Export the remaining spans, within EXPORT_S."""
        loop, ended = asyncio.get_running_loop(), asyncio.Event()

        def shut_down() -> None:
            self._provider.shutdown()
            with suppress(RuntimeError):  # the caller no longer waits
                loop.call_soon_threadsafe(ended.set)

        Thread(
            target=shut_down, name="spans", daemon=True
        ).start()  # asyncio would wait at the end for a thread of its own
        with suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), EXPORT_S)

    def _server(self, request: Record) -> trace.Span:
        said = {"traceparent": request.traceparent, "tracestate": request.tracestate}
        carrier = {name: value.decode("latin-1") for name, value in said.items() if value is not None}
        started = self._now_ns() - int((self._clock.monotonic() - request.started) * 1e9)
        method = _method(request)
        route = None if request.route is None else request.route.name
        return self._tracer.start_span(
            method if route is None else f"{method} {route}",
            self._context.extract(carrier),
            SpanKind.SERVER,
            _server_attributes(request, route),
            start_time=started,
        )

    def _now_ns(self) -> int:
        return int(self._clock.wall() * 1e9)


def otlp(endpoint: str) -> SpanExporter:
    """An exporter of OTLP over HTTP to the URL of a collector."""
    return OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_S)


class _LoggingExporter(SpanExporter):
    """Logs once when spans are lost, and once when exports succeed again."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if (result is not SpanExportResult.SUCCESS) is not self._failing:
            self._failing = not self._failing
            if self._failing:
                log.warning(
                    "event=spans_lost do='Check the collector at tracing.endpoint; requests are served without spans.'"
                )
            else:
                log.info("event=spans_sent_again")
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def _trace_id(span: trace.Span) -> str:
    return trace.format_trace_id(span.get_span_context().trace_id)


def _method(request: Record) -> str:
    """The method for a span's name, `HTTP` for unknown ones, since clients can send any."""
    return request.method if request.method in METHODS else "HTTP"


def _server_attributes(request: Record, route: str | None) -> Mapping[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        **_request_method(request),
        "url.scheme": request.scheme,
        "url.path": request.path,
        "client.address": request.peer,
        "network.protocol.version": f"1.{request.minor}",
    }
    if route is not None:
        attributes["http.route"] = route
    if request.host:
        host, _, port = request.host_shown.rpartition(":")
        if port.isdigit():
            attributes |= {"server.address": host.strip("[]"), "server.port": int(port)}
        else:
            attributes["server.address"] = request.host_shown.strip("[]")
    return attributes


def _client_attributes(request: Record, upstream: Upstream) -> Mapping[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        **_request_method(request),
        "url.full": f"{upstream.scheme}://{upstream.authority.decode()}{request.path}",
        "network.protocol.version": "1.1",
        "jwt_sidecar.upstream": upstream.name,
    }
    if isinstance(upstream.address, str):
        attributes |= {"server.address": upstream.address, "network.transport": "unix"}
    else:
        attributes |= {"server.address": upstream.address[0], "server.port": upstream.address[1]}
    return attributes


def _request_method(request: Record) -> Mapping[str, AttributeValue]:
    if request.method in METHODS:
        return {"http.request.method": request.method}
    return {"http.request.method": "_OTHER", "http.request.method_original": request.method_shown[:MAX_METHOD]}


def _conclude(span: trace.Span, failed: str | None, status: int, errors_from: int) -> None:
    """Set `error.type` and the span's status if the request failed or its status is at least `errors_from`."""
    if failed is not None or status >= errors_from:
        span.set_attribute("error.type", failed or str(status))
        span.set_status(StatusCode.ERROR)
