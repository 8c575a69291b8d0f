"""The admin page in a real Chromium: its content, by mouse and by keyboard, on a phone, in light and dark."""

import asyncio
import os
import re
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from sidecar.app.history import STEP_S
from tests.conftest import Need
from tests.peers import patience
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.program import program
from tests.peers.raw import fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.asyncio(loop_scope="module")

Act = Callable[[], Awaitable[None]]

ROUTES: list[dict[str, Any]] = [
    {"path": "/admin/*", "require": {"scopes": ["admin"]}},
    {"path": "/trial/*", "mode": "report"},
]
MARKUP = "<img/src=x/onerror=document.title=1>"
AXE = Path(__file__).with_name("browser") / "node_modules" / "axe-core" / "axe.min.js"
SCROLLED_ASIDE = """[...document.querySelectorAll("main *")].filter(
  (one) => one.scrollWidth > one.clientWidth + 1 && one.clientWidth && getComputedStyle(one).overflowX === "auto"
).map((one) => one.className)"""
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


@asynccontextmanager
async def launched(need: Need) -> "AsyncIterator[Browser]":
    """Chromium, without a window."""
    chromium = need("chromium")
    driver = Path(sys.executable).with_name("playwright")
    need(str(driver), "install tests/real/browser/requirements.txt to run this test")
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(need: Need) -> "AsyncIterator[Browser]":
    """The same for all tests."""
    async with launched(need) as browser:
        yield browser


@asynccontextmanager
async def looking(browser: "Browser", stack: Stack, *, ending: str = "", **options: Any) -> "AsyncIterator[Page]":
    """The loaded page. At the end there must be no error and no request to another host."""
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
        await page.emulate_media(reduced_motion="reduce")
        await page.goto(origin)
        await page.locator("#word", has_text="serving").wait_for()
        await page.locator("#events li").first.wait_for()
        yield page
        assert re.fullmatch(r"(\(\d+\) )?jwt-sidecar", await page.title())
        assert [url for url in asked if not url.startswith(origin)] == []
        assert not any("eyJ" in url for url in asked)
        assert await page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        assert [text for text in complaints if not ending or not text.endswith(ending)] == []


async def shown(page: "Page", selector: str, pattern: str) -> str:
    """Return the text of an element as soon as it fits, its blanks and lines as single blanks."""
    async with patience(f"{selector} with {pattern}"):
        while True:
            for text in await page.locator(selector).all_inner_texts():
                text = re.sub(r"\s+", " ", text).strip()
                if re.search(pattern, text):
                    return text
            await page.wait_for_timeout(20)


async def refused(page: "Page") -> list[str]:
    """The summaries of the listed refusals, without their time."""
    texts = await page.locator("#refusal-list summary").all_inner_texts()
    return [re.sub(r"\s+", " ", text).strip().partition(" ")[2] for text in texts]


async def sees(page: "Page", section: str) -> None:
    """Scroll to a section, so that the page loads it."""
    await page.get_by_role("navigation").get_by_role("link", name=section, exact=True).click()


def step(stack: Stack) -> None:
    """Let a step of ten seconds end."""
    stack.clock.ahead_s += STEP_S
    stack.sidecar.live.history.step(stack.sidecar.assembly)


async def test_the_page_shows_issuers_with_their_keys_and_problems(browser: "Browser") -> None:
    async with ScriptedIssuer(algs=["EdDSA", "ES256"], date_offset_s=-45) as issuer:
        issuer.keys[1]["kid"] = "p\u202e256"
        trusted = {
            "main": {"issuer": issuer.issuer, "audiences": [AUDIENCE]},
            "down": {"issuer": "http://127.0.0.1:9/", "audiences": [AUDIENCE]},
        }
        async with running(issuers=trusted) as stack:
            await stack.fetch(request("GET", "/", token=issuer.token("EdDSA")))
            async with looking(browser, stack, ending="status of 502 (Bad Gateway)") as page:
                await shown(page, "#issuers-count", "^1 of 2 issuers with a problem$")
                down, main = await page.locator("#issuer-list > li").all()
                assert await down.locator("[data-is=state]").inner_text() == "no usable keys"
                error = "Last fetch failed: http://127.0.0.1:9/.well-known/openid-configuration: no connection"
                assert await down.locator(".error").inner_text() == error
                sections = await page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
                assert sections.index("issuers") < sections.index("traffic"), (
                    "the issuers come first when one has a problem"
                )

                await main.locator("summary").click()
                text = re.sub(r"\s+", " ", await main.inner_text())
                assert "ed25519-a OKP EdDSA" in text
                assert r"p\u202e256 EC ES256" in text
                assert re.search(
                    r"Age \d s .*Next refresh in \d+ min .*Clock offset 4\d s behind .*1 good, 0 failed", text
                )
                elsewhere = {"issuer": issuer.issuer, "jwks_uri": "http://127.0.0.1:9/\u202e"}
                issuer.on_discovery = Answer.json(elsewhere)
                await page.get_by_role("button", name="Refresh keys of main").click()
                await shown(page, "[data-is=result]", "^failed, ")
                await shown(page, "#issuer-list [data-is=state]", "^keys stale$")
                assert r"http://127.0.0.1:9/\u202e: no connection" in await main.locator(".error").inner_text()
                issuer.on_discovery = None
                await page.get_by_role("button", name="Refresh keys of main").click()
                await shown(page, "[data-is=result]", "^fetched a moment ago, possible again in [23]\\d s$")

                issuer.rotate()
                stack.sidecar.assembly.sources["main"].refresh(force=True)
                await shown(page, "#issuer-list .keys", "ed25519-b")
                await shown(page, "#issuer-list [data-is=state]", "^keys fresh$")


async def test_the_head_of_the_page_names_the_process(browser: "Browser", tmp_path: Path) -> None:
    async with running(file=tmp_path / "config.yaml") as stack, looking(browser, stack) as page:
        head = await page.locator(".who").inner_text()
        assert socket.gethostname() in head
        assert f"version {version('jwt-sidecar')}, up " in head
        assert stack.sidecar.assembly.config.digest in head


async def test_rates_latencies_and_the_time_axis_are_updated(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        assert await page.locator("#p50").inner_text() == "\u2013"
        assert await page.locator("#refusals-chart rect").count() == 0
        for number in range(60):
            await stack.fetch(stack.good() if number % 3 else request("GET", "/trial/x" if number % 2 else "/x"))
        rate = float(await shown(page, "#requests", r"^[1-9][\d.]*$"))
        refusals = float(await shown(page, "#refused", r"^[1-9][\d.]*$"))
        assert 0 < refusals < rate <= 60
        await shown(page, "#p50", r"^[\d.]+ m?s$")
        assert "60 requests since the start" in await page.locator(".tile").last.inner_text()

        step(stack)
        await page.locator("#refusals-chart rect").first.wait_for()
        assert await page.locator("#refusals-chart rect").count() == 1, (
            "requests refused in report mode are not in the chart"
        )
        name = await page.locator("#refusals-chart").get_attribute("aria-label") or ""
        assert re.match(
            r"Refusals in the last 15 minutes: at most 1\.0 per second at \S+, now [\d.]+\. token_missing\.$", name
        )
        assert await page.locator("#legend").inner_text() == "token_missing\n10"
        await page.get_by_text("The same as a table").click()
        row = re.split(r"\s+", await page.locator("#timeline-table tbody tr", has_text="token_missing").inner_text())
        assert row[1:] == ["60", "token_missing", "10"]
        assert await page.get_by_text("the sidecar started").is_visible()
        await page.get_by_label("1 h").check()
        assert await page.get_by_role("heading", name="Time axis, last hour").is_visible()


async def test_a_new_refusal_appears_with_client_text_escaped(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await sees(page, "Refusals")
        await page.get_by_text("No request has been refused since the start.").wait_for()
        await stack.fetch(request("GET", f"/{MARKUP}?secret", headers=[("X-Request-Id", "id-1")]))
        await sees(page, "Refusals")
        await shown(page, "#refusal-list summary", "onerror")
        await stack.fetch(request("GET", "/trial/x", headers=[("X-Request-Id", "id-2")]))
        await stack.fetch(request("POST", "/orders/%E2%80%AE1", host="orders.test", token=stack.token(exp=1)))
        await page.mouse.move(0, 0)
        await shown(page, "#refusal-list li:first-child", "token_expired")
        assert await refused(page) == [
            "token_expired POST /orders/%E2%80%AE1 401",
            "token_missing GET /trial/x reported, 200",
            f"token_missing GET /{MARKUP} 401",
        ]
        await page.locator("#refusal-list summary").first.click()
        await page.get_by_text(re.compile(r"^The token expired \d+ d ago\.$")).wait_for()
        text = re.sub(r"\s+", " ", await page.locator("#refusal-list li").first.inner_text())
        assert "Host orders.test Route (default)" in text
        assert await page.locator("img").count() == 1, "the icon"

        await page.get_by_label("Search").first.fill("ID-2")
        await shown(page, "#refusal-list", "^(?!.*orders).*trial")
        assert await page.locator("#refusal-list li").count() == 1
        await page.get_by_label("Search").first.fill("nothing like it")
        await page.get_by_text("None of the last refusals matches your choice.").wait_for()


async def test_the_list_does_not_move_while_you_read_it(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await sees(page, "Refusals")
        for path in ("/1", "/2"):
            await stack.fetch(request("GET", path))
        await shown(page, "#refusal-list", "/2")
        first = page.locator("#refusal-list summary").first
        ways: list[tuple[int, Act, Act]] = [
            (3, page.locator("#refusal-list li").nth(1).hover, lambda: page.mouse.move(0, 0)),
            (5, first.click, first.click),
        ]
        for number, reading, done in ways:
            await reading()
            before = await refused(page)
            box = await page.locator("#refusal-list li").first.bounding_box()
            for path in (f"/{number}", f"/{number + 1}"):
                await stack.fetch(request("GET", path))
            await page.get_by_role("button", name="Show 2 newer").wait_for()
            assert await refused(page) == before
            assert await page.locator("#refusal-list li").first.bounding_box() == box
            await done()
            await page.mouse.move(0, 0)
            await shown(page, "#refusal-list li:first-child", f"/{number + 1}")
            assert await page.get_by_role("button", name=re.compile("newer")).count() == 0

        await page.locator("#refusal-list summary").first.click()
        await stack.fetch(request("GET", "/7"))
        await page.get_by_role("button", name="Show 1 newer").click()
        await shown(page, "#refusal-list li:first-child", "/7")


async def test_a_paused_page_neither_changes_nor_sends_requests(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await stack.fetch(request("GET", "/1"))
        await sees(page, "Refusals")
        await shown(page, "#refusal-list", "/1")
        await page.get_by_role("button", name="Pause").click()
        assert await page.get_by_text(
            re.compile(r"^Paused at \d\d:\d\d\. Nothing on this page changes\.$")
        ).is_visible()
        await page.wait_for_load_state("networkidle")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        text = await page.locator("main").inner_text()
        await stack.fetch(request("GET", "/2"))
        await page.wait_for_timeout(4500)  # two updates
        assert await page.locator("main").inner_text() == text
        assert asked == []
        await page.get_by_role("button", name="Resume").click()
        await shown(page, "#refusal-list", "/2")


async def test_a_click_filters_the_refusals(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        for raw in (
            request("GET", "/x"),
            request("GET", "/admin/1"),
            stack.good("GET", "/admin/2"),
            stack.good("GET", "/admin/3"),
        ):
            await stack.fetch(raw)
        step(stack)
        await sees(page, "Refusals")
        await shown(page, "#groups tbody", "scope_insufficient")
        rows = [re.sub(r"\s+", " ", text.strip()) for text in await page.locator("#groups tbody tr").all_inner_texts()]
        assert sorted(re.sub(r" ?Cause and cure| \d\d:\d\d:\d\d .*", "", row) for row in rows) == [
            "scope_insufficient main 2 2", "token_missing none 2 2",
        ]  # fmt: skip
        await page.get_by_role("button", name="Code scope_insufficient: show only these").click()
        await shown(page, "#refusal-list", "^(?!.*token_missing)")
        assert await refused(page) == ["scope_insufficient GET /admin/3 403", "scope_insufficient GET /admin/2 403"]
        assert await page.locator("#groups tbody tr").count() == 1
        await shown(page, "#legend", "^scope_insufficient 2$")
        await page.get_by_label("route", exact=True).check()
        await shown(page, "#groups tbody", "/admin/\\*")
        await page.get_by_role("button", name="Remove the filter code scope_insufficient").first.click()
        await shown(page, "#groups tbody", "token_missing")
        for name in ("code", "issuer"):
            await page.get_by_label(name, exact=True).uncheck()
        await shown(page, "#groups thead", "^Route")
        assert await page.locator("#groups tbody tr").count() == 2

        await sees(page, "Routes")
        await page.get_by_role("button", name="(default): show its refusals").click()
        await shown(page, "#refusal-list", "^(?!.*admin)")
        assert await refused(page) == ["token_missing GET /x 401"]


async def test_a_click_on_a_code_shows_its_cause_and_cure(browser: "Browser") -> None:
    async with running() as stack, looking(browser, stack) as page:
        await stack.fetch(request("GET", "/x"))
        await sees(page, "Refusals")
        why = page.get_by_role("button", name="Cause and cure of token_missing")
        await why.click()
        assert await why.get_attribute("aria-expanded") == "true"
        text = await page.locator("#groups .cure").inner_text()
        assert text.startswith("Cause\nThe route needs a token, and the request has none in the places of token_from")
        assert "The operator\nIf tokens come in another header" in text
        assert await page.locator("#groups .cure code").first.inner_text() == "token_from"
        await why.click()
        assert await page.locator("#groups .cure").count() == 0
        await page.locator("#refusal-list summary").click()
        await page.locator("#refusal-list").get_by_role("button", name="Cause and cure").click()
        assert (await page.locator("#refusal-list .cure").inner_text()).startswith("Cause")


async def test_a_refusal_is_copied_as_commands_that_work(browser: "Browser", tmp_path: Path, need: Need) -> None:
    need("curl")
    file = tmp_path / "it's config.yaml"
    path = "/admin/it's;$(touch%20x)/[1]/../{2}"
    async with running(routes=ROUTES, file=file) as stack:
        options: dict[str, Any] = {"permissions": ["clipboard-read", "clipboard-write"]}
        async with looking(browser, stack, **options) as page:
            await stack.fetch(stack.good("PUT", path, host="orders.test"))
            await stack.fetch(stack.good("PUT", "/admin/it's;$(touch%20x)", host="orders.test"))
            await sees(page, "Refusals")
            await shown(page, "#refusal-list", "touch")
            await page.locator("#refusal-list summary").first.click()
            copied = {}
            for name in ("Copy as curl", "Copy as explain"):
                await page.get_by_role("button", name=name).click()
                await page.locator(f"[data-text='{name}']", has_text="Copied").wait_for()
                copied[name] = await page.evaluate("navigator.clipboard.readText()")
                assert "eyJ" not in copied[name]
        (tmp_path / "token.txt").write_text(stack.alice)
        environ = {**os.environ, "TOKEN": stack.alice, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for name, expected in (
            ("Copy as curl", '"code":"scope_insufficient"'),
            ("Copy as explain", "scope_insufficient"),
        ):
            process = await asyncio.create_subprocess_exec(
                "bash", "-c", copied[name], cwd=tmp_path, env=environ, stdout=PIPE, stderr=PIPE
            )
            async with patience(name):
                out, _ = await process.communicate()
            assert expected in out.decode().replace(": ", ":").replace('code" ', 'code"'), copied[name]
        assert sorted(found.name for found in tmp_path.iterdir()) == [file.name, "token.txt"]


async def test_a_pasted_token_is_explained_and_not_kept(browser: "Browser") -> None:
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await page.get_by_label("Token or API key").fill(
            f"Authorization: Bearer {stack.alice[:40]}\n  {stack.alice[40:]}\n"
        )
        await page.get_by_label("Path").fill("/admin/x")
        await page.get_by_role("button", name="Explain", exact=True).click()
        verdict = await shown(page, "#verdict", "^Refused")
        assert verdict == "Refused: 403 scope_insufficient. The token lacks a required scope."
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
        assert await page.get_by_label("Token or API key").input_value() == ""
        assert page.url.endswith(f":{stack.sidecar.admin_address[1]}/")

        await page.get_by_label("Token or API key").fill(stack.alice)
        await page.goto("about:blank")
        await page.go_back()
        assert await page.get_by_label("Token or API key").input_value() == ""


async def test_the_keyboard_reaches_everything_in_order_with_a_visible_focus(browser: "Browser") -> None:
    focused = """() => {
      const { tagName, id, textContent, ariaLabel, labels, value } = document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      const named = ariaLabel ?? (labels?.length ? `${labels[0].textContent}` : textContent);
      return [named.trim().split(/\\s+/).slice(0, 2).join(" "), `${outlineStyle} ${outlineWidth}`];
    }"""
    async with running(routes=ROUTES) as stack, looking(browser, stack) as page:
        await stack.fetch(request("PUT", "/admin/x", host="orders.test"))
        step(stack)
        for section in ("Configuration", "Routes", "Upstreams", "Issuers", "Refusals", "What is wrong"):
            await sees(page, section)
            await page.wait_for_timeout(300)
        await shown(page, "#legend", "token_missing")
        await page.get_by_role("link", name="Skip to what is wrong").focus()
        await page.keyboard.press("Tab")
        order = []
        for _ in range(60):
            name, outline = await page.evaluate(focused)
            assert outline == "solid 2px", name
            order.append(re.sub(r"^\d\d:.*", "the refusal", name))
            if order[-1] == "Clear":
                break
            if order[-1] == "the refusal":
                await page.keyboard.press("Enter")
            await page.keyboard.press("Tab")
        assert order == [
            "Pause", "What is", "Traffic", "Refusals", "Issuers", "Upstreams", "Routes", "Configuration", "Explain",
            "15 min", "token_missing1", "The same", "code", "issuer", "route", "Code token_missing:", "Cause and", "Issuer none:",
            "Search", "the refusal", "Cause and", "Only like", "Explain with", "Copy as", "Copy as",
            "main keys", "as in", "/admin/*: show", "/trial/*: show", "(default): show", "(none): show", "The file",
            "Token or", "Method", "Path", "Host", "Explain", "Clear",
        ]  # fmt: skip
        await page.get_by_role("button", name="Explain with a token").focus()
        await page.keyboard.press("Enter")
        assert (await page.evaluate(focused))[0] == "Token or"
        assert await page.get_by_label("Method").input_value() == "PUT"
        assert await page.get_by_label("Path").input_value() == "/admin/x"
        assert await page.locator("#request-host").input_value() == "orders.test"
        await page.keyboard.type("a.b.c")
        for key in ("Tab", "Tab", "Enter"):  # Enter in a field sends the form
            await page.keyboard.press(key)
        await shown(page, "#verdict", "^Refused: 401 token_malformed")


async def test_a_link_leads_to_its_section_while_the_sections_above_load(browser: "Browser") -> None:
    async with running(routes=ROUTES, upstreams={"down": {"url": "http://127.0.0.1:9"}}) as stack:
        for path in range(20):
            await stack.fetch(request("GET", f"/{path}"))
        async with looking(browser, stack, viewport={"width": 390, "height": 740}) as page:
            assert await page.locator("#routes-count").inner_text() == "Loading."
            assert await page.locator("#no-upstream").inner_text() == "Loading."
            await sees(page, "Upstreams")
            await shown(page, "#refusal-list", "/19")
            await shown(page, "#upstream-list", "no requests lately")
            await page.wait_for_load_state("networkidle")
            top = await page.locator("#upstreams").evaluate("one => one.getBoundingClientRect().top")
            assert 0 <= top < 100


async def test_the_path_of_the_file_has_its_own_line(browser: "Browser", tmp_path: Path) -> None:
    async with running(file=tmp_path / "config.yaml") as stack, looking(browser, stack) as page:
        await sees(page, "Configuration")
        await shown(page, "#file", "config.yaml$")
        assert await page.locator("#file").evaluate("one => one.getClientRects().length === 1 && one.clientHeight < 30")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1440])
async def test_the_page_fits_the_screen_and_is_accessible(
    browser: "Browser", scheme: Any, width: int, need: Need, tmp_path: Path
) -> None:
    axe = Path(need(str(AXE), "npm ci --prefix tests/real/browser")).read_text()
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA", "RS256"], path="/a-long-path" * 9) as issuer:
        issuer.keys[0]["kid"] = "k" * 200
        trusted = {
            "main": {"issuer": issuer.issuer, "audiences": [AUDIENCE]},
            "down": {"issuer": "http://127.0.0.1:9/" + "d" * 200, "audiences": [AUDIENCE]},
        }
        screen: Any = {"width": width, "height": 740}
        async with running(issuers=trusted, routes=ROUTES, file=file) as stack:
            for path in ("/x", "/trial/x", "/" + "w" * 400):
                for _ in range(4):
                    await stack.fetch(request("GET", path, host="h" * 200, headers=[("X-Request-Id", "r" * 128)]))
            await stack.fetch(request("GET", "/x", token=issuer.token("RS256", iss=trusted["down"]["issuer"])))
            step(stack)
            stack.clock.ahead_s = 0
            file.write_text(file.read_text().replace("}", ', "' + "u" * 300 + '": 1}', 1))
            assert stack.sidecar.reload is not None
            await stack.sidecar.reload.reload()
            stack.secrets.errors.clear()
            async with looking(browser, stack, viewport=screen, color_scheme=scheme) as page:
                for section in ("Configuration", "Routes", "Upstreams", "Issuers", "Refusals"):
                    await sees(page, section)
                    await page.wait_for_timeout(300)
                for item in await page.locator(
                    "#refusal-list summary, #issuer-list li:nth-child(2) summary, #in-use summary"
                ).all():
                    await item.click()
                await page.get_by_role("button", name="Cause and cure of token_missing").first.click()
                await page.get_by_text("The same as a table").click()
                await page.get_by_label("Token or API key").fill(issuer.token("RS256", sub="s" * 300))
                await page.get_by_role("button", name="Explain", exact=True).click()
                await shown(page, "#verdict", "^Accepted")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                assert await page.evaluate(SCROLLED_ASIDE) == []
                assert await page.evaluate(CONTRAST) == []
                ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                assert (sum(map(int, re.findall(r"\d+", ground))) < 200) == (scheme == "dark")
                await page.evaluate(axe)
                found = await page.evaluate("axe.run({ resultTypes: ['violations'] })")
                assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]] == []


async def test_fifty_issuers_and_five_hundred_rules_stay_legible(browser: "Browser") -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer:
        trusted = {
            f"issuer-{number}": {"issuer": f"{issuer.issuer}/{number}", "jwks_uri": issuer.jwks_uri, "audiences": "any"}
            for number in range(50)
        }
        rules = [{"path": f"/orders/{number}/*", "require": {"scopes": ["a"]}} for number in range(500)]
        async with running(issuers=trusted, routes=rules) as stack, looking(browser, stack) as page:
            for _ in range(3):
                await stack.fetch(request("GET", "/orders/321/x"))
            await sees(page, "Issuers")
            await shown(page, "#issuers-count", "^50 issuers$")
            assert await page.locator("#issuer-list > li").count() == 8
            await page.locator("#issuer-search").fill("issuer-42")
            await shown(page, "#issuer-list", "^issuer-42")
            assert await page.locator("#issuer-list > li").count() == 1
            await sees(page, "Routes")
            await shown(page, "#routes-count", "^500 rules$")
            await shown(page, "#route-table tbody tr:first-child", "^/orders/321/\\*")
            assert await page.locator("#route-table tbody tr").count() == 15
            await page.get_by_role("button", name="Show all 502").click()
            await page.locator("#route-table tbody tr").nth(501).wait_for()


async def test_the_page_shows_a_stopped_sidecar_and_follows_the_next_one(browser: "Browser") -> None:
    async with running() as stack:
        port = stack.sidecar.admin_address[1]
        async with looking(browser, stack, ending="net::ERR_CONNECTION_REFUSED") as page:
            await sees(page, "Refusals")
            for _ in range(3):
                await stack.fetch(request("GET", "/first"))
            await shown(page, "#refusal-list", "(/first.*){3}")
            await stack.sidecar.stop()
            await page.get_by_text("not reachable", exact=True).wait_for()
            assert await page.locator("#refusal-list li").count() == 3
            async with running(admin={"listen": f"127.0.0.1:{port}"}) as other:
                await other.fetch(request("GET", "/second"))
                await page.locator("#word", has_text="serving").wait_for()
                await shown(page, "#refusal-list", "/second")
                assert await page.locator("#refusal-list li").count() == 1


async def test_the_page_shows_a_reload_and_the_lines_of_a_failed_one(browser: "Browser", tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with running(file=file) as stack, looking(browser, stack) as page:
        assert stack.sidecar.reload is not None
        await sees(page, "Issuers")
        await shown(page, "#issuer-list .name", "^main$")
        good = file.read_text()
        file.write_text("issuers:\n  main:\n    issuer: https://a.test/\n    audience: me\n")
        await stack.sidecar.reload.reload()
        assert stack.secrets.errors.pop(0).startswith("event=config_kept")
        stack.secrets.errors.clear()
        await page.get_by_text(
            "A changed configuration was refused (3 problems); fix the file. The previous configuration stays in use."
        ).wait_for()
        await page.get_by_role("link", name="Show configuration").click()
        await shown(page, "#file-problems", "line 4, issuers.main.audience\\s*unknown key; did you mean audiences?")
        await shown(page, "#refused-lines", r"4\s*audience: \*\*\*\s*unknown key; did you mean audiences\?")
        file.write_text(good.replace('"main"', '"other"'))
        await stack.sidecar.reload.reload()
        await page.locator("#refused-file").wait_for(state="hidden")
        await sees(page, "Issuers")
        await shown(page, "#issuer-list .name", "^other$")
        assert await page.locator("#issuer-list > li").count() == 1


async def test_the_browser_enforces_the_content_security_policy(browser: "Browser") -> None:
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


async def test_the_page_shows_several_workers_as_one_process(browser: "Browser", tmp_path: Path) -> None:
    async with program(tmp_path, workers=2) as it:
        for _ in range(40):  # each on its own connection, so both workers serve some
            await fetch(it.addresses["proxy"], request("GET", "/x"))
        async with await browser.new_page() as page:
            host, port = it.addresses["admin"]
            await page.goto(f"http://{host}:{port}/")
            await shown(page, ".who", "2 workers")
            await shown(page, "#problem-list li", "^wrong 40 requests in the last minute refused: token_missing, on")
            await shown(page, "#events", "^[0-9:]+ the sidecar started$")
            await sees(page, "Refusals")
            await shown(page, "#groups", "token_missing.* 40 40 ")
            await sees(page, "Routes")
            await shown(
                page,
                "#route-table tbody tr:first-child",
                "^\\(default\\) all other requests a token 41 40 0 .* 41 / 40$",
            )
