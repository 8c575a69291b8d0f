"""What all importers share: a foreign document that is read key by key, and the result with its remarks."""

import json
import re
from typing import Any

import yaml


class NotUnderstood(Exception):
    """The file is not one that can be imported; the text says why."""


class Fields:
    """A mapping of a foreign document. What is never taken from it has no equivalent.

    `where` is its path for people. Keys may be in snake_case or camelCase: protobuf's JSON has both.
    """

    def __init__(self, document: object, where: str) -> None:
        if document is not None and not isinstance(document, dict):
            raise NotUnderstood(f"{where or 'the file'} is not a mapping")
        self.where = where
        self._left = dict(document or {})

    def take(self, name: str) -> Any:
        """The value of a key, once; None without it."""
        camel = re.sub("_(.)", lambda match: match[1].upper(), name)
        return self._left.pop(name, self._left.pop(camel, None))

    def text(self, name: str) -> str | None:
        """A text, or None without it. Raises NotUnderstood for anything else, as those below."""
        value = self.take(name)
        return None if value is None else _text(value, self.below(name))

    def texts(self, name: str) -> list[str]:
        """A list of texts, empty without it."""
        return [_text(item, self.below(name)) for item in _list(self.take(name), self.below(name))]

    def fields(self, name: str) -> "Fields":
        """A mapping; an empty one without it."""
        return Fields(self.take(name), self.below(name))

    def mappings(self, name: str) -> dict[str, "Fields"]:
        """The mappings in a mapping, by their names; none without it."""
        inner = self.fields(name)
        return {key: Fields(value, inner.below(key)) for key, value in inner._left.items()}

    def items(self, name: str) -> list["Fields"]:
        """The mappings in a list; none without it."""
        return [
            Fields(item, f"{self.below(name)}.{number}")
            for number, item in enumerate(_list(self.take(name), self.below(name)))
        ]

    def below(self, name: str) -> str:
        """The path of a key for people."""
        return f"{self.where}.{name}".lstrip(".")

    def untaken(self, name: str) -> None:
        """Something below was taken, and turned out to have no equivalent."""
        self._left[name] = None

    def left(self) -> list[str]:
        """The paths of what was not taken."""
        return [self.below(name) for name in self._left]

    def __bool__(self) -> bool:
        return bool(self._left)


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise NotUnderstood(f"{where} is not a text")
    return value


def _list(value: object, where: str) -> list[Any]:
    if value is not None and not isinstance(value, list):
        raise NotUnderstood(f"{where} is not a list")
    return value or []


class Imported:
    """Our configuration as it grows, and the remarks: what is left out, and what means something else here."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"issuers": {}}
        self.remarks: list[str] = []

    def remark(self, where: str, text: str) -> None:
        """Say something about a place of the foreign file, once."""
        remark = f"{where}: {text}"
        if remark not in self.remarks:
            self.remarks.append(remark)

    def left_out(self, fields: Fields) -> None:
        """Name what was not taken."""
        for place in fields.left():
            self.remark(place, "has no equivalent; left out")

    def once(self, key: str, value: Any, where: str) -> None:
        """Set what is the same for all issuers here; the first wins."""
        if self.config.setdefault(key, value) != value:
            self.remark(where, f"{key} is the same for all issuers here; {value!r} is left out")

    def header(self, header: str | None, claim: str | None, where: str) -> None:
        """Have a claim sent to the backend."""
        if header is None or claim is None:
            raise NotUnderstood(f"{where} names no header, or no claim")
        headers = self.config.setdefault("identity_headers", {})
        if headers.setdefault(header, claim) != claim:
            self.remark(where, f"{header} holds {headers[header]} here; {claim} is left out")

    def token_from(self, source: dict[str, str]) -> None:
        """Look for tokens there too."""
        sources = self.config.setdefault("token_from", [])
        if source not in sources:
            sources.append(source)

    def route(self, route: dict[str, Any], where: str) -> None:
        """Add a rule, unless an earlier one is for the same requests: here the first decides."""
        if any(all(one.get(key) == route.get(key) for key in _REQUESTS) for one in self.routes):
            self.remark(where, "an earlier rule is for the same requests, and the first decides here; left out")
        else:
            self.routes.append(route)

    @property
    def routes(self) -> list[dict[str, Any]]:
        """The rules so far."""
        routes: list[dict[str, Any]] = self.config.setdefault("routes", [])
        return routes

    def text(self, source: str) -> str:
        """The YAML with the remarks above it. `source` is what it was made from."""
        lines = [f"# From {source}, by jwt-sidecar import."]
        if self.remarks:
            lines += ["# Has no equivalent, or means something else here:", *(f"# - {text}" for text in self.remarks)]
        # A line break in a foreign name must not end the comment.
        comments = "\n".join("".join(char if char.isprintable() else " " for char in line) for line in lines)
        return f"{comments}\n{yaml.dump(self.config, Dumper=_InFull, sort_keys=False, allow_unicode=True, width=110)}"


class _InFull(yaml.SafeDumper):
    """Writes out what comes twice, since our files have no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """For nothing."""
        return True


_REQUESTS = ("path", "path_regex", "methods", "hosts")


def name_of(name: str) -> str:
    """A name of ours for one of theirs."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:63] or "issuer"


def pattern_of(prefix: str) -> str:
    """The regular expression for every path that begins so."""
    return re.escape(prefix).replace("\\-", "-") + ".*"


def decoded(text: str, where: str) -> object:
    """The JSON that a text holds. Raises NotUnderstood."""
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        raise NotUnderstood(f"{where} is not JSON") from None
    return document


def tokens_from(fields: Fields, prefix: str, imported: Imported) -> None:
    """Take the places where tokens come; `prefix` is the name of the key for a header's."""
    sources = [
        {"header": header.text("name") or "", "prefix": (header.text(prefix) or "").strip()}
        for header in fields.items("from_headers")
    ]
    sources += [{"cookie": cookie} for cookie in fields.texts("from_cookies")]
    sources += [{"query": query} for query in fields.texts("from_params")]
    if not sources:
        sources.append({"header": "Authorization", "prefix": "Bearer"})
        imported.remark(
            fields.below("from_params"), "tokens in ?access_token= are not taken; add {query: access_token}"
        )
    for source in sources:
        imported.token_from(source)
