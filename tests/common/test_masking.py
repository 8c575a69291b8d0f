"""Tokens and API keys are masked in texts for logs and people, in every spelling."""

from urllib.parse import quote

import pytest

from sidecar.common.masking import MASK, MOST_PARTS, without_tokens
from tests.peers.cpu import least_cpu_s
from tests.peers.tokens import b64

P, S = b64(b'{"sub":"alice"}'), b64(b"s" * 64)
HEADERS = {
    "as usual": b'{"alg":"EdDSA"}',
    "a blank inside": b'{ "alg":"EdDSA"}',
    "a line break inside": b'{\n "alg": "EdDSA"}',
    "a tab inside": b'{\t"alg": "EdDSA"}',
    "a blank before": b' {"alg":"EdDSA"}',
    "a line break before": b'\r\n{"alg":"EdDSA"}',
    "an escaped name": b'{"\\u0061lg":"EdDSA"}',
}


def escaped(text: str) -> str:
    """Every character percent-encoded."""
    return "".join(f"%{ord(character):02X}" for character in text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("/a/b.c", "/a/b.c"),
        ("/eyJ", "/eyJ"),
        ("/eyJhbGci", "/eyJhbGci"),
        ("/eyJhbGci.e30.c2ln/x", "/***/x"),
        ("/eyJhbGci.e30.c2-_n.5.6?", "/***?"),
        ("/eyJhbGci.", "/***"),
        ("a eyJhbGci.e30. eyJhbGci.e30. b", "a *** *** b"),
        ("/jsk_0a1b_c-d/x", "/***/x"),
        ("/eyJhbGci%2Ee30%2ec2ln/x", "/***/x"),
        ("/eyJhbGci%2Fe30", "/eyJhbGci%2Fe30"),
        ("/v1.eyJhbGci.e30.c2ln/x", "/v1.***/x"),
        ("/a-jsk_0a1b.eyJh.b/x", "/a-***/x"),
        ("/eyJh.jsk_0a1b/x", "/***/x"),
    ],
)
def test_text_that_looks_like_a_token_is_masked(text: str, told: str) -> None:
    assert without_tokens(text) == told


def test_a_path_with_many_beginnings_of_tokens_is_masked_in_short_time() -> None:
    """Each line of the access log is searched, and every client can send such a path."""

    def fastest(text: str) -> float:
        return least_cpu_s(lambda: without_tokens(text), number=1, repeat=5)

    assert fastest("/" + "eyJ" * 2700) < 100 * fastest("/" + "x" * 8000 + "/eyJ" * 25)


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize(
    "spell", [str, escaped, lambda text: quote(escaped(text)), lambda text: f"%{ord(text[0]):x}{text[1:]}"]
)
def test_a_token_is_masked_in_any_spelling(header: bytes, spell: "type[str]") -> None:
    token = spell(f"{b64(header)}.{P}.{S}")
    for text in (f"/x/{token}/y", f"/x/{token}", token, f"/?token={token}&b=1", f"/x/{token}?y"):
        told = without_tokens(text)
        assert "***" in told
        assert not any(part in told for part in (P[4:], S[4:], escaped(S[4:]), quote(escaped(S[4:]))))


def test_a_token_after_other_letters_and_a_padded_token_are_masked() -> None:
    header = b64(b'{\n"alg":"EdDSA"}')
    assert S not in without_tokens(f"/token-{header}.{P}.{S}")
    assert S not in without_tokens(f"/{header}==.{P}=.{S}==")
    assert S not in without_tokens(f"/v1.{header}.{P}.{S}")


@pytest.mark.parametrize(
    "spell", [str, escaped, lambda text: quote(escaped(text)), lambda text: text.replace("_", "%5f")]
)
def test_an_api_key_is_masked_in_any_spelling(spell: "type[str]") -> None:
    key = f"jsk_{'0123456789abcdef'}_{'s' * 43}"
    told = without_tokens(f"/x/{spell(key)}/y")
    assert "sssss" not in told
    assert escaped("sssss") not in told
    assert "***" in told


@pytest.mark.parametrize(
    "text",
    [
        "/orders/2026-11-30T06:00:00.000Z/items.json.gz.sha256.of.everything",
        "/static/new.version.of.the.program-1.2.3.min.js.map.and.more.of.it",
        "/a%20name%20with%20many%20blanks%20and%20a.dot.or.two",
        "/files/" + "%C3%A4" * 40,
        "/" + "CDI-" * 20 + ".a.b",
    ],
)
def test_other_long_paths_are_shown_unchanged(text: str) -> None:
    assert without_tokens(text) == text


def test_a_text_with_very_many_beginnings_of_tokens_is_masked() -> None:
    few, many = (".".join(["e3" * 6] * parts) for parts in (MOST_PARTS + 2, MOST_PARTS + 3))
    assert without_tokens(f"/{few}%2D") == f"/{few}%2D"
    assert without_tokens(f"/{many}%2D") == f"/{MASK}"


LONG = ["x" * 30_000 + "%41", "ew." * 10_000, "ewe3ey" * 5000 + ".a.b", "%25" * 10_000, "x." * 15_000 + "%41"]


@pytest.mark.parametrize("text", LONG, ids=[text[:6] for text in LONG])
def test_masking_takes_linear_time(text: str) -> None:
    def least(path: str) -> float:
        return least_cpu_s(lambda: without_tokens(path), repeat=5)

    assert least("/" + text) < 100 * least("/a.b-c%2E" * (len(text) // 9))
