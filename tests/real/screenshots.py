"""The pictures of docs/operating.md: `make screenshots`. A sidecar with one good issuer and one that is down, under some load."""

import asyncio
import shutil
from contextlib import suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, async_playwright

from tests.peers.issuer import ScriptedIssuer
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 40.0  # of load before the first picture, so that the lines have something to show
ROUTES: list[dict[str, Any]] = [
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/orders/*", "mode": "report", "require": {"scopes": ["orders:write"]}},
]
DESK: Any = {"width": 1100, "height": 800}
PHONE: Any = {"width": 360, "height": 740}


async def load(stack: Stack, issuer: ScriptedIssuer) -> None:
    """Mostly good requests, and now and then one of each kind of refusal."""
    now = stack.clock.wall()
    good = request("GET", "/reports", token=issuer.token("EdDSA"))
    bad = cycle(
        [
            request("GET", "/reports/2026-11", token=issuer.token("EdDSA", exp=now - 900, iat=now - 4500)),
            request("POST", "/orders/1042", token=issuer.token("EdDSA", scope="orders:read")),
            request("GET", "/reports"),
            request("DELETE", "/admin/users/7", token=issuer.token("EdDSA", scope="read")),
            request("GET", "/reports", token=issuer.token("EdDSA", iss="http://127.0.0.1:9/")),
        ]
    )
    async with stack.client() as client:
        for number in range(1_000_000):
            await client.request(next(bad) if number % 60 == 0 else good)
            await asyncio.sleep(0.01 if number // 300 % 3 else 0.02)


async def pictures(browser: Browser, url: str, issuer: ScriptedIssuer, now: float) -> None:
    """Take them: the whole of it in light, the explanation in dark, and a phone."""
    page = await browser.new_page(viewport=DESK)
    await page.goto(url)
    await asyncio.sleep(SECONDS)
    await page.screenshot(path=DOCS / "page-light.png")
    await page.emulate_media(color_scheme="dark")
    await page.get_by_label("Token").fill(issuer.token("EdDSA", exp=now - 900, iat=now - 4500))
    await page.get_by_label("Path").fill("/reports/2026-11")
    await page.get_by_role("button", name="Explain", exact=True).click()
    await page.locator("#steps li").last.wait_for()
    await page.get_by_role("link", name="Explain").click()
    await page.screenshot(path=DOCS / "page-dark.png")
    await page.emulate_media(color_scheme="light")
    await page.set_viewport_size(PHONE)
    await page.get_by_role("link", name="Traffic").click()
    await page.screenshot(path=DOCS / "page-phone.png")


async def main() -> None:
    """Write the pictures."""
    chromium = shutil.which("chromium")
    async with ScriptedIssuer(algs=["EdDSA", "RS256"]) as issuer:
        issuers = {
            "zuplo": {"issuer": issuer.issuer, "audiences": [AUDIENCE]},
            "partner": {"issuer": "http://127.0.0.1:9/", "audiences": [AUDIENCE]},
        }
        async with (
            async_playwright() as playwright,
            await playwright.chromium.launch(executable_path=chromium) as browser,
            running(issuers=issuers, routes=ROUTES) as stack,
        ):
            loading = asyncio.create_task(load(stack, issuer))
            host, port = stack.sidecar.admin_address
            await pictures(browser, f"http://{host}:{port}/", issuer, stack.clock.wall())
            loading.cancel()
            with suppress(asyncio.CancelledError):
                await loading


if __name__ == "__main__":
    asyncio.run(main())
