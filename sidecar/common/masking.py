"""Tokens and API keys in texts that people read: found by what they are, however they are spelled, and masked."""

import json
import re
from base64 import urlsafe_b64decode
from urllib.parse import unquote

MASK = "***"
KEY = "jsk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}"  # a pattern; its group is the key's id
SHORTEST = 40  # characters of a token or a key
SHORTEST_HEADER = 12  # of the header of a token, which names at least its alg
MOST_ESCAPED = 3  # times that a text is unescaped: each program on a way may do so once
MOST_BEGINNINGS = 8  # of a JSON object in one part of a text; a part with more is taken for a token unread

# What tokens and API keys are made of. Each run is matched once: a path of many `eyJ` costs no more than any other.
_RUN = re.compile(r"[A-Za-z0-9_-]+(?:(?:=|%3[Dd]){0,2}(?:\.|%2[Ee])[A-Za-z0-9_-]*)*")
_ESCAPED_RUN = re.compile(r"(?:[A-Za-z0-9_.=-]|%[0-9A-Fa-f]{2}){40,}")
_KEY = re.compile(KEY)
_NOT_BASE64URL = re.compile(r"[^A-Za-z0-9_-]")
_OBJECT = re.compile("e[wy3]")  # `{` with what may follow it in JSON, in base64url


def without_tokens(text: str) -> str:
    """A text for a log or for people, with `***` for everything in it that is, or looks like, a JWT or an API key."""
    if len(text) >= SHORTEST and ("%" in text or text.count(".") >= 2):
        text = _ESCAPED_RUN.sub(lambda run: MASK if holds_credential(run[0]) else run[0], text)
    return _RUN.sub(_masked, text) if "eyJ" in text or "jsk_" in text else text


def holds_credential(text: str) -> bool:
    """Is there an API key in the text, or a token: three parts, the first of which is a JSON object?"""
    text = unescaped(text)
    if _KEY.search(text) is not None:
        return True
    parts = text.split(".")[:-2]  # a token's first part has two behind it
    return any(
        len(part) >= SHORTEST_HEADER and _is_object(_NOT_BASE64URL.split(part.rstrip("="))[-1]) for part in parts
    )


def unescaped(text: str) -> str:
    """What a text is behind its percent escapes, also where they were escaped again."""
    for _ in range(MOST_ESCAPED):
        if "%" not in text:
            break
        text = unquote(text, errors="replace")
    return text


def _is_object(part: str) -> bool:
    """Is a part of a text, or its end, a JSON object in base64url? White space may stand before the object."""
    beginnings = [match.start() for match in _OBJECT.finditer(part)]
    if len(beginnings) > MOST_BEGINNINGS:
        return True
    for begin in (0, *beginnings):
        try:
            encoded = part[begin:]
            if isinstance(json.loads(urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))), dict):
                return True
        except (ValueError, RecursionError):
            pass
    return False


def _masked(run: "re.Match[str]") -> str:
    text = run[0]
    token, key = text.find("eyJ"), text.find("jsk_")  # a JSON object in base64url begins so, and our keys
    begins = [at for at in (token, key) if at >= 0 and (at == key or "." in text[at:] or "%" in text[at:])]
    return f"{text[: min(begins)]}{MASK}" if begins else text
