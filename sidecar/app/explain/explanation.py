"""`explain`: what would happen to a request, check by check, and what the upstream would get.

Nothing is decided here. The request is read, matched and judged by the proxy's own methods, with a verifier that has no token
remembered and keeps how far this one came; what is here only tells of it. It is told to operators: expected values and claims
are shown as far as they matter, of secrets and of the token itself nothing.
"""

import asyncio
import json
import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

from sidecar.app.builder.assembly import Assembly
from sidecar.app.explain.words import about_policy, about_token
from sidecar.common.clock import Clock
from sidecar.common.deadlines import Deadlines
from sidecar.common.errors import Reason, Rejection, Unusable
from sidecar.common.masking import without_tokens
from sidecar.config import Config
from sidecar.config.identity import TokenSource
from sidecar.gateway.api_keys import LIKE_A_KEY
from sidecar.http.forwarded import Forwarded
from sidecar.http.grammar import ProtocolError
from sidecar.http.request_head import RequestHead, parse_request_head
from sidecar.jwt.claims import Claims
from sidecar.jwt.examination import Examination, Words, shown
from sidecar.jwt.jwks.cache import KeysAwaited
from sidecar.jwt.verifier import Verifier
from sidecar.observability.telemetry import Telemetry
from sidecar.policy.identity_headers import ANONYMOUS
from sidecar.policy.routes import Auth, Route
from sidecar.proxy.exchange import Exchange
from sidecar.proxy.handler import Handler, check_head
from sidecar.proxy.resources import Resources

CREDENTIALS = frozenset({"authorization", "cookie", "x-api-key"})
_HMAC = re.compile(r"v1=[0-9a-f]+")


class CannotExplain(Exception):
    """There is nothing that could be told; the text says why."""


class Question(NamedTuple):
    """A request to be explained. `token` None: it brings none, unless one is among the `headers`."""

    method: str
    path: str
    token: bytes | None
    host: str = "localhost"
    headers: tuple[tuple[str, str], ...] = ()

    def check(self) -> None:
        """Could a client send it? Raises CannotExplain."""
        token = b"" if self.token is None else self.token
        for name, text in (("method", self.method), ("path", self.path), ("host", self.host)):
            if not text or re.search(r"[\x00-\x20\x7f]", text):
                raise CannotExplain(f"the {name} must not be empty, and hold no blanks and control characters")
        for name, text in self.headers:
            if re.search(r"[\x00-\x1f\x7f]", name + text):
                raise CannotExplain(f"the header {shown(name)} must be one line of text")
        if re.search(rb"[\x00-\x1f\x7f]", token):
            raise CannotExplain("the token is more than one line of text")


class Step(NamedTuple):
    """One check and what it found. `mark` is ok, FAIL, or note for what only a reader minds."""

    mark: str
    name: str
    text: str

    def __str__(self) -> str:
        return f"{self.mark:<6}{self.name:<11} {self.text}".rstrip()


class Explanation(NamedTuple):
    """The checks as far as they went, and then why the request would be refused, or where it would go with which head."""

    steps: list[Step]
    rejection: Rejection | None = None
    upstream: str = ""
    head: Sequence[str] = ()

    @property
    def lines(self) -> list[str]:
        """All of it as text, line by line."""
        checks = [str(step) for step in self.steps]
        if self.rejection is not None:
            return [*checks, f"rejected: {_said(self.rejection)}"]
        return [*checks, f"accepted: sent to {self.upstream} as", *(f"  {line}" for line in self.head)]

    def __str__(self) -> str:
        return "\n".join(self.lines)


async def explain_alone(config: Config, question: Question, clock: Clock) -> Explanation:
    """Explain with everything made and fetched for this one question. Raises CannotExplain."""
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
    """What the proxy of an assembly would do with a request."""
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
            return Explanation(steps, None, f"nobody: it is a page of our own, {page.route.name}, asked for")
        if handler.cors is not None and exchange.is_preflight and handler.cors.preflight(head) is not None:
            return Explanation(steps, None, "nobody: it is a CORS preflight of an allowed origin, answered here")
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
    steps += _checks(route, handler.verifier, examination, exchange.claims, refusal, identity, clock.wall())
    if refusal is not None:
        try:
            if not route.report:
                raise refusal
            identity = handler.let_in(exchange, refusal)
        except Rejection:
            return Explanation(steps, refusal)
        steps.append(Step("note", "report", f"would be refused, and is let in: {_said(refusal)}"))
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
    """The identity headers, also where their keys have to be waited for. Raises Rejection."""
    try:
        return handler.judge(exchange, route)
    except KeysAwaited as keys:
        await keys.landed()
        return handler.judge(exchange, route, keys)


def _head(assembly: Assembly, question: Question) -> RequestHead:
    """The request as a connection would hand it over. Raises Rejection."""
    config = assembly.config
    raw = _bytes_of(config, question)
    try:
        head = parse_request_head(
            raw, assembly.handler.header_policy, config.limits.header_bytes, config.limits.headers
        )
    except ProtocolError as error:
        raise Rejection(Reason.HEADERS_TOO_LARGE if error.too_large else Reason.REQUEST_MALFORMED) from None
    check_head(head)
    return head


def _bytes_of(config: Config, question: Question) -> bytes:
    """The request on the wire, its token in the first place where the configuration looks for one; an API key in its own."""
    target = question.path.encode("utf-8", "surrogateescape")
    lines = [b"Host: " + question.host.encode()]
    lines += [f"{name}: {text}".encode() for name, text in question.headers]
    if (token := question.token) is not None:
        place, keys = config.token_sources[0], config.api_keys
        if keys is not None and LIKE_A_KEY.fullmatch(token) is not None:
            place = TokenSource(header=keys.header, prefix=keys.scheme)
        if place.header is not None:
            scheme = place.scheme.encode() + b" " if place.scheme else b""
            lines.append(b"%b: %b%b" % (place.header.encode(), scheme, token))
        elif place.cookie is not None:
            if place.json_member is not None:
                document = json.dumps({place.json_member: token.decode("latin-1")})
                token = quote(document).encode()
            lines.append(b"Cookie: %b=%b" % (place.cookie.replace("*", "x").encode(), token))
        elif place.subprotocol is not None:
            lines.append(b"Sec-WebSocket-Protocol: %b, %b" % (place.subprotocol.encode(), token))
        elif place.query is not None:
            target += b"%b%b=%b" % (b"&" if b"?" in target else b"?", place.query.encode(), token)
    return b"%b %b HTTP/1.1\r\n%b\r\n\r\n" % (question.method.encode(), target, b"\r\n".join(lines))


def _readings(handler: Handler, exchange: Exchange) -> Iterator[Step]:
    """Each way to read the path and the rule that it meets, where there is more than one way."""
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
    verifier: Verifier,
    examination: Examination,
    claims: Claims | None,
    refusal: Rejection | None,
    identity: bytes,
    now: float,
) -> Iterator[Step]:
    """A step for each check of a token or key that began; where one refused, it is the last."""
    if examination.token is not None:
        yield Step("ok", "token", f"{len(examination.token)} bytes")
        begun = examination.begun
        for name in begun[:-1] if claims is None else begun:
            yield Step("ok", name, about_token(name, examination, verifier, now).found)
        if claims is None:
            assert refusal is not None
            yield _failed(begun[-1], refusal, about_token(begun[-1], examination, verifier, now))
    elif claims is not None:
        yield Step("ok", "api key", f"{claims.kid} of {shown(claims.claims['sub'])}")
    elif refusal is not None:
        names = {Auth.DENY: "auth", Auth.API_KEY: "api key"}
        yield _failed(names.get(route.auth, "token"), refusal)
    elif identity == ANONYMOUS:
        yield Step("ok", "token", "none is needed")
    if claims is None:
        return
    for name, check in route.policy.checks:
        words = about_policy(name, route.policy, claims)
        try:
            check(claims)
        except Rejection as rejection:
            yield _failed(name, rejection, words)
            return
        yield Step("ok", name, words.found)
    if refusal is not None:
        yield _failed("headers", refusal)


def _failed(name: str, rejection: Rejection, words: Words | None = None) -> Step:
    words = words or Words("", "")
    found = words.found or rejection.details or rejection.reason.error
    told = f"expected {words.expected}; found: {found}" if words.expected else found
    return Step("FAIL", name, f"{rejection.reason.code}: {told}")


def _said(rejection: Rejection) -> str:
    """Status, code and sentence of the answer."""
    reason = rejection.reason
    return f"{reason.status} {reason.code}: {rejection.details or reason.error}"


def _masked(head: str, question: Question, claims: Claims | None) -> str:
    """The head for the upstream without the token, without its payload and without our own signatures."""
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
