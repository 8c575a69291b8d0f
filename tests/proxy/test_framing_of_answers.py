"""Refused answers of a backend name the broken rule; relayed ones end at their stated length."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.peers.backend import RawBackend, Request, send
from tests.peers.raw import Response, fetch
from tests.peers.tls import authority, server_tls
from tests.peers.wire import Truncated, chunked, request, response
from tests.proxy.conftest import Stack, ok, running

ON_EVERY_LOOP = True

OK = "HTTP/1.1 200 OK\n"
INVALID = {
    "two Transfer-Encoding": (
        f"{OK}Transfer-Encoding: chunked\nTransfer-Encoding: chunked\n\n0\n\n",
        "Transfer-Encoding",
    ),
    "gzip, chunked": (f"{OK}Transfer-Encoding: gzip, chunked\n\n0\n\n", "Transfer-Encoding"),
    "Transfer-Encoding in HTTP/1.0": ("HTTP/1.0 200 OK\nTransfer-Encoding: chunked\n\n0\n\n", "Transfer-Encoding"),
    "both framings": (
        f"{OK}Content-Length: 5\nTransfer-Encoding: chunked\n\n0\n\n",
        "Content-Length|Transfer-Encoding",
    ),
    "two Content-Length": (f"{OK}Content-Length: 5\nContent-Length: 4\n\nhello", "Content-Length"),
    "two equal Content-Length": (f"{OK}Content-Length: 5\nContent-Length: 5\n\nhello", "Content-Length"),
    "a length of 19 digits": (f"{OK}Content-Length: 1000000000000000000\n\n", "Content-Length"),
    "a length with a sign": (f"{OK}Content-Length: +5\n\nhello", "Content-Length"),
    "a space before a colon": (f"{OK}X-A : b\nContent-Length: 0\n\n", "colon|name"),
    "a folded line": (f"{OK}X-A: b\n c\nContent-Length: 0\n\n", "fold|line"),
    "a control character": (f"{OK}X-A: b\x01c\nContent-Length: 0\n\n", "character|control"),
    "status 099": ("HTTP/1.1 099 Odd\nContent-Length: 0\n\n", "status"),
    "HTTP/2.0": ("HTTP/2.0 200 OK\nContent-Length: 0\n\n", "HTTP/1|version"),
    "not HTTP": ("hello\n\n", "HTTP/1|status line|version"),
    "129 headers": (OK + "".join(f"X-{n}: b\n" for n in range(128)) + "Content-Length: 0\n\n", "128"),
    "a header of 66,000 bytes": (f"{OK}X-A: {'b' * 66_000}\nContent-Length: 0\n\n", "65,?536|64 KiB"),
    "a 101 without a request to upgrade": (
        "HTTP/1.1 101 Switching Protocols\nConnection: Upgrade\nUpgrade: x\n\n",
        "101|upgrade|protocol",
    ),
}
every = pytest.mark.parametrize(("raw", "rule"), INVALID.values(), ids=INVALID)


def says(raw: str) -> Any:
    return send(raw.replace("\n", "\r\n").encode("latin-1"))


async def rejections(stack: Stack) -> list[dict[str, Any]]:
    answer = await fetch(stack.sidecar.admin_address, request("GET", "/rejections", host="localhost"))
    found: list[dict[str, Any]] = answer.json()["rejections"]
    return found


@every
async def test_an_invalid_answer_is_a_502_and_operators_see_the_broken_rule(stack: Stack, raw: str, rule: str) -> None:
    stack.backend.handler = says(raw)
    answer = await stack.fetch(stack.good("GET", "/x"))
    assert (answer.status, answer.json()["code"]) == (502, "upstream_invalid")
    await stack.backend.disconnected()
    [kept] = await rejections(stack)
    assert kept["request_id"] == answer.json()["request_id"]
    assert re.search(rule, told(kept), re.IGNORECASE), kept


def told(kept: dict[str, Any]) -> str:
    """The part of a refusal that its code does not determine."""
    common = {"time", "request_id", "method", "path", "route", "mode", "status", "code", "error", "issuer", "peer"}
    return str({name: value for name, value in kept.items() if name not in common})


@every
async def test_full_detail_names_the_broken_rule_to_clients(raw: str, rule: str) -> None:
    async with running(error_detail="full") as stack:
        stack.backend.handler = says(raw)
        answer = await stack.fetch(stack.good("GET", "/x"))
        assert (answer.status, answer.json()["code"]) == (502, "upstream_invalid")
        assert re.search(rule, str(unique(answer)), re.IGNORECASE), answer.json()


@every
async def test_other_details_do_not_name_the_broken_rule(stack: Stack, raw: str, rule: str) -> None:
    """A client without full detail cannot distinguish refused answers."""
    stack.backend.handler = says(raw)
    answer = await stack.fetch(stack.good("GET", "/x"))
    assert answer.status == 502
    stack.backend.handler = send(b"hello\r\n\r\n")
    general = await stack.fetch(stack.good("GET", "/x"))
    assert unique(answer) == unique(general)


def unique(answer: Response) -> dict[str, Any]:
    """An answer without its own id and date."""
    said: dict[str, Any] = answer.json()
    del said["request_id"]
    return said


@pytest.mark.parametrize("length", ["", "Content-Length: 5\n"], ids=["no length", "a length"])
async def test_a_204_with_a_body_is_refused_or_relayed_without_it(stack: Stack, length: str) -> None:
    stack.backend.handler = says(f"HTTP/1.1 204 No Content\n{length}\nhello")
    async with stack.client() as client:
        answer = await client.request(stack.good("GET", "/x"))
        assert answer.status == 502 or (answer.status, answer.get("content-length"), answer.body) == (204, None, b"")
        await stack.backend.disconnected()
        stack.backend.handler = ok
        if answer.get("connection") != "close":
            assert (await client.request(stack.good("GET", "/y"))).body == b'{"ok":true}'


@pytest.mark.parametrize(
    ("limits", "headers", "status"),
    [
        ({}, [("X-A", "b")] * 127, 200),
        ({}, [("X-A", "b" * 60_000)], 200),
        ({}, [("X-A", "b" * 40_000)] * 2, 502),
        ({"upstream_headers": 4}, [("X-A", "b")] * 3, 200),
        ({"upstream_headers": 4}, [("X-A", "b")] * 4, 502),
        ({"upstream_header_bytes": 1000}, [("X-A", "b" * 800)], 200),
        ({"upstream_header_bytes": 1000}, [("X-A", "b" * 1000)], 502),
        ({"upstream_header_bytes": 200_000, "upstream_headers": 1000}, [("X-A", "b" * 200)] * 700, 200),
    ],
)
async def test_the_limits_of_an_answers_head_are_configurable(
    limits: dict[str, int], headers: list[tuple[str, str]], status: int
) -> None:
    async with running(limits=limits or None) as stack:
        stack.backend.handler = send(response(200, b"", headers))
        assert (await stack.fetch(stack.good())).status == status


# The end of an answer


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
@pytest.mark.parametrize("ends_well", [True, False])
async def test_an_answer_until_close_over_tls_needs_a_close_notify(
    tmp_path: Path, version: str, ends_well: bool
) -> None:
    """RFC 9112 section 9.8: an attacker can forge a TCP end."""

    async def handler(_request: Request, writer: Any) -> None:
        writer.write(response(200, b"hello", sized=False))
        await writer.drain()
        if ends_well:
            writer.close()
        else:
            await stack.health("/livez")  # by then the bytes have been sent
            writer.transport.abort()

    (tmp_path / "ca.crt").write_bytes(authority().cert_pem.bytes())
    async with RawBackend(handler, tls=server_tls()) as backend:
        url = f"https://127.0.0.1:{backend.address[1]}"
        upstreams = {"default": {"url": url, "tls": {"ca_file": str(tmp_path / "ca.crt")}}}
        async with running(upstream=None, upstreams=upstreams) as stack, stack.client() as client:
            await client.send(stack.good().replace(b"HTTP/1.1", version.encode()))
            if ends_well:
                assert (await client.response()).body == b"hello"
            elif version == "HTTP/1.0":  # only a reset shows it
                with pytest.raises(ConnectionError):
                    await client.reader.read()
            else:
                with pytest.raises(Truncated):
                    await client.response()


@pytest.mark.parametrize("te", [[], [("TE", "trailers"), ("Connection", "TE")]], ids=["plain", "TE: trailers"])
async def test_trailers_of_an_answer_are_dropped(te: list[tuple[str, str]]) -> None:
    raw = response(200, chunks=[b"hello"], trailers=[("Digest", "x"), ("X-JWT-Sub", "bob")])
    async with running(backend=RawBackend(send(raw))) as stack, stack.client() as client:
        for _ in range(2):
            answer = await client.request(stack.good(headers=te))
            assert (answer.body, answer.trailers) == (b"hello", [])
        assert stack.backend.connections == 1


TRAILERS = {
    "97 large": [("X-A", "x" * 32_000)] * 97,
    "many small": [(f"X-{number}", "x") for number in range(20_000)],
}


@pytest.mark.parametrize("trailers", TRAILERS.values(), ids=TRAILERS)
async def test_trailers_of_an_answer_have_the_limit_of_its_head(trailers: list[tuple[str, str]]) -> None:
    """The body has been sent by then, so the connection must be reset."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with (
        running(backend=RawBackend(send(head + chunked([b"hello"], trailers)))) as stack,
        stack.client() as client,
    ):
        await client.send(stack.good())
        try:
            answer = await client.response()
        except Truncated:
            pass
        else:
            assert answer.status == 502
        await stack.backend.disconnected()
        stack.backend.handler = ok
        assert (await stack.fetch(stack.good())).status == 200
