"""Three incidents, each explained by the admin page alone: the operator's questions and the page's answers."""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.conftest import Need
from tests.peers.tokens import AUDIENCE
from tests.real.incident import scene
from tests.real.test_page import launched, looking, sees, shown

if TYPE_CHECKING:
    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")
TIME = r"\d\d:\d\d:\d\d"


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def browser(need: Need) -> "AsyncIterator[Browser]":
    """Chromium, without a window."""
    async with launched(need) as browser:
        yield browser


async def test_the_page_explains_a_wrong_audience_after_a_deploy(browser: "Browser", tmp_path: Path) -> None:
    async with scene(tmp_path) as told:
        await told.deploy("orders-v2")
        await told.go_on(9)
        async with looking(browser, told.stack) as page:
            # What is wrong, since when, and what changed?
            first = await shown(page, "#problem-list li", "audience_mismatch")
            hash_ = told.stack.sidecar.assembly.config.digest
            assert re.search(
                rf"^wrong \d+ requests .*refused: audience_mismatch, on \(default\), /billing/\*\. "
                rf"Expected one of: orders-v2; found {AUDIENCE} in the last refused token\. Since {TIME}",
                first,
            )
            assert re.search(r"^serving; \d\d % refused in the last minute$", await shown(page, "#state", "refused"))
            assert f"the configuration {hash_} is now in use" in first
            # Which refusals, and why this one?
            await page.locator("#problem-list li").first.get_by_role("link").click()
            await shown(page, "#refusal-list li:first-child", "audience_mismatch")
            await page.locator("#refusal-list summary").first.click()
            why = await shown(page, "#refusal-list li:first-child", "Request id")
            assert re.search(rf"Expected .*orders-v2.* Found .*{AUDIENCE}", why)
            assert re.search(r"Host orders\.example .*Issuer zuplo .*Key id \(kid\) ed25519-a", why)
            for place in ("#traffic", "#refusals"):  # the filter is shown beside both lists
                assert await shown(page, f"{place} .chosen", "Code") == "Code: audience_mismatch ✕"
            await sees(page, "Issuers")
            await shown(page, "#issuer-list > li:first-child", r"^zuplo keys fresh \d+ refused per minute")
            # What would fix it?
            await page.get_by_role("button", name="Cause and cure of audience_mismatch").first.click()
            cure = await shown(page, "#groups .cure", "The operator")
            assert "Write in audiences the value that the issuer puts into aud" in cure
            # What does the configuration say now?
            await sees(page, "Configuration")
            await page.get_by_text("The file in use, without").click()
            assert "orders-v2" in await shown(page, "#lines", "audiences")


async def test_the_page_explains_an_issuer_that_is_down(browser: "Browser", tmp_path: Path) -> None:
    async with scene(tmp_path) as told:
        await told.partner_goes_down()
        await told.go_on(6)
        async with looking(browser, told.stack) as page:
            # What is wrong, since when, and for how long do clients not notice?
            only = await shown(page, "#problem-list li", "partner")
            assert re.search(
                rf"^warning The keys of partner could not be fetched: .*: no connection\. "
                rf"No request is refused yet: the present keys stay trusted for \d+ min\. "
                rf"That is until (\d+ \w+ )?\d\d:\d\d\. Since {TIME}",
                only,
            )
            assert await page.locator("#problem-list li").count() == 1
            # Is it only the issuer? Its card comes first, with the error.
            await shown(page, "#issuers-count", "^1 of 2 issuers with a problem$")
            assert (await shown(page, "#issuer-list > li:first-child", "keys stale")).startswith("partner")
            sections = await page.locator("main > section").evaluate_all("all => all.map(one => one.id)")
            assert sections[:2] == ["now", "issuers"]
            links = page.get_by_role("navigation").get_by_role("link")
            assert await links.evaluate_all("all => all.map(one => one.hash.slice(1))") == sections
            # Are clients refused because of it?
            assert "0 in the last minute" in await shown(page, "#traffic .tile:nth-child(2)", "Refusals")
        told.stack.clock.ahead_s += 2 * 3600
        await told.go_on(6)
        async with looking(browser, told.stack) as page:
            # Two hours later its keys are no longer trusted, and the page shows the refusals.
            await shown(page, "#problem-list li", "^wrong partner has no usable keys, so its tokens get 503")
            told.stack.secrets.errors.clear()


async def test_the_page_explains_a_failing_backend_of_one_pod(browser: "Browser", tmp_path: Path) -> None:
    async with scene(tmp_path) as told:
        await told.backend_goes_down()
        await told.go_on(6)
        async with looking(browser, told.stack) as page:
            # Is it the sidecar, an issuer, or the backend of this pod?
            only = await shown(page, "#problem-list li", "upstream")
            url = re.escape(told.stack.backend.url)
            assert re.search(
                rf"^wrong The upstream default \({url}\) fails most requests: "
                rf"\d+ connections failed in the last minute, on .*\(default\).*\. "
                rf"Nothing listens at the backend's address\. .*Since {TIME}",
                only,
            )
            assert await page.locator("#problem-list li").count() == 1
            # Which pod is this, and what does it run?
            assert re.search(r"version \S+, up .*configuration [0-9a-f]{16}", await shown(page, ".who", "version"))
            # Do the other backend and the issuers work?
            await sees(page, "Upstreams")
            assert "failing" in await shown(page, "#upstream-list li", "^default")
            assert "answers" in await shown(page, "#upstream-list li", "^billing")
            await shown(page, "#issuers-count", "^2 issuers$")
            # Which routes suffer?
            await sees(page, "Routes")
            first = await shown(page, "#route-table tbody tr:first-child", r"\(default\)")
            assert re.search(r"a token (\d+) \1 ", first), "all requests of this route are refused"
            told.stack.secrets.errors.clear()
