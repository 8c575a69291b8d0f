"""The claims of a token, and their identity headers."""

import json
from typing import Any

from benchmarks.issuer import AUDIENCE
from tests.peers import tokens
from tests.peers.tokens import ABSENT
from tests.real.corpus.making import (
    HEADER,
    Cases,
    bearer,
    bearers,
    claimed,
    get,
    good_claims,
    good_token,
    shown,
    signed,
)


def times() -> Cases:
    """exp, nbf, iat."""
    now = good_claims()["iat"]
    yield from bearers(
        [
            ("exp past: an hour ago", good_token(exp=now - 3600)),
            ("exp past: 20 s ago, within the skew", good_token(exp=now - 20)),
            ("exp past: 62 s ago, just beyond the skew", good_token(exp=now - 62)),
            ("exp 0", good_token(exp=0)),
            ("exp negative", good_token(exp=-1)),
            ("exp missing", good_token(exp=ABSENT)),
            ("exp float", good_token(exp=9999999999.5)),
            ("exp float: past", good_token(exp=now - 3600.5)),
            ("exp exponent form", claimed('"exp":1e10')),
            ("nbf future: an hour", good_token(nbf=now + 3600)),
            ("nbf future: 30 s, within the skew", good_token(nbf=now + 30)),
            ("nbf future: exponent form", good_token(nbf=9e10)),
            ("iat future: an hour", good_token(iat=now + 3600)),
            ("iat future: 30 s, within the skew", good_token(iat=now + 30)),
            ("iat missing", good_token(iat=ABSENT)),
        ]
    )
    odd = (
        '"9999999999"', '" 9 "', '"9_9"', '"\uff19\uff19"', "true", "null", "[]", "{}", "NaN", "Infinity", "-Infinity",
        "1e400", "9999999999999", "9223372036854775807", "9223372036854775808", "1e300",
    )  # fmt: skip
    yield from bearers((f"exp types: {_ascii(text)}", claimed(f'"exp":{text}')) for text in odd)
    yield from bearers(
        (f"exp huge: {digits} digits", claimed(f'"exp":{"9" * digits}')) for digits in (30, 300, 4000, 5000)
    )
    for name in ("nbf", "iat"):
        yield from _of_wrong_types(name, "1", True, None, [], {}, -1, 1e300)


def _of_wrong_types(name: str, *values: Any) -> Cases:
    for value in values:
        claim: dict[str, Any] = {name: value}
        yield f"{name} wrong types: {shown(value)}", bearer(good_token(**claim))


def _ascii(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def claims() -> Cases:
    """iss, aud, and payloads that are none."""
    issuer = tokens.ISSUER
    for iss in (
        ABSENT, [issuer], {issuer: 1}, None, 5, True, "", issuer[:-1], f"{issuer}/", issuer[:-2], f"x{issuer}", issuer.upper(),
        f"{issuer}\0", f" {issuer}", "main",
    ):  # fmt: skip
        yield f"iss: {shown(iss)}", bearer(good_token(iss=iss))
    for aud in (
        ABSENT, "other", [], "", None, {}, 5, AUDIENCE[:-1], f"{AUDIENCE}/", f"https://{AUDIENCE}", AUDIENCE.upper(),
        [[AUDIENCE]], [AUDIENCE, 5], [5], {AUDIENCE: 1},
    ):  # fmt: skip
        yield f"aud: {shown(aud)}", bearer(good_token(aud=aud))
    whole = json.dumps(good_claims()).encode()
    texts = {
        "[]": b"[]",
        '"x"': b'"x"',
        "null": b"null",
        "not JSON": b"x",
        "bad UTF-8": whole[:-1] + b',"x":"\xff"}',
        "bad UTF-8 in sub": whole.replace(b"alice", b"al\xffce"),
        "UTF-16": whole.decode().encode("utf-16"),
        "byte order mark": b"\xef\xbb\xbf" + whole,
        "trailing bytes": whole + b"{}",
        "NUL after it": whole + b"\0",
        "NaN member": whole[:-1] + b',"x":NaN}',
        "trailing comma": whole[:-1] + b",}",
        "raw control character": whole[:-1] + b',"x":"\n"}',
        "none of these: white space": b" " + whole + b"\r\n",
    }
    yield from bearers((f"payload not an object, not JSON: {how}", signed(HEADER, text)) for how, text in texts.items())
    yield from bearers(
        [
            ("duplicate members: exp, past, then future", claimed('"exp":1,"exp":9999999999')),
            ("duplicate members: exp, future, then past", claimed('"exp":9999999999,"exp":1')),
            ("duplicate members: sub", claimed('"exp":9999999999,"sub":"bob"')),
            ("duplicate members: aud", claimed('"exp":9999999999,"aud":"other"')),
            ("duplicate members: inside", claimed('"exp":9999999999,"x":{"a":1,"a":2}')),
            ("deep payload: 2300 levels", claimed(f'"exp":9999999999,"x":{"[" * 2299}{"]" * 2299}')),
            ("deep payload: 20 levels", claimed(f'"exp":9999999999,"x":{"[" * 19}{"]" * 19}')),
            ("deep payload: 50 levels", claimed(f'"exp":9999999999,"x":{"[" * 49}{"]" * 49}')),
            ("huge integer: payload, 5000 digits", claimed(f'"exp":9999999999,"x":{"9" * 5000}')),
            ("huge integer: payload, 1e400", claimed('"exp":9999999999,"x":1e400')),
            ("huge integer: payload, 30 digits", claimed(f'"exp":9999999999,"x":{"9" * 30}')),
            ("sender-constrained: DPoP", good_token(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})),
            (
                "sender-constrained: mutual TLS",
                good_token(cnf={"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"}),
            ),
        ]
    )


def values() -> Cases:
    """Claims of every kind, on their way into a header."""
    text = {
        "CR": "a\rb",
        "LF": "a\nb",
        "CRLF+request": "a\r\n\r\nGET / HTTP/1.1\r\nHost: x",
        "CRLF+header": "a\r\nX-JWT-Sub: bob",
        "NUL": "a\0b",
        "DEL": "a\x7fb",
        "VT": "a\x0bb",
        "U+0085": "a\u0085b",
        "U+2028": "a\u2028b",
        "U+010A/U+010D": "a\u010ab\u010dc",
        "non-ASCII": "J\u00f6rg",
        "emoji": "\U0001f600",
        "lone surrogate": "\ud800",
        "percent": "100%",
        "an escape": "a%0Ab",
        "space in front": " a",
        "space behind": "a ",
        "empty": "",
        "10 KB": "x" * 10_000,
        "printable": "a b ~!\"#$&'()*+,-./:;<=>?@[\\]^_`{}",
    }
    yield from bearers((f"claim -> header: {how}", good_token(scope=value)) for how, value in text.items())
    for value in (
        None, True, False, 0, 5, -5, 2**53 + 1, 2**63, 10**30, 1.5, 1e22,
        [], ["a"], ["a", "b"], ["a,b", "c"], [1, True], ["a", None], [["a"]], {}, {"a": 1},
    ):  # fmt: skip
        yield f"claim -> header: {shown(value)}", bearer(good_token(scope=value))
    for name in ("sub", "jti"):
        yield from _of_wrong_types(name, None, 5, True, ["alice"], {})
    yield "claim absent: sub", _spoofing(sub=ABSENT)
    yield "claim absent: sub null", _spoofing(sub=None)
    yield "claim absent: not so", _spoofing()


def _spoofing(**over: Any) -> bytes:
    """A request with what the headers for the backend would be, from a client."""
    return get(
        b"Authorization: Bearer " + good_token(**over).encode(),
        *(name + b": mallory" for name in (b"X-JWT-Sub", b"x-jwt-scope", b"X-JWT-Claims", b"X_JWT_Sub")),
    )
