"""Forms of a request target (RFC 9112 section 3.2): the absolute form is accepted for its own host, others have a reason."""

import pytest

from tests.proxy.conftest import FEEDS, Stack, running

ON_EVERY_LOOP = True

ACCEPTED = {
    "a path": ("http://sidecar.test/x", "/x"),
    "a path and a query": ("http://sidecar.test/x?a=/b?c", "/x?a=/b?c"),
    "a query alone": ("http://sidecar.test?a=b", "/?a=b"),
    "nothing": ("http://sidecar.test", "/"),
    "in capitals": ("HTTP://Sidecar.Test/X", "/X"),
    "slashes in the path": ("http://sidecar.test/x/http://other.test/y", "/x/http://other.test/y"),
}


@pytest.mark.parametrize("feed", FEEDS)
@pytest.mark.parametrize(("target", "origin"), ACCEPTED.values(), ids=ACCEPTED)
async def test_the_absolute_form_with_the_host_reaches_the_backend_in_origin_form(
    stack: Stack, target: str, origin: str, feed: str
) -> None:
    answers = await stack.converse(stack.good("GET", target), feed)
    if "//" in origin and answers[0].status == 400:  # such a path may be ambiguous
        assert answers[0].json()["code"] == "path_ambiguous"
        return
    assert answers[0].status == 200
    [seen] = stack.backend.requests
    assert (seen.target, seen.all("host")) == (origin, ["sidecar.test"])


async def test_the_port_is_part_of_the_host(stack: Stack) -> None:
    answer = await stack.fetch(stack.good("GET", "http://sidecar.test:8443/x", host="sidecar.test:8443"))
    assert answer.status == 200
    assert stack.backend.requests[0].target == "/x"
    assert stack.backend.requests[0].get("host") == "sidecar.test:8443"


OTHERS = {
    "another host": "http://other.test/x",
    "another port": "http://sidecar.test:8443/x",
    "a subdomain": "http://a.sidecar.test/x",
    "a user": "http://user@sidecar.test/x",
    "the host in the place of a user name": "http://sidecar.test@other.test/x",
    "no host": "http:///x",
    "a backslash": "http://sidecar.test\\@other.test/x",
}


@pytest.mark.parametrize("target", OTHERS.values(), ids=OTHERS)
async def test_the_absolute_form_with_another_host_is_refused_with_its_reason(stack: Stack, target: str) -> None:
    answer = await stack.fetch(stack.good("GET", target))
    assert (answer.status, answer.json()["code"]) == (400, "request_malformed")
    if target.startswith("http://other") or ":8443" in target or "a.s" in target:
        assert "Host" in answer.json()["details"]
    assert stack.backend.requests == []


@pytest.mark.parametrize("target", ["ftp://sidecar.test/x", "sidecar.test/x", "sidecar.test:80", "urn:x", "http:/x"])
async def test_other_forms_of_a_target_are_refused(stack: Stack, target: str) -> None:
    answer = await stack.fetch(stack.good("GET", target))
    assert answer.status == 400
    assert stack.backend.requests == []


async def test_the_absolute_form_meets_the_rule_of_its_path() -> None:
    routes = [{"path": "/public/*", "auth": "none"}]
    async with running(routes=routes) as stack:
        for target, status in (
            ("http://sidecar.test/public/x", 200),
            ("http://sidecar.test/x", 401),
            ("http://sidecar.test/x?/public/x", 401),
            ("http://public/*", 400),
        ):
            raw = f"GET {target} HTTP/1.1\r\nHost: sidecar.test\r\n\r\n".encode()
            assert (await stack.fetch(raw)).status == status
        assert [seen.target for seen in stack.backend.requests] == ["/public/x"]


async def test_rules_with_hosts_apply_to_the_absolute_form() -> None:
    routes = [{"path": "/*", "hosts": ["open.test"], "auth": "none"}]
    async with running(routes=routes) as stack:
        for host, status in (("open.test", 200), ("sidecar.test", 401)):
            raw = f"GET http://{host}/x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
            assert (await stack.fetch(raw)).status == status
        raw = b"GET http://open.test/x HTTP/1.1\r\nHost: sidecar.test\r\n\r\n"
        assert (await stack.fetch(raw)).status == 400


async def test_the_absolute_form_needs_a_host_header_in_http_1_1(stack: Stack) -> None:
    answer = await stack.fetch(b"GET http://sidecar.test/x HTTP/1.1\r\n\r\n")
    assert (answer.status, answer.json()["code"]) == (400, "request_malformed")


async def test_options_asterisk_is_refused_with_its_reason(stack: Stack) -> None:
    answer = await stack.fetch(stack.good("OPTIONS", "*"))
    assert (answer.status, answer.json()["code"]) == (400, "request_malformed")
    assert "*" in answer.json()["details"]
    other = await stack.fetch(stack.good("GET", "*"))
    assert (other.status, other.json()["code"]) == (400, "request_malformed")
    assert stack.backend.requests == []


async def test_both_forms_of_a_target_are_the_same_request(stack: Stack) -> None:
    """The same holds when its lines are remembered."""
    async with stack.client() as client:
        for target in ("/x", "http://sidecar.test/x") * 4:
            assert (await client.request(stack.good("GET", target))).status == 200
        for target in ("/x", "http://other.test/x") * 2:
            status = (await client.request(stack.good("GET", target))).status
            assert status == (200 if target == "/x" else 400)
            if status == 400:
                break
    assert {seen.target for seen in stack.backend.requests} == {"/x"}
