"""Masks tokens and API keys in texts for people, also where the text escapes them."""

import json
import re
from base64 import urlsafe_b64decode
from urllib.parse import unquote

MASK = "***"
KEY = "jsk_([0-9a-f]{16})_[A-Za-z0-9_-]{43}"  # a pattern; the group is the key's id
SHORTEST = 40  # characters of a token or a key
SHORTEST_HEADER = 12  # of a token's header, which names at least its alg
MOST_ESCAPED = 3  # times that a text is unescaped: each program on the way may escape once
MOST_BEGINNINGS = 8  # of a JSON object in one part of a text; a part with more counts as a token
MOST_PARTS = 32  # of a text with such beginnings; a text with more counts as a token, since each takes time

# The characters of tokens and API keys. Each run is matched once, so a path of many `eyJ` costs no more than any other.
_RUN = re.compile(r"[A-Za-z0-9_-]+(?:(?:=|%3[Dd]){0,2}(?:\.|%2[Ee])[A-Za-z0-9_-]*)*")
_ESCAPED_RUN = re.compile(r"(?:[A-Za-z0-9_.=-]|%[0-9A-Fa-f]{2}){40,}")
_KEY = re.compile(KEY)
_NOT_BASE64URL = re.compile(r"[^A-Za-z0-9_-]")
_OBJECT = re.compile("e[wy3]")  # `{` and the next character of a JSON object, in base64url


def without_tokens(text: str) -> str:
    """The text with `***` in place of everything that is, or looks like, a JWT or an API key."""
    if len(text) >= SHORTEST and ("%" in text or text.count(".") >= 2):
        text = _ESCAPED_RUN.sub(lambda run: MASK if holds_credential(run[0]) else run[0], text)
    return _RUN.sub(_masked, text) if "eyJ" in text or "jsk_" in text else text


def holds_credential(text: str) -> bool:
    """Does the text hold an API key or a token (three parts, the first one a JSON object)?"""
    text = unescaped(text)
    if _KEY.search(text) is not None:
        return True
    parts = text.split(".")[:-2]  # two parts follow a token's first part
    long = [part for part in parts if len(part) >= SHORTEST_HEADER]
    if sum(_OBJECT.search(part) is not None for part in long) > MOST_PARTS:
        return True
    return any(_is_object(_NOT_BASE64URL.split(part.rstrip("="))[-1]) for part in long)


def unescaped(text: str) -> str:
    """The text with its percent escapes decoded, up to MOST_ESCAPED times."""
    for _ in range(MOST_ESCAPED):
        if "%" not in text:
            break
        text = unquote(text, errors="replace")
    return text


def _is_object(part: str) -> bool:
    """Is the part, or its end, a JSON object in base64url? White space before the object is allowed."""
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
    token, key = text.find("eyJ"), text.find("jsk_")  # how JSON objects in base64url begin, and how API keys begin
    begins = [at for at in (token, key) if at >= 0 and (at == key or "." in text[at:] or "%" in text[at:])]
    return f"{text[: min(begins)]}{MASK}" if begins else text
