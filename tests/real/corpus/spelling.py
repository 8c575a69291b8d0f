"""Header parameters, and every way to spell a token."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from tests.peers import tokens
from tests.peers.tokens import ABSENT, b64
from tests.real.corpus.making import (
    ED,
    EVIL,
    HEADER,
    RSA,
    Cases,
    bearer,
    bearers,
    good_claims,
    good_token,
    headed,
    shown,
    signed,
)


def headers() -> Cases:
    """Header parameters, and headers that are none."""
    evil = tokens.jwk(EVIL, kid="rsa-a")
    yield from bearers(
        [
            ("embedded jwk: kid of a real key", signed({"jwk": evil, "kid": "rsa-a"}, key=EVIL)),
            ("embedded jwk: without kid", signed({"jwk": evil}, key=EVIL)),
            ("embedded jwk: with its kid", signed({"jwk": evil, "kid": "evil"}, key=EVIL)),
            ("embedded jwk: oct", signed({"jwk": tokens.jwk(b"k"), "kid": "rsa-a"}, key=b"k", alg="HS256")),
            ("embedded jwk: the signature by the issuer", headed(jwk=evil)),
            ("jku, x5u, x5c: jku", signed({"jku": "https://evil.test/jwks", "kid": "rsa-a"}, key=EVIL)),
            ("jku, x5u, x5c: x5u", signed({"x5u": "https://evil.test/x.pem", "kid": "rsa-a"}, key=EVIL)),
            ("jku, x5u, x5c: x5c", signed({"x5c": [b64(b"a certificate")], "kid": "rsa-a"}, key=EVIL)),
            ("iss as fetch hint", signed({"kid": "rsa-a"}, good_claims(iss="https://evil.test/"), key=EVIL)),
        ]
    )
    kids = (
        "../../dev/null",
        "' OR 1=1 --",
        "a\r\nX: y",
        "rsa-a\0",
        "https://evil.test/",
        "RSA-A",
        "rsa-a ",
        "__proto__",
        "",
    )
    yield from bearers((f"kid injection: {shown(kid)}", headed(kid=kid)) for kid in kids)
    kinds: tuple[Any, ...] = (5, True, ["rsa-a"], {}, None)
    yield from bearers((f"kid type: {shown(kid)}", headed(kid=kid)) for kid in kinds)
    yield "kid huge (4 KB)", bearer(headed(kid="k" * 4096))
    yield "kid missing", bearer(headed(kid=ABSENT))
    yield "kid missing: EdDSA", bearer(signed({}, key=ED, alg="EdDSA"))
    criticals: dict[str, Any] = {
        "unknown name": {"crit": ["x"], "x": 1},
        "registered name": {"crit": ["alg"]},
        "[]": {"crit": []},
        "string": {"crit": "exp"},
        "object": {"crit": {}},
        "null": {"crit": None},
        "absent parameter": {"crit": ["exp"]},
    }
    yield from bearers((f"crit: {how}", headed(**members)) for how, members in criticals.items())
    yield "b64=false: with crit", bearer(headed(b64=False, crit=["b64"]))
    yield "b64=false: without crit", bearer(headed(b64=False))
    yield "b64=true", bearer(headed(b64=True))
    yield from bearers(
        (f"zip, cty, odd typ: {name} {shown(value)}", headed(**{name: value}))
        for name, value in (
            ("zip", "DEF"), ("cty", "x"), ("typ", "JWT"), ("typ", "jwt"), ("typ", "at+jwt"), ("typ", "application/at+jwt"),
            ("typ", "dpop+jwt"), ("typ", "logout+jwt"), ("typ", ""), ("typ", None), ("typ", 5), ("typ", ["JWT"]),
        )
    )  # fmt: skip
    yield from bearers(
        (f"duplicate header members: {text}", signed(text.encode()))
        for text in (
            '{"alg":"none","alg":"RS256","kid":"rsa-a"}', '{"alg":"RS256","kid":"rsa-a","alg":"none"}',
            '{"alg":"RS256","kid":"x","kid":"rsa-a"}', '{"alg":"RS256","kid":"rsa-a","kid":"x"}',
        )
    )  # fmt: skip
    texts = {
        "[]": b"[]",
        '"x"': b'"x"',
        "null": b"null",
        "no quotes": b'{alg:"RS256",kid:"rsa-a"}',
        "invalid UTF-8": b'{"alg":"RS256","kid":"rsa-a","x":"\xff"}',
        "UTF-16": HEADER.decode().encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + HEADER,
        "NaN": HEADER[:-1] + b',"x":NaN}',
        "trailing data": HEADER + b"x",
        "NUL after it": HEADER + b"\0",
        "a comment": HEADER[:-1] + b"/* */}",
        "trailing comma": HEADER[:-1] + b",}",
        "lone surrogate": HEADER[:-1] + rb',"x":"\ud800"}',
        "none of these: white space": b' { "alg" : "RS256",\r\n "kid" : "rsa-a" } ',
    }
    yield from bearers((f"header not an object / bad JSON: {how}", signed(text)) for how, text in texts.items())
    yield "deep header: unsigned", bearer(tokens.join(b"[" * 2500, b"{}", b""))
    yield "deep header: signed", bearer(signed(HEADER[:-1] + b',"x":' + b"[" * 1000 + b"]" * 1000 + b"}"))
    yield "deep header: 20 levels", bearer(signed(HEADER[:-1] + b',"x":' + b"[" * 19 + b"]" * 19 + b"}"))
    yield "huge integer: header, 1500 digits", bearer(signed(HEADER[:-1] + b',"x":' + b"9" * 1500 + b"}"))


def encodings() -> Cases:
    """Segments, base64url, bytes, sizes."""
    good = next(token for n in itertools.count() if "-" in (token := good_token(n=n)).rpartition(".")[2])
    header, payload, signature = good.split(".")
    encrypted = b'{"alg":"PBES2-HS256+A128KW","enc":"A128GCM","p2c":2147483648}'
    flattened = {"payload": payload, "protected": header, "signature": signature}
    yield from bearers(
        [
            ("JWE: 5 segments", "a.b.c.d.e"),
            ("JWE: PBES2 p2c=2^31", f"{b64(encrypted)}.eA.eA.eA.eA"),
            ("JSON serialisation", json.dumps(flattened, separators=(",", ":"))),
        ]
    )
    segments = {
        "one dot": ".",
        "two dots": "..",
        "one": header,
        "two": f"{header}.{payload}",
        "four": f"{good}.{signature}",
        "five": f"{good}.{signature}.{signature}",
        "leading dot": f".{good}",
        "trailing dot": f"{good}.",
        "3000 dots": "." * 3000,
        "no header": f".{payload}.{signature}",
        "no payload": f"{header}..{signature}",
    }
    yield from bearers((f"segments: {how}", token) for how, token in segments.items())
    dotted = tokens.sign(RSA, "RS256", HEADER, good_claims()).split(".")
    split = f"{dotted[1][:8]}....{dotted[1][8:]}"
    signed = tokens.signature(RSA, "RS256", f"{dotted[0]}.{split}".encode())
    yield "dots inside the payload", bearer(f"{dotted[0]}.{split}.{b64(signed)}")
    yield from bearers(
        (f"base64url: {how}", token)
        for how, token in {
            "junk in the header": _respelt(lambda h, p: (f"{h}!!!!", p)),
            "junk in the payload": _respelt(lambda h, p: (h, f"{p[:8]}!!!!{p[8:]}")),
            "junk in the signature": f"{good}!!!!",
            "junk amid the signature": f"{header}.{payload}.{signature[:8]}!!!!{signature[8:]}",
            "+/ in the signature": f"{header}.{payload}.{signature}".replace("-", "+").replace("_", "/"),
            "bytes after = in the signature": f"{good}==AA",
            "bytes after = in the payload": _respelt(lambda h, p: (h, f"{p}=AA")),
            "a length that cannot be": _respelt(lambda h, p: (h, p + "A" * (1 + -len(p) % 4))),
            "white space in the payload, a tab": _respelt(lambda h, p: (h, f"{p[:8]}\t{p[8:]}")),
            "NBSP in the payload": _respelt(lambda h, p: (h, f"{p[:8]}\u00a0{p[8:]}")),
        }.items()
    )
    yield from bearers(
        [
            ("base64url = padding: payload", _respelt(lambda h, p: (h, p + "=" * (-len(p) % 4)), size=200)),
            ("base64url = padding: signature", f"{good}{'=' * (-len(signature) % 4)}"),
            ("base64url = padding: one too many", f"{good}{'=' * (-len(signature) % 4 + 1)}"),
            ("non-canonical trailing bits: payload", _respelt(lambda h, p: (h, _other_bits(p)), size=200)),
            ("non-canonical trailing bits: signature", f"{header}.{payload}.{_other_bits(signature)}"),
        ]
    )
    yield from bearers(
        (f"bytes >= 0x80, NUL, C0 in the token: {how}", good.encode() + more)
        for how, more in {
            "UTF-8": "\u00e9".encode(), "not UTF-8": b"\xe9", "NUL": b"\0", "0x01": b"\1", "DEL": b"\x7f", "VT": b"\x0b",
        }.items()
    )  # fmt: skip
    yield "oversize: 6 KB claims", bearer(good_token(pad="x" * 6000))
    yield "oversize: 16 KB claims", bearer(good_token(pad="x" * 16_000))
    yield "oversize: 64 KB", bearer("x" * 65_536)
    yield "oversize: 300 KB", bearer("x" * 307_200)


def _respelt(respell: Callable[[str, str], tuple[str, str]], size: int | None = None) -> str:
    """A token whose header and payload were spelt otherwise before they were signed."""
    payload = json.dumps(good_claims()).encode()
    header, payload_segment = respell(b64(HEADER), b64(payload if size is None else payload.ljust(size)))
    message = f"{header}.{payload_segment}"
    return f"{message}.{b64(tokens.signature(RSA, 'RS256', message.encode()))}"


def _other_bits(segment: str) -> str:
    """The same bytes in base64url, with a bit set that none of them holds."""
    assert len(segment) % 4 in (2, 3)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]
