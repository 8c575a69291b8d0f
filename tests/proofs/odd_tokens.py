"""Random tokens: valid ones with a few changed bytes, signed ones with any claims, and bytes that are no tokens.

Everything comes out of the `Random` that is given: one of a seed for the bulk, one of hypothesis to have failures made small.
"""

import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from tests.peers import tokens
from tests.peers.clock import EPOCH
from tests.peers.tokens import b64, unb64

NOW = int(EPOCH)
SECRET = b"a secret of thirty-two bytes and more"
MAIN, SECRETIVE, RELAXED = tokens.ISSUER, "https://secret.test/", "https://relaxed.test/"


class Signer(NamedTuple):
    """A key that signs; `owner` is the issuer that publishes it, None: nobody does."""

    owner: str | None
    iss: str
    alg: str
    kid: str
    key: tokens.Key


class Odd(NamedTuple):
    """A token. `signing_input`, if any, was truly signed with a key of `owner`, for this token alone."""

    kind: str
    token: bytes
    signing_input: bytes = b""
    owner: str | None = None


SIGNERS = [
    *(Signer("main", MAIN, alg, tokens.kid(alg), tokens.key(alg)) for alg in tokens.ALGORITHMS),
    Signer("secret", SECRETIVE, "HS256", "x", SECRET),
    Signer("relaxed", RELAXED, "EdDSA", "ed25519-b", tokens.key("EdDSA", "b")),
    Signer(None, MAIN, "EdDSA", "ed25519-a", tokens.key("EdDSA", "evil")),
    Signer(None, MAIN, "HS256", "rsa-a", tokens.public_pem("RS256")),
]
QUICK = [signer for signer in SIGNERS if signer.alg in ("HS256", "EdDSA")]
"""The signers with quick signatures."""


def good(signer: Signer) -> str:
    """A valid token."""
    header = {"alg": signer.alg, "kid": signer.kid}
    return tokens.sign(signer.key, signer.alg, header, tokens.claims(now=NOW, iss=signer.iss))


GOOD = [good(signer).encode() for signer in SIGNERS if signer.owner is not None]
SIGNED = {token.rpartition(b".")[0]: signer.owner for token, signer in zip(GOOD, SIGNERS, strict=False)}
"""Signed part -> signer, for the tokens of GOOD."""
assert all(signer.owner for signer in SIGNERS[: len(GOOD)]), "tokens without an owner must come last"

NAMES = (
    "alg", "kid", "typ", "crit", "b64", "zip", "cty", "jwk", "jku", "x5c", "iss", "aud", "sub", "exp", "nbf", "iat", "jti", "cnf",
    "scope", "a.b", "", "__proto__", "\0",
)  # fmt: skip
DEEP: list[Any] = []
for _ in range(40):
    DEEP = [DEEP]
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 5, 0.5, -0.0, 1e308, 10**30, 10**400, -(10**18), 2**63,
    NOW, NOW + 0.5, NOW - 60, NOW - 59, NOW + 60, NOW + 61, NOW + 300, 253402300799, 253402300800,
    "", "x", "none", "RS256", "HS256", "EdDSA", "ES256", "JWT", "at+jwt", "rsa-a", "ed25519-a", "p-256-a", "mallory",
    MAIN, SECRETIVE, RELAXED, MAIN[:-1], tokens.AUDIENCE, "\U0001f600", "\0", "\r\n", "A" * 300,
    [], {}, [[]], [tokens.AUDIENCE], [tokens.AUDIENCE, 5], ["exp"], {"jkt": "x"}, {"x5t#S256": "x"}, {"kty": "oct", "k": "aw"},
    {"a": {"b": [None]}},
)  # fmt: skip
NO_VALUES = (float("nan"), float("inf"), float("-inf"), "\ud800", DEEP)
"""Texts that are not JSON, or not allowed in a token."""
PIECES = (
    b".", b"..", b"=", b"==", b"A", b"AA", b"-", b"_", b"+", b"/", b" ", b"\t", b"\0", b"\n", b"\x80", b"\xff",
    b'"', b"{", b"}", b"[", b"]", b",", b":", b"\\", b"\\u0000", b"\\ud800", b"null", b"NaN", b"1e999", b"9" * 400, b"9" * 5000,
    b"[" * 60, b"eyJ", b"e30", b"\xc3\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"A" * 5000, b"A" * 17000,
)  # fmt: skip


MEMBERS = (
    b'"exp":9,', b'"alg":"none",', b'"\\u0061lg":1,', b'"kid":"x",', b'"x":{"a":1,"a":1},', b'"x":1e999,',
    b'"x":' + b"9" * 5000 + b",", b'"x":' + b"[" * 2500, b'"x":' + b"[" * 2500 + b"]" * 2500 + b",",
    b'"x":' + b"[" * 31 + b"]" * 31 + b",", b'"x":' + b"[" * 32 + b"]" * 32 + b",",
    b'"x":"\\ud83d\\ude00",', b'"x":"\\ude00\\ud83d",', b'"x":-0,', b'"x":1E5,', b' "x" : 1 ,',
)  # fmt: skip
"""Beginnings of an object, in spellings that json.dumps does not use."""


def odd_token(random: Random) -> Odd:
    """One token."""
    make: Callable[[Random], Odd] = random.choices(_KINDS, _WEIGHTS)[0]
    return make(random)


def _untouched(random: Random) -> Odd:
    return Odd("good", random.choice(GOOD))


def _mutated(random: Random) -> Odd:
    """A good token, changed as bytes."""
    return Odd("mutated", odd_bytes(random, random.choice(GOOD)))


def _mixed(random: Random) -> Odd:
    """A header, a payload and a signature of three good tokens."""
    return Odd("mixed", b".".join(random.choice(GOOD).split(b".")[part] for part in range(3)))


def _rewritten(random: Random) -> Odd:
    """A good token with decoded bytes of its header, payload or signature changed."""
    segments = random.choice(GOOD).decode().split(".")
    part = random.randrange(3)
    segments[part] = b64(odd_bytes(random, unb64(segments[part])))
    return Odd("rewritten", ".".join(segments).encode())


def _resigned(random: Random) -> Odd:
    """A signed token with nearly good claims and sometimes an odd header."""
    signer = _signer(random)
    header: dict[str, Any] = {"alg": signer.alg, "kid": signer.kid}
    if random.random() < 0.3:
        header |= odd_members(random, 2)
    claims = tokens.claims(now=NOW, iss=signer.iss) | odd_members(random, 2)
    if random.random() < 0.3:
        claims[random.choice(("exp", "nbf", "iat"))] = NOW + random.randint(-400, 400)
    if random.random() < 0.1:
        claims["sub"] = "mallory"
    if random.random() < 0.1:
        del claims[random.choice(list(claims))]
    return _sign(random, "resigned", signer, header, claims)


def _said(random: Random) -> Odd:
    """A signed token with any content."""
    signer = _signer(random)
    return _sign(random, "signed", signer, {"alg": signer.alg} | odd_members(random, 4), odd_members(random, 8))


def _respelt(random: Random) -> Odd:
    """A good token with another spelling of a part, which is signed in this spelling."""
    signer = random.choice(QUICK)
    header, claims = (
        {"alg": signer.alg, "kid": signer.kid},
        tokens.claims(now=NOW, iss=signer.iss, n=10 ** random.randrange(3)),
    )
    segments = [b64(json.dumps(part).encode()) for part in (header, claims)]
    part = random.randrange(3)
    if part < 2:
        segments[part] = _other_spelling(random, segments[part])
    signing_input = ".".join(segments).encode()
    segments.append(b64(tokens.signature(signer.key, signer.alg, signing_input)))
    if part == 2:
        segments[2] = _other_spelling(random, segments[2])
    return Odd("respelt", ".".join(segments).encode(), signing_input, signer.owner)


def _other_spelling(random: Random, segment: str) -> str:
    """The same bytes for a lenient reader."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    match random.randrange(4):
        case 0 if len(segment) % 4:  # bits that belong to no byte
            return segment[:-1] + alphabet[alphabet.index(segment[-1]) ^ 1]
        case 1:
            return segment + "=" * (-len(segment) % 4 or 4)
        case 2:
            at = random.randrange(len(segment) + 1)
            return segment[:at] + random.choice("\t\r\n =!.") + segment[at:]
    return segment.replace("-", "+").replace("_", "/")


def _unsigned(random: Random) -> Odd:
    """A nearly good token without a valid signature."""
    signer = random.choice(SIGNERS)
    header = odd_text(random, {"alg": signer.alg, "kid": signer.kid} | odd_members(random, 3))
    claims = odd_text(random, tokens.claims(now=NOW, iss=signer.iss) | odd_members(random, 2))
    return Odd("unsigned", tokens.join(header, claims, random.randbytes(random.choice((0, 1, 32, 64, 256)))).encode())


def _letters(random: Random) -> Odd:
    """Only characters of tokens."""
    alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_...."
    return Odd("letters", bytes(random.choices(alphabet, k=random.randrange(80))))


def _noise(random: Random) -> Odd:
    """Any bytes."""
    return Odd("noise", random.randbytes(random.randrange(200)))


_KINDS = (_untouched, _mutated, _mixed, _rewritten, _resigned, _said, _respelt, _unsigned, _letters, _noise)
_WEIGHTS = (1, 19, 4, 19, 34, 8, 4, 8, 2, 1)


def _signer(random: Random) -> Signer:
    return random.choice(QUICK if random.random() < 0.95 else SIGNERS)


def _sign(random: Random, kind: str, signer: Signer, header: dict[str, Any], claims: dict[str, Any]) -> Odd:
    signing_input = f"{b64(odd_text(random, header))}.{b64(odd_text(random, claims))}".encode()
    token = signing_input + b"." + b64(tokens.signature(signer.key, signer.alg, signing_input)).encode()
    if random.random() < 0.1:
        token = odd_bytes(random, token)
    return Odd(kind, token, signing_input, signer.owner)


def odd_text(random: Random, value: Any) -> bytes:
    """JSON of an object; sometimes with a surplus member, or no longer valid."""
    text = json.dumps(value, ensure_ascii=random.random() < 0.5).encode("utf-8", "surrogatepass")
    roll = random.random()
    if roll < 0.03:
        return b"{" + random.choice(MEMBERS) + text[1:]
    return odd_bytes(random, text) if roll < 0.15 else text


def odd_members(random: Random, most: int) -> dict[str, Any]:
    """Up to this many members of a JSON object."""
    return {random.choice(NAMES): odd_value(random) for _ in range(random.randrange(most + 1))}


def odd_value(random: Random, depth: int = 0) -> Any:
    """Any JSON value, and values that Python accepts as JSON."""
    roll = random.randrange(20)
    if roll < 12 or depth > 3:
        return random.choice(VALUES if random.random() < 0.96 else NO_VALUES)
    if roll < 16:
        return NOW + random.randint(-400, 400)
    if roll < 17:
        return "".join(map(chr, random.choices(range(0x250), k=random.randrange(8))))
    if roll < 19:
        return [odd_value(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(NAMES): odd_value(random, depth + 1) for _ in range(random.randrange(4))}


def odd_bytes(random: Random, data: bytes) -> bytes:
    """The bytes with one to four changes."""
    for _ in range(random.choice((1, 1, 1, 2, 3, 4))):
        at = random.randrange(len(data) + 1)
        to = min(len(data), at + random.choice((0, 1, 1, 2, 4, 30)))
        match random.randrange(6):
            case 0:  # a bit
                flipped = bytes([data[at] ^ 1 << random.randrange(8)]) if at < len(data) else b""
                data = data[:at] + flipped + data[at + 1 :]
            case 1:  # a piece in the place of another, or between
                data = data[:at] + random.choice(PIECES) + data[to:]
            case 2:  # a piece less
                data = data[:at] + data[to:]
            case 3:  # twice
                data = data[:to] + data[at:]
            case 4:  # an end less
                data = random.choice((data[:at], data[at:]))
            case 5:  # the case of letters
                data = data[:at] + data[at:to].swapcase() + data[to:]
    return data
