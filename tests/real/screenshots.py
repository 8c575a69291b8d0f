"""The pictures of the admin page in docs/page: `make screenshots`. On a quiet quarter of an hour, and in an incident.

With a folder as its argument: there, of whole pages, at every width in light and dark.
"""

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Browser, Page, async_playwright

from tests.real.incident import Scene, scene

PAGE = Path(__file__).parents[2] / "docs" / "page"
WIDTHS = {360: 780, 768: 1024, 1440: 1360}
SCHEMES: tuple[Any, ...] = ("light", "dark")
SHOWN = {
    *(("idle", 768, "light"), ("idle", 1440, "dark"), ("idle", 360, "dark")),
    *(("incident", 1440, "light"), ("incident", 768, "dark"), ("incident", 360, "light")),
}
SECTIONS = ("Issuers", "Upstreams", "Routes", "Configuration", "Explain", "Refusals", "What is wrong")


async def look(browser: Browser, told: Scene, name: str, folder: Path | None) -> None:
    """A picture at each width, in light and dark."""
    host, port = told.stack.sidecar.admin_address
    for width, height in WIDTHS.items():
        for scheme in SCHEMES:
            if folder is None and (name, width, scheme) not in SHOWN:
                continue
            screen: Any = {"width": width, "height": height}
            page = await browser.new_page(viewport=screen, color_scheme=scheme, reduced_motion="reduce")
            await page.goto(f"http://{host}:{port}/")
            await page.locator("#refusals-chart rect").first.wait_for()
            await seen(page)
            if name == "incident":
                await page.get_by_role("button", name="Cause and cure of").first.click()
                await page.evaluate("scrollTo(0, 0)")
            file = (folder or PAGE) / f"{name}-{width}-{scheme}.png"
            await page.screenshot(path=file, full_page=folder is not None)
            await page.close()


async def seen(page: Page) -> None:
    """Every section has been in sight, and so has asked for what it shows."""
    for section in SECTIONS:
        await page.get_by_role("navigation").get_by_role("link", name=section, exact=True).click()
        await page.wait_for_timeout(400)
    await page.evaluate("scrollTo(0, 0)")


async def main(folder: Path | None) -> None:
    """Write the pictures."""
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=shutil.which("chromium")) as browser,
    ):
        for name in ("idle", "incident"):
            with tempfile.TemporaryDirectory() as place:
                async with scene(Path(place)) as told:
                    if name == "incident":
                        await told.partner_goes_down()
                        await told.go_on(12)
                        await told.deploy("orders-v2")
                    await told.go_on(12)
                    await look(browser, told, name, folder)
                    told.stack.secrets.errors.clear()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
