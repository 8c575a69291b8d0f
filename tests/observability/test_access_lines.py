"""The lines of the access log: the user, which requests have a line, and requests that ended early."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.peers import patience
from tests.peers.backend import RawBackend, never
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

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
