"""The cost of an open admin page and of scrapes of the metrics.

    python -m tests.proofs.watched [--seconds 20]

500 routes, 50 issuers, 200 refusals a second. The cost is CPU time of the process (/proc/PID/stat) beyond what it takes for the
same traffic alone. The page is open in Chromium, with one of its sections in sight.
"""

import argparse
import asyncio
import itertools
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from tests.peers import tokens
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import Program, configuration, started
from tests.peers.raw import RawClient, fetch
from tests.peers.wire import request
from tests.proofs import subject, verdict

if TYPE_CHECKING:
    from playwright.async_api import Browser

ROUTES = 500
ISSUERS = 50
REFUSALS_A_SECOND = 200
SCRAPES = 20
MOST_MS_A_SECOND = 50.0  # of the page: a twentieth of a processor
SECTIONS = ("What is wrong", "Refusals", "Routes", "Issuers")
OPENMETRICS = ("Accept", "application/openmetrics-text; version=1.0.0")
GZIP = ("Accept-Encoding", "gzip")
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_ms(pid: int) -> float:
    """CPU time of a process so far."""
    stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(stat[11]) + int(stat[12])) * 1000 / TICKS


def token(issuer: int, **claims: Any) -> str:
    """A token of one of the issuers."""
    return tokens.token("EdDSA", iss=f"https://i{issuer}.test/", **claims)


@asynccontextmanager
async def subject_of_all(folder: Path) -> AsyncIterator[Program]:
    """A sidecar of many routes and issuers, each of which has had good and bad requests."""
    keys = {"keys": [tokens.public_jwk("EdDSA")]}
    issuers = {
        f"i{one}": {"issuer": f"https://i{one}.test/", "audiences": [tokens.AUDIENCE], "jwks_inline": keys}
        for one in range(ISSUERS)
    }
    routes = [{"path": f"/r{one}"} for one in range(ROUTES)]
    async with ScriptedIssuer(algs=["EdDSA"]) as own, RawBackend() as backend:
        settings = configuration(own, backend)
        settings |= {"issuers": settings["issuers"] | issuers, "routes": routes, "access_log": "off"}
        file = folder / "config.yaml"
        file.write_text(json.dumps(settings))  # JSON is YAML
        async with started(file, own, backend) as it:
            await meet(it)
            yield it


async def meet(it: Program) -> None:
    """Good and bad requests for every route."""
    async with RawClient.to(it.addresses["proxy"]) as client:
        for one in range(ROUTES):
            for method in ("GET", "POST", "PUT", "DELETE"):
                await client.request(request(method, f"/r{one}", token=token(one % ISSUERS)))
                await client.request(request(method, f"/r{one}", token=token(one % ISSUERS, aud="another")))
            await client.request(request("GET", f"/r{one}"))
    it.backend.requests.clear()


@asynccontextmanager
async def refused(it: Program) -> AsyncIterator[None]:
    """Refusals during the block."""
    bad = [
        request("GET", f"/r{one}", token=token(one % ISSUERS, aud="another")) if one % 2 else request("GET", f"/r{one}")
        for one in range(ROUTES)
    ]

    async def ask() -> None:
        async with RawClient.to(it.addresses["proxy"]) as client:
            due = time.perf_counter()
            for raw in itertools.cycle(bad):
                await client.request(raw)
                due += 1 / REFUSALS_A_SECOND
                await asyncio.sleep(due - time.perf_counter())

    task = asyncio.create_task(ask())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait({task})


async def spent_ms(it: Program, seconds: float) -> float:
    """CPU time of a second, as the mean of several."""
    before = cpu_ms(it.process.pid)
    await asyncio.sleep(seconds)
    return (cpu_ms(it.process.pid) - before) / seconds


async def page(browser: "Browser", it: Program, seconds: float) -> int:
    """Print the cost of each section. Return the number of too expensive ones."""
    host, port = it.addresses["admin"]
    alone = await spent_ms(it, seconds)
    print(f"{REFUSALS_A_SECOND} refusals a second, the page closed: {alone:.0f} ms of CPU a second", flush=True)
    failures = 0
    for section in SECTIONS:
        opened = await browser.new_page(viewport={"width": 1440, "height": 900})
        await opened.goto(f"http://{host}:{port}/")
        await opened.get_by_role("navigation").get_by_role("link", name=section, exact=True).click()
        await asyncio.sleep(2.0)
        more = await spent_ms(it, seconds) - alone
        print(f"the page open at {section}: {more:+.0f} ms of CPU a second", flush=True)
        failures += more > MOST_MS_A_SECOND
        await opened.close()
    return failures


async def scrapes(it: Program) -> None:
    """Print the cost of a scrape, and the longest wait of another client during it."""
    good = request("GET", "/r1", token=token(1))
    for name, headers in (("text", []), ("OpenMetrics", [OPENMETRICS]), ("OpenMetrics, gzip", [OPENMETRICS, GZIP])):
        worst, size = [], 0
        before = cpu_ms(it.process.pid)
        async with RawClient.to(it.addresses["proxy"]) as client:
            for _ in range(SCRAPES):
                scrape = asyncio.create_task(fetch(it.addresses["health"], request("GET", "/metrics", headers=headers)))
                waited = []
                while not scrape.done():
                    began = time.perf_counter()
                    await client.request(good)
                    waited.append(time.perf_counter() - began)
                    await asyncio.sleep(0.002)
                worst.append(max(waited) * 1000)
                size = len((await scrape).body)
        cost = (cpu_ms(it.process.pid) - before) / SCRAPES
        print(
            f"a scrape ({name}): {size >> 10} KiB, {cost:.0f} ms of CPU, a client waits {median(worst):.0f} ms",
            flush=True,
        )


async def show(seconds: float) -> int:
    """Print everything. Return the number of failures."""
    from playwright.async_api import async_playwright

    with tempfile.TemporaryDirectory() as folder:
        async with (
            subject_of_all(Path(folder)) as it,
            async_playwright() as playwright,
            await playwright.chromium.launch(executable_path=shutil.which("chromium")) as browser,
        ):
            await scrapes(it)
            async with refused(it):
                return await page(browser, it, seconds)


def main() -> int:
    """0: the page costs little."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each measurement (default: %(default)s)")
    options = parser.parse_args()
    print(subject(), flush=True)
    return verdict(asyncio.run(show(options.seconds)))


if __name__ == "__main__":
    sys.exit(main())
