"""CORS for the sidecar's own answers: whose pages may read them, and the answer to a preflight."""

import pytest

from sidecar.http.cors import EXPOSED, MOST_HEADERS_BYTES, Cors, could_be_preflight
from sidecar.http.header_policy import RequestHeaderPolicy
from sidecar.http.request_head import RequestHead, parse_request_head

APP = "https://app.example.com"
SAYS = b"Access-Control-Expose-Headers: " + EXPOSED + b"\r\n"
NAMED = Cors([APP, "http://localhost:3000"])


def preflight(*lines: str) -> RequestHead:
    head = "".join(f"{line}\r\n" for line in ("OPTIONS /x HTTP/1.1", "Host: h", *lines, ""))
    return parse_request_head(head.encode(), RequestHeaderPolicy(()), 8192, 100)


@pytest.mark.parametrize("origin", [APP, "http://localhost:3000"])
def test_a_page_of_a_named_origin_may_read_a_refusal(origin: str) -> None:
    allow = b"Access-Control-Allow-Origin: %b\r\n" % origin.encode()
    assert NAMED.refusal([origin.encode()]) == allow + SAYS + b"Vary: Origin\r\n"
    credentials = Cors([origin], credentials=True)
    assert b"\r\nAccess-Control-Allow-Credentials: true\r\nAccess-" in credentials.refusal([origin.encode()])


@pytest.mark.parametrize(
    "origins",
    [
        [], [b"https://evil.example"], [b"null"], [b""], [b"https://app.example.com.evil.example"], [b"http://app.example.com"],
        [b"https://APP.example.com"], [b"https://app.example.com:443"], [b"https://app.example.com/"], [b"*"],
        [b"https://app.example.com", b"https://app.example.com"], [b"https://app.example.com https://evil.example"],
    ],
)  # fmt: skip
def test_another_origin_gets_only_vary_origin(origins: list[bytes]) -> None:
    assert NAMED.refusal(origins) == b"Vary: Origin\r\n"


@pytest.mark.parametrize("origins", [[], [b"https://a.example"], [b"null"]])
def test_a_star_allows_every_origin(origins: list[bytes]) -> None:
    assert Cors(["*"]).refusal(origins) == b"Access-Control-Allow-Origin: *\r\n" + SAYS


def test_credentials_for_every_origin_are_an_error() -> None:
    with pytest.raises(AssertionError):
        Cors(["*"], credentials=True)


def test_a_preflight_gets_the_method_and_headers_that_it_requests() -> None:
    asked = preflight(
        f"Origin: {APP}", "Access-Control-Request-Method: PATCH", "Access-Control-Request-Headers: authorization, X-A"
    )
    vary = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
    assert Cors([APP], credentials=True, max_age_s=60).preflight(asked) == {
        "Access-Control-Allow-Origin": APP,
        "Access-Control-Allow-Methods": "PATCH",
        "Access-Control-Allow-Headers": "authorization, x-a",
        "Access-Control-Allow-Credentials": "true",
        "Access-Control-Max-Age": "60",
        "Vary": vary,
    }
    plain = preflight("Origin: https://any.example", "Access-Control-Request-Method: GET")
    assert Cors(["*"]).preflight(plain) == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Max-Age": "600",
        "Vary": vary,
    }


@pytest.mark.parametrize("more", [0, 1])
def test_a_preflight_may_request_names_up_to_a_limit_of_bytes(more: int) -> None:
    names = "x" * (MOST_HEADERS_BYTES + more)
    method = "Access-Control-Request-Method: GET"
    asked = preflight(f"Origin: {APP}", method, f"Access-Control-Request-Headers: {names}")
    assert (Cors([APP]).preflight(asked) is None) == bool(more)


@pytest.mark.parametrize(
    "lines",
    [
        pytest.param(["Origin: https://evil.example", "Access-Control-Request-Method: GET"], id="another origin"),
        pytest.param([f"Origin: {APP}", "Access-Control-Request-Method: G T"], id="no method"),
        pytest.param([f"Origin: {APP}", *["Access-Control-Request-Method: GET"] * 2], id="two methods"),
        pytest.param(
            [f"Origin: {APP}", "Access-Control-Request-Method: GET", "Access-Control-Request-Headers: a b"],
            id="no header",
        ),
        pytest.param(
            [f"Origin: {APP}", "Access-Control-Request-Method: GET", f"Access-Control-Request-Headers: {'a' * 5000}"],
            id="too many headers",
        ),
    ],
)
def test_an_unanswerable_preflight_goes_to_the_backend(lines: list[str]) -> None:
    assert NAMED.preflight(preflight(*lines)) is None


ORIGIN, METHOD = "Origin: https://app.example", "ACCESS-CONTROL-REQUEST-METHOD: PUT"


@pytest.mark.parametrize("lines", [[ORIGIN, METHOD], [METHOD, ORIGIN, "Content-Length: 0", "Connection: keep-alive"]])
@pytest.mark.parametrize("target", ["/", "/x?method=a&payment_method=b&_methods=c"])
def test_a_preflight_has_an_origin_and_a_method(lines: list[str], target: str) -> None:
    assert could_be_preflight(preflight(*lines), target)


@pytest.mark.parametrize(
    "lines",
    [
        [ORIGIN],
        [METHOD],
        ["Origin:", METHOD],
        [ORIGIN, ORIGIN, METHOD],
        [ORIGIN, METHOD, METHOD],
        [ORIGIN, "Access-Control-Request-Method:"],
        [ORIGIN, "Access-Control-Request-Method: PUT /x"],
        [ORIGIN, METHOD, "Upgrade: x"],
        [ORIGIN, METHOD, "Content-Length: 5"],
        [ORIGIN, METHOD, "Transfer-Encoding: chunked"],
        [ORIGIN, METHOD, "X-HTTP-Method-Override: DELETE"],
        [ORIGIN, METHOD, "x-http-method: DELETE"],
        [ORIGIN, METHOD, "X_Method_Override: DELETE"],
        [ORIGIN, METHOD, "Connection: close, origin"],
        [ORIGIN, METHOD, "Connection: close", "Connection: Access-Control-Request-Method"],
    ],
)
def test_other_options_requests_are_not_preflights(lines: list[str]) -> None:
    assert not could_be_preflight(preflight(*lines), "/x")


@pytest.mark.parametrize(
    "query",
    [
        "_method=DELETE", "a=b&_method=DELETE", "a;_METHOD=DELETE", "%5Fmethod=DELETE", "_%6Dethod=DELETE", ".method=DELETE",
        "+_method=DELETE", "%20%5Bmethod=DELETE", "_method[]=DELETE", "_method%00=DELETE", "_method",
    ],
)  # fmt: skip
def test_a_preflight_names_no_other_method_in_its_query(query: str) -> None:
    assert not could_be_preflight(preflight(ORIGIN, METHOD), f"/x?{query}")
