"""The page of the admin listener in a real Chromium: what it shows, by mouse and by keyboard, on a phone, in light and dark."""

import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from tests.conftest import Need
from tests.peers import patience
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES: list[dict[str, Any]] = [
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/trial/*", "mode": "report"},
]
MARKUP = "<img/src=x/onerror=document.title=1>"
CONTRAST = """() => {
  const channels = (color) => color.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], ground) => [r, g, b].map((c, at) => c * a + ground[at] * (1 - a));
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const srgb = (color) => {
    const context = new OffscreenCanvas(1, 1).getContext("2d");
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const ground = (element) => {
    if (!element) return [255, 255, 255];
    const color = srgb(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color.slice(0, 3) : over(color, ground(element.parentElement));
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!own || !element.checkVisibility()) continue;
    const behind = ground(element);
    const [a, b] = [light(over(srgb(getComputedStyle(element).color), behind)), light(behind)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${element.tagName} ${element.textContent.trim()}: ${ratio.toFixed(2)}`);
  }
  return poor;
}"""


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(need: Need) -> "AsyncIterator[Browser]":
    """Chromium, without a window."""
    chromium = need("chromium")
    driver = Path(sys.executable).with_name("playwright")
    need(str(driver), "install tests/real/browser/requirements.txt to run this test")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium)
        yield browser
        await browser.close()


@asynccontextmanager
async def looking(browser: "Browser", stack: Stack, *, ending: str = "", **options: Any) -> "AsyncIterator[Page]":
    """The page, loaded and alive. At the end nothing may have been complained of, nor asked of anybody else."""
    host, port = stack.sidecar.admin_address
    origin = f"http://{host}:{port}/"
    async with await browser.new_context(**options) as context:
        page = await context.new_page()
        page.set_default_timeout(10_000)
        complaints: list[str] = []
        asked: set[str] = set()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: asked.add(request.url))
        await page.goto(origin)
        await page.get_by_text("serving", exact=True).wait_for()
        yield page
        assert await page.title() == "jwt-sidecar"
        assert [url for url in asked if not url.startswith(origin)] == []
        assert not any("eyJ" in url for url in asked)
        assert await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert [text for text in complaints if not ending or not text.endswith(ending)] == []


async def shown(page: "Page", selector: str, pattern: str) -> str:
    """Return the text of an element as soon as it fits."""
    found = page.locator(selector).filter(has_text=re.compile(pattern))
    return (await found.first.inner_text()).strip()


async def test_the_issuers_with_their_keys_and_what_is_wrong_with_them(browser: "Browser") -> None:
    async with ScriptedIssuer(algs=["EdDSA", "ES256"], date_offset_s=-45) as issuer:
        issuer.keys[1]["kid"] = "p\u202e256"
        trusted = {
            "main": {"issuer": issuer.issuer, "audiences": [AUDIENCE]},
            "down": {"issuer": "http://127.0.0.1:9/", "audiences": [AUDIENCE]},
        }
        async with running(issuers=trusted) as stack:
            await stack.fetch(request("GET", "/", token=issuer.token("EdDSA")))
            async with looking(browser, stack, ending="status of 502 (Bad Gateway)") as page:
                main, down = await page.locator(".card").all()
                text = re.sub(r"\s+", " ", await main.inner_text())
                assert "ed25519-a OKP EdDSA" in text
                assert r"p\u202e256 EC ES256" in text
                assert re.search(
                    r"Age \d s .*Next refresh in \d+ min .*Clock offset 4\d s behind .*1 good, 0 failed", text
                )
                assert await down.locator(".badge").inner_text() == "no usable keys"
                error = "Last fetch failed: http://127.0.0.1:9/.well-known/openid-configuration: no connection"
                assert await down.locator(".error").inner_text() == error

                elsewhere = {"issuer": issuer.issuer, "jwks_uri": "http://127.0.0.1:9/\u202e"}
                issuer.on_discovery = Answer.json(elsewhere)
                await page.get_by_role("button", name="Refresh keys of main").click()
                await shown(page, ".card [data-is=result]", "^failed$")
                await shown(page, ".card .badge", "^stale$")
                assert r"http://127.0.0.1:9/\u202e: no connection" in await main.locator(".error").inner_text()
                issuer.on_discovery = None
                await page.get_by_role("button", name="Refresh keys of main").click()
                await shown(page, ".card [data-is=result]", "^asked a moment ago, again in [23]\\d s$")

                issuer.rotate()
                stack.sidecar.assembly.sources["main"].refresh(force=True)
                await shown(page, ".card .keys", "ed25519-b")
                await shown(page, ".card .badge", "^fresh$")


async def test_rates_latencies_and_reasons_move(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        assert await page.locator("#p50").inner_text() == "\u2013"
        assert await page.locator("#reasons").is_hidden()
        for number in range(60):
            await stack.fetch(stack.good() if number % 3 else request("GET", "/trial/x" if number % 2 else "/x"))
        rate = float(await shown(page, "#requests", r"^[1-9][\d.]*$"))
        refused = float(await shown(page, "#refused", r"^[1-9][\d.]*$"))
        assert 0 < refused < rate <= 60
        assert re.fullmatch(r"(< )?[\d.]+ ms", await page.locator("#p50").inner_text())
        assert (await shown(page, "#total", "60")) == "60"
        rows = [re.split(r"\s+", row.strip()) for row in await page.locator("#reasons tbody tr").all_inner_texts()]
        assert sorted(rows) == [["token_missing", "10", "10"], ["token_missing", "let", "in", "10", "10"]]
        assert "," in (await page.locator("#requests-line").get_attribute("points") or "")


async def test_a_refusal_appears_while_one_looks_and_what_clients_chose_is_only_text(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        assert await page.get_by_text("Nothing has been refused since the start.").is_visible()
        await stack.fetch(request("GET", f"/{MARKUP}?secret", headers=[("X-Request-Id", "id-1")]))
        item = page.locator(".refusals li").first
        await item.wait_for()
        assert MARKUP in await item.locator("summary").inner_text()
        await stack.fetch(request("GET", "/trial/x", headers=[("X-Request-Id", "id-2")]))
        await stack.fetch(request("POST", "/orders/%E2%80%AE1", token=stack.token(exp=1)))
        await shown(page, ".refusals li:first-child", "token_expired")
        texts = [
            re.sub(r"\s+", " ", text).strip() for text in await page.locator(".refusals summary").all_inner_texts()
        ]
        assert [text.partition(" ")[2] for text in texts] == [
            "token_expired POST /orders/%E2%80%AE1 401",
            "token_missing GET /trial/x let in, 200",
            f"token_missing GET /{MARKUP} 401",
        ]
        await page.locator(".refusals summary").first.click()
        assert await page.get_by_text(re.compile(r"^The token expired \d+ d ago\.$")).is_visible()

        await page.get_by_label("Filter").fill("ID-2")
        assert await page.locator(".refusals li:visible").count() == 1
        await page.get_by_label("Filter").fill("nothing like it")
        assert await page.get_by_text("No refusal among the last fits the filter.").is_visible()
        await stack.fetch(request("GET", "/late"))
        await page.locator(".refusals li").filter(has_text="/late").wait_for(state="attached")
        assert await page.locator(".refusals li:visible").count() == 0
        assert await page.locator("img").count() == 1, "the icon"


async def test_a_pasted_token_is_explained_and_not_kept(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await page.get_by_label("Token").fill(f"Authorization: Bearer {stack.alice[:40]}\n  {stack.alice[40:]}\n")
        await page.get_by_label("Path").fill("/admin/x")
        await page.get_by_role("button", name="Explain", exact=True).click()
        verdict = await shown(page, "#verdict", "^Refused")
        assert verdict == "Refused: 403 scope_insufficient. The token lacks a scope this needs."
        last = page.locator("#steps li").last
        assert re.sub(r"\s+", " ", await last.inner_text()).startswith(
            "✗ scopes scope_insufficient: expected all of: admin"
        )
        assert await last.get_by_role("img", name="failed").is_visible()

        await page.get_by_label("Path").fill("/x")
        await page.get_by_role("button", name="Explain", exact=True).click()
        await shown(page, "#verdict", "^Accepted: it is sent to default ")
        head = await page.locator("#head").inner_text()
        assert head.startswith("GET /x HTTP/1.1\nHost: localhost\n")
        assert "X-JWT-Sub: alice" in head
        stack.secrets.told(await page.locator("#answer").inner_text())

        await page.get_by_label("Path").fill("/ x")
        await page.get_by_role("button", name="Explain", exact=True).click()
        assert await page.locator("#path:invalid").count() == 1

        await page.get_by_role("button", name="Clear").click()
        assert await page.get_by_label("Token").input_value() == ""
        assert page.url.endswith(f":{stack.sidecar.admin_address[1]}/")

        await page.get_by_label("Token").fill(stack.alice)
        await page.goto("about:blank")
        await page.go_back()
        assert await page.get_by_label("Token").input_value() == ""


async def test_everything_is_reached_by_keyboard_in_order_with_a_focus_that_is_seen(browser: "Browser") -> None:
    focused = """() => {
      const { tagName, id, textContent } = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return [id || textContent.trim().split(/\\s+/).slice(0, 2).join(" "), `${outlineStyle} ${outlineWidth}`];
    }"""
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await stack.fetch(request("PUT", "/admin/x"))
        await page.locator(".refusals li").first.wait_for()
        order = []
        for _ in range(14):
            await page.keyboard.press("Tab")
            name, outline = await page.evaluate(focused)
            assert outline == "solid 2px", name
            order.append(re.sub(r"^\d\d:.*", "the refusal", name))
            if name.startswith(("1", "0", "2")):
                await page.keyboard.press("Enter")
        assert order == [
            "Traffic", "Issuers", "Refusals", "Explain", "Refresh keys", "filter", "the refusal", "Explain with", "token",
            "method", "path", "host", "Explain", "Clear",
        ]  # fmt: skip
        await page.get_by_role("button", name="Explain with a token").focus()
        await page.keyboard.press("Enter")
        assert (await page.evaluate(focused))[0] == "token"
        assert await page.get_by_label("Method").input_value() == "PUT"
        assert await page.get_by_label("Path").input_value() == "/admin/x"
        await page.keyboard.type("a.b.c")
        for key in ("Tab", "Tab", "Enter"):  # Enter in a field asks
            await page.keyboard.press(key)
        await shown(page, "#verdict", "^Refused: 401 token_malformed")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
async def test_it_fits_the_screen_and_is_readable_in_light_and_dark(
    browser: "Browser", scheme: Any, width: int
) -> None:
    async with ScriptedIssuer(algs=["EdDSA", "RS256"], path="/a-long-path" * 9) as issuer:
        issuer.keys[0]["kid"] = "k" * 200
        trusted = {
            "main": {"issuer": issuer.issuer, "audiences": [AUDIENCE]},
            "down": {"issuer": "http://127.0.0.1:9/" + "d" * 200, "audiences": [AUDIENCE]},
        }
        screen: Any = {"width": width, "height": 740}
        async with running(issuers=trusted, routes=ROUTES) as stack:
            for path in ("/x", "/trial/x", "/" + "w" * 400):
                await stack.fetch(request("GET", path, headers=[("X-Request-Id", "r" * 128)]))
            await stack.fetch(request("GET", "/x", token=issuer.token("RS256", iss=trusted["down"]["issuer"])))
            async with looking(browser, stack, viewport=screen, color_scheme=scheme) as page:
                for item in await page.locator(".refusals summary").all():
                    await item.click()
                await page.get_by_label("Token").fill(issuer.token("RS256", sub="s" * 300))
                await page.get_by_role("button", name="Explain", exact=True).click()
                await shown(page, "#verdict", "^Accepted")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert (
                    await page.evaluate(
                        "[...document.querySelectorAll('*')].filter(e => e.scrollWidth > e.clientWidth + 1 && e.clientWidth &&"
                        " getComputedStyle(e).overflowX === 'auto').map(e => e.className)"
                    )
                    == []
                )
                assert await page.evaluate(CONTRAST) == []
                ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")


async def test_a_sidecar_that_is_gone_is_said_and_another_one_is_followed(browser: "Browser") -> None:
    async with running() as stack:
        port = stack.sidecar.admin_address[1]
        async with looking(browser, stack, ending="net::ERR_CONNECTION_REFUSED") as page:
            for _ in range(3):
                await stack.fetch(request("GET", "/first"))
            await shown(page, ".refusals li", "/first")
            await stack.sidecar.stop()
            await page.get_by_text("not reachable", exact=True).wait_for()
            assert await page.locator(".refusals li").count() == 3
            async with running(admin={"listen": f"127.0.0.1:{port}"}) as other:
                await other.fetch(request("GET", "/second"))
                await page.get_by_text("serving", exact=True).wait_for()
                assert await page.locator(".refusals li").count() == 1
                await shown(page, ".refusals li", "/second")


async def test_a_reload_is_followed_and_one_that_failed_is_said(browser: "Browser", tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with running(file=file) as stack, looking(browser, stack) as page:
        assert stack.sidecar.reload is not None
        assert await page.locator(".card h3").all_inner_texts() == ["main"]
        good = file.read_text()
        file.write_text("issuers: nothing")
        await stack.sidecar.reload.reload()
        assert stack.secrets.errors.pop(0).startswith("event=config_kept")
        stack.secrets.errors.clear()
        await page.get_by_text("The changed configuration could not be taken into use").wait_for()
        file.write_text(good.replace('"main"', '"other"'))
        await stack.sidecar.reload.reload()
        await shown(page, ".card h3", "^other$")
        assert await page.locator(".card").count() == 1
        assert await page.locator("#reload").is_hidden()


async def test_the_policy_is_in_force(browser: "Browser") -> None:
    violated = """() => new Promise((resolve) => {
      document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true });
      try { ACT; } catch { /* the event tells */ }
    })"""
    acts = {
        "img-src": "document.body.append(Object.assign(new Image(), { src: 'http://127.0.0.1:9/' }))",
        "connect-src": "fetch('http://127.0.0.1:9/').catch(() => {})",
        "style-src-attr": "document.body.setAttribute('style', 'color: red')",
        "require-trusted-types-for": "document.body.innerHTML = '<b>'",
    }
    async with running() as stack, await browser.new_page() as page:
        host, port = stack.sidecar.admin_address
        await page.goto(f"http://{host}:{port}/")
        for directive, act in acts.items():
            async with patience(f"a violation of {directive}"):
                assert await page.evaluate(violated.replace("ACT", act)) == directive
