"""Heads as bytes, parsed with the cache of lines empty and full."""

from collections.abc import Callable, Iterable
from typing import Any

from sidecar.http.grammar import ProtocolError
from sidecar.http.header_policy import HOP_BY_HOP, RequestHeaderPolicy, ResponseHeaderPolicy
from sidecar.http.request_head import RequestHead, parse_request_head
from sidecar.http.response_head import ResponseHead, parse_response_head

LINE_BYTES, HEADERS = 32_768, 128


def policy(*own: str, **more: Any) -> RequestHeaderPolicy:
    """The policy of a sidecar which sets these headers itself."""
    return RequestHeaderPolicy(HOP_BY_HOP | set(own), **more)


def head(*lines: str | bytes) -> bytes:
    """These lines, each with its line end, and the empty line after them."""
    return b"".join((line.encode("latin-1") if isinstance(line, str) else line) + b"\r\n" for line in (*lines, ""))


def read(*lines: str | bytes, first: str = "POST / HTTP/1.1", **more: Any) -> RequestHead:
    """A request with these header lines, and a Host."""
    return parse_request_head(head(first, "Host: sidecar.test", *lines), policy(**more), LINE_BYTES, HEADERS)


def answered(*lines: str | bytes, first: str | bytes = "HTTP/1.1 200 OK") -> ResponseHead:
    """An answer with these header lines."""
    return parse_response_head(head(first, *lines), ResponseHeaderPolicy(), HEADERS)


def attributes(head: RequestHead | ResponseHead) -> Iterable[str]:
    """The names of a head's attributes. A compiled class has no slots."""
    kind: Any = type(head)
    names: Iterable[str] = getattr(kind, "__slots__", None) or kind.__mypyc_attrs__
    return names


def facts(parse: Callable[[], RequestHead | ResponseHead]) -> dict[str, object] | str:
    """Every attribute of the head, or the sentence of the refusal."""
    try:
        found = parse()
    except ProtocolError as error:
        return error.rule
    return {name: getattr(found, name) for name in attributes(found)}
