"""The decoders of docs/ in their own languages, with what the sidecar's own code sends. The one for Go is not run."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.common.folding import fold
from sidecar.gateway.key_ring import KeyRing, TimedKey
from sidecar.gateway.signing_key import SigningKey, key_set
from sidecar.gateway.token_minter import Mint
from sidecar.jwt.claims import Claims
from sidecar.policy.identity_headers import ENCODINGS, IdentityHeader, encode
from sidecar.policy.request_signature import Signature
from tests.conftest import Need
from tests.peers import tokens
from tests.peers.clock import EPOCH, HandClock
from tests.peers.identity import identity_headers

DOCS = Path(__file__).parents[2] / "docs"
ASK = Path(__file__).with_name("decoders")
LANGUAGES = {"ruby": "rb", "node": "mjs", "python": "py", "php": "php"}
NAMES = {"rb": "ruby", "mjs": "js", "py": "python", "php": "php", "go": "go"}
"""File ending -> the name of the language on the page."""

KEY = SigningKey.generate("EdDSA")
KEYS = key_set([KEY, SigningKey.generate("EdDSA"), SigningKey.generate("ES256")])
SECRET = b"0123456789abcdef0123456789abcdef"
SIGNATURE = "x-jwt-signature"
WINDOW_S = 30  # the window for a signature's time, as on the page of headers


class Refused(Exception):
    """The decoder raised an error."""


class Decoder:
    """A decoder in a process of its own."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, what: str, *arguments: Any) -> Any:
        """The result of its function. Bytes are sent in hexadecimal; the process converts them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        hexed = [argument.hex() if isinstance(argument, bytes) else argument for argument in arguments]
        self._process.stdin.write(json.dumps({"ask": what, "arguments": hexed}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the process ended, {self._process.wait()}"
        answer = json.loads(line)
        if "refused" in answer:
            raise Refused(answer["refused"])
        return answer["answer"]


@pytest.fixture(scope="module", params=LANGUAGES)
def decoder(request: pytest.FixtureRequest, need: Need) -> Iterator[Decoder]:
    suffix = LANGUAGES[request.param]
    # This Python has what the decoder needs, cryptography; another one may not.
    program = sys.executable if suffix == "py" else need(request.param)
    command = [program, str(ASK / f"ask.{suffix}"), str(DOCS / "decoders" / f"identity.{suffix}")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
    ) as process:
        yield Decoder(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(20) == 0


CHARACTERS = st.characters(exclude_categories=["Cs"])
TEXT = st.text(CHARACTERS) | st.text("a %,+\r\n\0\x7f\u0085\u2028é\U0001f600")
WHOLE = st.integers(-(2**53), 2**53)  # integers that JavaScript keeps exactly
NAME = TEXT.map("n{}".format)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | TEXT,
    # PHP has one type for {} and [].
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(NAME, inner, min_size=1, max_size=3),
    max_leaves=6,
)
OBJECT = st.dictionaries(NAME, JSON, min_size=1, max_size=4)


def sent(value: Any, encoding: str) -> bytes:
    """The header's value, as it is sent."""
    text = encode(value, ENCODINGS[encoding])
    assert text is not None
    return text.encode()


@pytest.mark.parametrize("encoding", ["percent", "raw_utf8"])
@given(value=TEXT.filter(bool))
def test_the_decoder_restores_every_string(decoder: Decoder, encoding: str, value: str) -> None:
    assert decoder.ask("text", sent(value, encoding)) == value


@pytest.mark.parametrize("encoding", ["percent", "raw_utf8"])
@given(value=st.lists(TEXT, min_size=1))
def test_the_decoder_restores_every_list_of_strings(decoder: Decoder, encoding: str, value: list[str]) -> None:
    assert decoder.ask("items", sent(value, encoding)) == value


@given(value=OBJECT)
def test_the_decoder_restores_every_object_and_nested_list(decoder: Decoder, value: dict[str, Any]) -> None:
    assert decoder.ask("claims", sent(value, "percent")) == value
    assert decoder.ask("claims", sent([value], "percent")) == [value]


@given(value=OBJECT)
def test_the_decoder_restores_the_claims_header(decoder: Decoder, value: dict[str, Any]) -> None:
    payload = tokens.b64(json.dumps(value, ensure_ascii=False).encode()).encode()
    line = identity_headers({}, "X-JWT-Claims").lines(Claims("idp", value, payload)).split(b"\r\n")[1]
    assert decoder.ask("claims", line.removeprefix(b"X-JWT-Claims: ")) == value


@given(value=TEXT.filter(bool))
def test_the_decoder_restores_a_template_with_a_claim(decoder: Decoder, value: str) -> None:
    identity = identity_headers({"X-User": IdentityHeader(template=("user: ", ("sub",)))}, None)
    line = identity.lines(Claims("idp", {"sub": value})).split(b"\r\n")[1]
    assert decoder.ask("text", line.removeprefix(b"X-User: ")) == f"user: {value}"


# The assertion


def minted(claims: dict[str, Any], key: SigningKey = KEY) -> str:
    ring = KeyRing([TimedKey(key)])
    mint = Mint(
        *(lambda: ring, HandClock(), {}), issuer="jwt-sidecar", audience="my-backend", ttl_s=30.0, algorithm=key.alg
    )
    return mint.minted(Claims("idp", claims)).token


def accepted(decoder: Decoder, token: str, **over: Any) -> Any:
    """The decoder's result for an assertion at EPOCH."""
    asked = {"keys": KEYS, "issuer": "jwt-sidecar", "audience": "my-backend", "now": int(EPOCH), **over}
    return decoder.ask("assertion", token, asked["keys"], asked["issuer"], asked["audience"], asked["now"])


@given(claims=OBJECT)
def test_every_good_assertion_is_accepted(decoder: Decoder, claims: dict[str, Any]) -> None:
    said = accepted(decoder, minted(claims | {"iss": "https://idp.example/"}))
    assert said == claims | {
        "iss": "jwt-sidecar",
        "original_iss": "https://idp.example/",
        "aud": "my-backend",
        "iat": EPOCH,
        "exp": EPOCH + 30,
    }


GOOD = minted({"iss": "https://idp.example/", "sub": "alice"})


def forged(**header: Any) -> str:
    """A token with the valid payload and a signature of another key."""
    other = tokens.key("EdDSA")
    return tokens.sign(other, "EdDSA", {"kid": KEY.kid, **header}, tokens.parts(GOOD)[1])


@pytest.mark.parametrize(
    ("token", "over"),
    [
        pytest.param(GOOD, {"now": int(EPOCH) + 30}, id="expired"),
        pytest.param(GOOD, {"audience": "other"}, id="another audience"),
        pytest.param(GOOD, {"issuer": "other"}, id="from another sidecar"),
        pytest.param(GOOD, {"keys": {"keys": KEYS["keys"][1:]}}, id="unknown key"),
        pytest.param(tokens.flip(GOOD, part=2), {}, id="signature changed"),
        pytest.param(tokens.flip(GOOD, part=1, byte=20), {}, id="payload changed"),
        pytest.param(forged(), {}, id="signed by another key"),
        pytest.param(KEY.sign(tokens.payload_of(GOOD), {"alg": "ES256"}), {}, id="another algorithm in the header"),
        pytest.param(
            tokens.sign(b"", "none", {"kid": KEY.kid}, tokens.parts(GOOD)[1]), {}, id="algorithm none"
        ),
        pytest.param(
            tokens.sign(KEY.jwk["x"].encode(), "HS256", {"kid": KEY.kid}, tokens.parts(GOOD)[1]),
            {},
            id="HMAC with the public key",
        ),
        pytest.param(minted({"sub": "alice"}, SigningKey.generate("ES256")), {}, id="key of another kind"),
        pytest.param("a.b.c", {}, id="no token"),
        pytest.param("", {}, id="empty"),
    ],
)  # fmt: skip
def test_every_other_assertion_is_refused(decoder: Decoder, token: str, over: dict[str, Any]) -> None:
    assert accepted(decoder, GOOD)["sub"] == "alice"
    with pytest.raises(Refused):
        accepted(decoder, token, **over)


# The signature


def received(
    method: str, target: bytes, claims: dict[str, Any], encoding: str = "percent", clock: HandClock | None = None
) -> dict[str, str]:
    """The signed identity headers at a backend: names in lower case, values in hexadecimal."""
    names = {f"X-JWT-{name.upper()}": (name,) for name in claims}
    identity = identity_headers(names, None, encoding).lines(Claims("idp", claims))
    lines = identity + Signature("X-JWT-Signature", SECRET, clock or HandClock()).line(method, target, identity)
    split = [line.partition(b": ") for line in lines.split(b"\r\n")[:-1]]
    return {fold(name.decode()): value.hex() for name, _, value in split}


def trusted(decoder: Decoder, method: str, target: bytes, headers: dict[str, str], **over: Any) -> bool:
    """Does the decoder trust this request, at EPOCH?"""
    asked = {"secret": SECRET, "now": int(EPOCH), **over}
    answer = decoder.ask("signed", method, target, headers, asked["secret"], asked["now"])
    assert isinstance(answer, bool)
    return answer


@given(
    method=st.sampled_from(["GET", "POST", "PROPFIND"]),
    target=st.binary().map(lambda path: b"/" + path.translate(None, bytes(range(0x21)) + b"\x7f")),
    claims=st.dictionaries(st.from_regex("[a-z]([a-z0-9-]{0,3}[a-z0-9])?", fullmatch=True), TEXT | st.lists(TEXT), max_size=4),
    encoding=st.sampled_from(sorted(ENCODINGS)),
)  # fmt: skip
def test_every_signed_request_is_trusted(
    decoder: Decoder, method: str, target: bytes, claims: dict[str, Any], encoding: str
) -> None:
    headers = received(method, target, {name: claim for name, claim in claims.items() if name != "signature"}, encoding)
    assert trusted(decoder, method, target, headers | {"host": b"x".hex(), "x-other": b"y".hex()})


SIGNED = received("GET", b"/x?a=1", {"sub": "alice"})
OTHER = b"evil".hex()


@pytest.mark.parametrize(
    ("method", "target", "headers", "over"),
    [
        pytest.param("PUT", b"/x?a=1", SIGNED, {}, id="another method"),
        pytest.param("GET", b"/x?a=2", SIGNED, {}, id="another query"),
        pytest.param("GET", b"/y?a=1", SIGNED, {}, id="another path"),
        pytest.param("GET", b"/x?a=1", SIGNED | {"x-jwt-sub": OTHER}, {}, id="header changed"),
        pytest.param("GET", b"/x?a=1", SIGNED | {"x-jwt-role": OTHER}, {}, id="header added"),
        pytest.param("GET", b"/x?a=1", {n: v for n, v in SIGNED.items() if n != "x-jwt-sub"}, {}, id="header removed"),
        pytest.param("GET", b"/x?a=1", {n: v for n, v in SIGNED.items() if n != SIGNATURE}, {}, id="no signature"),
        pytest.param("GET", b"/x?a=1", SIGNED | {SIGNATURE: b"t=1800000000,v1=".hex()}, {}, id="empty signature"),
        pytest.param("GET", b"/x?a=1", SIGNED | {SIGNATURE: SIGNED[SIGNATURE] + "0a"}, {}, id="signature and a line feed"),
        pytest.param("GET", b"/x?a=1", SIGNED | {SIGNATURE: SIGNED[SIGNATURE][:-2] + "30"}, {}, id="signature changed"),
        pytest.param("GET", b"/x?a=1", SIGNED | {SIGNATURE: (b"t=1800000001" + bytes.fromhex(SIGNED[SIGNATURE])[12:]).hex()}, {},
                     id="time changed"),
        pytest.param("GET", b"/x?a=1", SIGNED, {"secret": b"1" * 32}, id="another secret"),
        pytest.param("GET", b"/x?a=1", SIGNED, {"now": int(EPOCH) + WINDOW_S + 1}, id="too old"),
        pytest.param("GET", b"/x?a=1", SIGNED, {"now": int(EPOCH) - WINDOW_S - 1}, id="time in the future"),
    ],
)  # fmt: skip
def test_every_other_request_is_not_trusted(
    decoder: Decoder, method: str, target: bytes, headers: dict[str, str], over: dict[str, Any]
) -> None:
    for now in (EPOCH - WINDOW_S, EPOCH + WINDOW_S):
        assert trusted(decoder, "GET", b"/x?a=1", SIGNED, now=int(now))
    assert not trusted(decoder, method, target, headers, **over)


# The document


@pytest.mark.parametrize("suffix", NAMES)
def test_the_document_quotes_the_decoders(suffix: str) -> None:
    code = (DOCS / "decoders" / f"identity.{suffix}").read_text()
    assert f"```{NAMES[suffix]}\n{code}```\n" in (DOCS / "reference" / "decoders.md").read_text()
