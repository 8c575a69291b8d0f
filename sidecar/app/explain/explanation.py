"""`explain`: tells check by check what would happen to a request, and what the backend would get.

It decides nothing itself. The proxy's own code parses, matches and verifies the request, with a verifier that remembers no tokens
and records the checks. The result is for operators: it shows expected values and claims, but no secrets and no token.
"""

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from sidecar.app.builder.assembly import Assembly
from sidecar.app.explain.question import CannotExplain, Question
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import Reason, Rejection, Unusable
from sidecar.common.masking import without_tokens
from sidecar.config import Config
from sidecar.http.forwarded import Forwarded
from sidecar.http.grammar import ProtocolError
from sidecar.http.request_head import RequestHead, parse_request_head
from sidecar.jwt.claims import Claims
from sidecar.jwt.examination import Check, Examination, shown
from sidecar.jwt.jwks.shared_fetch import KeysAwaited
from sidecar.observability.telemetry import Telemetry
from sidecar.policy.identity_headers import ANONYMOUS
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.handler import Handler, check_head
from sidecar.proxy.resources import Resources

CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key"})
_HMAC = re.compile(r"v1=[0-9a-f]+")


class Step(NamedTuple):
    """One check and its result. `mark` is ok, FAIL, or note for information."""

    mark: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.mark:<6}{self.name:<11} {self.text}".rstrip()


class Explanation(NamedTuple):
    """The checks that began, and then the reason of the refusal, or the upstream and the head for it."""

    steps: list[Step]
    rejection: Rejection | None = None
    upstream: str = ""
    head: Sequence[str] = ()

    @property
    def lines(self) -> list[str]:
        """The explanation as lines of text."""
        checks = [str(step) for step in self.steps]
        if self.rejection is not None:
            return [*checks, f"rejected: {_said(self.rejection)}"]
        return [*checks, f"accepted: sent to {self.upstream} as", *(f"  {line}" for line in self.head)]

    def __str__(self) -> str:
        return "\n".join(self.lines)


async def explain_alone(config: Config, question: Question, clock: Clock) -> Explanation:
    """Explain with a new assembly and freshly fetched keys. Raises CannotExplain."""
    question.check()
    try:
        assembly = Assembly(config, clock, Deadlines(clock, tick_s=1.0), Resources(), Telemetry(clock))
    except Unusable as error:
        raise CannotExplain(str(error)) from error
    try:
        await assembly.denylist.load()
        if question.token is not None or question.headers:
            await asyncio.gather(*(source.fetch_now() for source in assembly.sources.values()))
        return await explain(assembly, question, clock)
    except Unusable as error:
        raise CannotExplain(str(error)) from error
    finally:
        await assembly.close()


async def explain(assembly: Assembly, question: Question, clock: Clock) -> Explanation:
    """Explain a request with an assembly."""
    steps: list[Step] = []
    handler = assembly.handler
    examination = Examination()
    try:
        head = _head(assembly, question)
        exchange = handler.exchange(head, Forwarded("127.0.0.1", "http", trusted=False))
        exchange.examination = examination
        path = shown(without_tokens(question.path))
        steps.append(Step("ok", "request", f"{question.method} {path}, Host {shown(question.host)}"))
        if (page := handler.pages.get(head.target.partition("?")[0])) is not None:
            return Explanation(steps, None, f"nobody: it is the sidecar's own page {page.route.name}, requested")
        if handler.cors is not None and exchange.is_preflight and handler.cors.preflight(head) is not None:
            return Explanation(
                steps, None, "nobody: it is a CORS preflight of an allowed origin, which the sidecar answers"
            )
        try:
            route = exchange.route = handler.routes.match(exchange.method, exchange.target, exchange.host)
        except Rejection as rejection:
            return Explanation([*steps, *_readings(handler, exchange), _failed("route", rejection)], rejection)
        steps += _readings(handler, exchange)
    except Rejection as rejection:
        return Explanation([_failed("request", rejection)], rejection)
    steps.append(Step("ok", "route", _about_route(assembly, route)))
    refusal: Rejection | None = None
    identity = b""
    try:
        identity = await _judged(handler, exchange, route)
    except Rejection as rejection:
        refusal = rejection
    steps += _checks(route, examination, exchange.claims, refusal, identity, clock.wall())
    if refusal is not None:
        try:
            if not route.report:
                raise refusal
            identity = handler.authentication.let_in(exchange, refusal)
        except Rejection:
            return Explanation(steps, refusal)
        steps.append(Step("note", "report", f"would be refused, and is accepted: {_said(refusal)}"))
    upstream = assembly.upstreams.get(route.upstream)
    if upstream is None:
        built, place = identity, "the backend by the front proxy"
    else:
        try:
            built = handler.request_head(exchange, route, identity, upstream)
        except Rejection as rejection:
            return Explanation([*steps, _failed("head", rejection)], rejection)
        place = f"{route.upstream} ({assembly.config.upstreams[route.upstream].url})"
    told = _masked(built.decode("latin-1"), question, exchange.claims).removesuffix("\r\n").split("\r\n")
    return Explanation(steps, None, place, told)


async def _judged(handler: Handler, exchange: Exchange, route: Route) -> bytes:
    """The identity headers; waits for keys if necessary. Raises Rejection."""
    try:
        return handler.authentication.judge(exchange, route)
    except KeysAwaited as keys:
        await keys.landed()
        return handler.authentication.judge(exchange, route, keys)


def _head(assembly: Assembly, question: Question) -> RequestHead:
    """The head of the request, as from a connection. Raises Rejection."""
    config = assembly.config
    raw = question.bytes_for(config)
    try:
        head = parse_request_head(
            raw, assembly.handler.header_policy, config.limits.header_bytes, config.limits.headers
        )
    except ProtocolError as error:
        raise Rejection(Reason.HEADERS_TOO_LARGE if error.too_large else Reason.REQUEST_MALFORMED) from None
    check_head(head)
    return head


def _readings(handler: Handler, exchange: Exchange) -> Iterator[Step]:
    """Each reading of the path with its rule, if there are several readings."""
    try:
        meanings = handler.routes.meanings(exchange.method, exchange.target, exchange.host)
    except Rejection:
        return
    if len(meanings) > 1:
        for reading, route in sorted(meanings.items()):
            yield Step("note", "reading", f"{shown(without_tokens(reading))} meets {route.name}")
    met = meanings[exchange.target.partition("?")[0]]
    for reading in sorted(meanings):
        alike = handler.routes.alike(exchange.method, reading, exchange.host, met)
        for form, route in sorted(alike.items()):
            yield Step("note", "reading", f"{shown(without_tokens(form))} meets {route.name} (backend_ignores)")


def _about_route(assembly: Assembly, route: Route) -> str:
    what = f"auth {route.auth.value}{', mode report' if route.report else ''}"
    rules = assembly.handler.routes.rules
    if route not in rules:
        return f"no rule names it: {what}"
    number = rules.index(route)
    return f"routes.{number} (line {assembly.config.routes[number].line}): {route.name}: {what}"


def _checks(
    route: Route,
    seen: Examination,
    claims: Claims | None,
    refusal: Rejection | None,
    identity: bytes,
    now: float,
) -> Iterator[Step]:
    """A step for each check of a token or key that began; a refusing check is the last."""
    if seen.token is not None:
        yield Step("ok", "token", f"{len(seen.token)} bytes")
        for check in seen.begun[:-1] if claims is None else seen.begun:
            yield Step("ok", check.name, check.found(seen, now))
        if claims is None:
            assert refusal is not None
            yield _refused(seen.begun[-1], refusal, seen, now)
    elif claims is not None:
        yield Step("ok", "api key", f"{claims.kid} of {shown(claims.claims['sub'])}")
    elif refusal is not None:
        names = {Auth.DENY: "auth", Auth.API_KEY: "api key"}
        yield _failed(names.get(route.auth, "token"), refusal)
    elif identity == ANONYMOUS:
        yield Step("ok", "token", "none is needed")
    if claims is None:
        return
    seen.claims = claims
    for check in route.policy.checks:
        try:
            check.judge(claims)
        except Rejection as rejection:
            yield _refused(check, rejection, seen, now)
            return
        yield Step("ok", check.name, check.found(seen, now))
    if refusal is not None:
        yield _failed("headers", refusal)


def _refused(check: Check, rejection: Rejection, seen: Examination, now: float) -> Step:
    return _failed(check.name, rejection, check.expected(seen), check.found(seen, now))


def _failed(name: str, rejection: Rejection, expected: str = "", found: str = "") -> Step:
    found = found or rejection.details or rejection.reason.error
    told = f"expected {expected}; found: {found}" if expected else found
    return Step("FAIL", name, f"{rejection.reason.code}: {told}")


def _said(rejection: Rejection) -> str:
    """The status, code and sentence of a refusal."""
    reason = rejection.reason
    return f"{reason.status} {reason.code}: {rejection.details or reason.error}"


def _masked(head: str, question: Question, claims: Claims | None) -> str:
    """The head for the backend, with the token, its payload and the sidecar's signatures masked."""
    if question.token:
        head = head.replace(question.token.decode("latin-1"), "***")
    for name, text in question.headers:
        if name.lower() in CREDENTIALS:
            head = head.replace(text, "***")
    if claims is not None:
        head = head.replace(
            claims.payload_segment.decode(), f"(base64url of the claims {', '.join(map(shown, claims.claims))})"
        )
    return _HMAC.sub("v1=***", without_tokens(head))
