"""The headers that tell a backend about a request's origin: those of untrusted peers do not count."""

import pytest

from sidecar.http.forwarded import Forwarded
from tests.http.heads import read

SAID = [
    "X-Forwarded-For: a", "X-Forwarded-For: b, c", "X-Forwarded-Proto: http", "X-Forwarded-Proto: https", "X-Forwarded-Host: one",
    "X-Forwarded-Host: two", "Forwarded: for=a", "Forwarded: for=b", "X-Real-IP: 192.0.2.7", "X-Forwarded-User: alice",
]  # fmt: skip
OURS = b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n"


def test_headers_of_untrusted_peers_about_the_origin_are_dropped() -> None:
    said = read(*SAID)
    assert Forwarded("192.0.2.1", "http", False).lines(b"h", said) == OURS
    assert said.forwarded == b"", "its lines are not sent on"


def test_a_trusted_proxy_without_headers_counts_as_the_client() -> None:
    assert Forwarded("192.0.2.1", "http", True).lines(b"h", read()) == OURS


def test_headers_of_a_trusted_proxy_are_kept_and_extended() -> None:
    assert Forwarded("192.0.2.1", "http", True).lines(b"h", read(*SAID)) == (
        b"X-Forwarded-For: a, b, c, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: two\r\n"
        b"Forwarded: for=a, for=b, for=192.0.2.1;proto=http\r\nX-Real-IP: 192.0.2.7\r\nX-Forwarded-User: alice\r\n"
    )


@pytest.mark.parametrize("spelled", ["x_real_ip", "X.Forwarded.For", "X_Forwarded-User"])
@pytest.mark.parametrize("underscores", ["drop", "allow"])
def test_other_spellings_of_forwarded_headers_are_dropped(underscores: str, spelled: str) -> None:
    said = read(f"{spelled}: evil", underscores=underscores)
    assert Forwarded("192.0.2.1", "http", True).lines(b"h", said) == OURS
    assert said.forwarded == b""


def test_an_ipv6_address_is_quoted_in_forwarded() -> None:
    lines = Forwarded("2001:db8::1", "https", True).lines(b"h", read("Forwarded: for=a"))
    assert lines.endswith(b'Forwarded: for=a, for="[2001:db8::1]";proto=https\r\n')


def test_a_peer_has_its_address_scheme_and_trust() -> None:
    forwarded = Forwarded("192.0.2.1", "https", True)
    assert (forwarded.peer, forwarded.scheme, forwarded.trusted) == ("192.0.2.1", "https", True)


def test_the_address_of_a_peer_is_written_in_ascii() -> None:
    lines = Forwarded("fe80::1%\xe9th", "http", False).lines(b"h", read())
    assert lines.startswith(b"X-Forwarded-For: fe80::1%th\r\n")


@pytest.mark.parametrize(
    ("said", "client"),
    [
        ([], ("192.0.2.1", "http")),
        (["X-Forwarded-For: 203.0.113.9"], ("203.0.113.9", "http")),
        (["X-Forwarded-For: 198.51.100.66, 203.0.113.9, 192.0.2.2"], ("203.0.113.9", "http")),
        (["X-Forwarded-For: 203.0.113.9", "X-Forwarded-For: 192.0.2.2"], ("203.0.113.9", "http")),
        (["X-Forwarded-For: 203.0.113.9, nonsense"], ("192.0.2.1", "http")),
        (["X-Forwarded-For: 203.0.113.9:1234"], ("203.0.113.9", "http")),
        (["X-Forwarded-For: [2001:db8::7]:1234"], ("2001:db8::7", "http")),
        (['X-Forwarded-For: fe80::7%"x y'], ("fe80::7", "http")),
        (["X-Forwarded-For: 192.0.2.3, 192.0.2.2"], ("192.0.2.3", "http")),
        (["X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"], ("203.0.113.9", "https")),
        (["X-Forwarded-Proto: gopher"], ("192.0.2.1", "http")),
    ],
)
def test_the_client_is_the_last_address_before_the_trusted_proxies(said: list[str], client: tuple[str, str]) -> None:
    forwarded = Forwarded("192.0.2.1", "http", True, lambda address: address.startswith("192.0.2."))
    assert forwarded.client(read(*said)) == client


def test_an_untrusted_peer_cannot_set_the_client_address() -> None:
    said = read("X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https")
    assert Forwarded("192.0.2.1", "http", False).client(said) == ("192.0.2.1", "http")


@pytest.mark.parametrize(
    ("said", "scheme"),
    [
        (["http"], "http"),
        (["HTTPS"], "https"),
        (["http", "https"], "https"),
        (["https", "http"], "http"),
        (["ftp"], "ws"),
    ],
)
def test_the_clients_scheme_is_the_last_one_that_trusted_proxies_report(said: list[str], scheme: str) -> None:
    head = read(*[f"X-Forwarded-Proto: {one}" for one in said])
    assert Forwarded("192.0.2.1", "ws", True).client(head) == ("192.0.2.1", scheme)
    assert Forwarded("192.0.2.1", "ws", False).client(head) == ("192.0.2.1", "ws")


def test_a_peer_without_trusted_networks_reports_the_last_address() -> None:
    head = read("X-Forwarded-For: 192.0.2.8, 192.0.2.9")
    assert Forwarded("192.0.2.1", "http", True).client(head) == ("192.0.2.9", "http")
