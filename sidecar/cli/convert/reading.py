"""The common base of the importers: a foreign document that is read key by key, and the result with its comments."""

import itertools
import json
import re
from typing import Any

import yaml

UPSTREAM = "http://127.0.0.1:9292"


class NotUnderstood(Exception):
    """The file cannot be imported; the text says why."""


class Fields:
    """A mapping of a foreign document. Keys that are never taken are not imported.

    `where` is its path for messages. Keys may be in snake_case or camelCase: protobuf's JSON has both.
    """

    def __init__(self, document: object, where: str) -> None:
        if document is not None and not isinstance(document, dict):
            raise NotUnderstood(f"{where or 'the file'} is not a mapping")
        self.where = where
        self._left = dict(document or {})

    def take(self, name: str) -> Any:
        """Take the value of a key; None without it."""
        names = [key for key in dict.fromkeys((name, camel_case(name))) if key in self._left]
        if len(names) > 1:
            raise NotUnderstood(f"{self.below(name)} is given twice: as {names[0]} and as {names[1]}")
        return self._left.pop(names[0]) if names else None

    def text(self, name: str) -> str | None:
        """A text, or None without it. Raises NotUnderstood for anything else, as do the next functions."""
        value = self.take(name)
        return None if value is None else _text(value, self.below(name))

    def flag(self, name: str) -> bool:
        """A boolean, False without it."""
        value = self.take(name)
        if value not in (None, True, False):
            raise NotUnderstood(f"{self.below(name)} is neither true nor false")
        return bool(value)

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
        """The path of a key for messages."""
        return f"{self.where}.{name}".lstrip(".")

    def rest(self) -> dict[str, Any]:
        """The keys that were not taken, with their values."""
        return dict(self._left)

    def left(self) -> list[str]:
        """The paths of the keys that were not taken."""
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
    """The resulting configuration and its comments.

    It never accepts a request that the other configuration refuses. If that one may refuse a valid token, the result refuses
    every request (`close`). If that one accepts requests without a token, the result needs a token (`leave`). The operator
    changes both by hand.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = {"issuers": {}, "upstream": UPSTREAM}
        self.forward_preflights = False
        self._remarks: list[str] = []
        self._left: list[str] = []
        self._closed: list[str] = []
        self._quoted: list[object] = []
        self._settings: list[tuple[str, dict[str, Any]]] = []

    @property
    def equivalent(self) -> bool:
        """Is there nothing left to do by hand?"""
        return not self._closed and not self._left

    def remark(self, where: str, text: str) -> None:
        """Add a comment about a setting without effect on access."""
        _add(self._remarks, where, text)

    def leave(self, where: str, text: str) -> None:
        """Add a comment about a setting that accepts more than the result."""
        _add(self._left, where, text)

    def close(
        self, where: str, text: str = "is not imported, and may refuse or change requests; add an equivalent by hand"
    ) -> None:
        """Add a comment about a setting that may refuse a valid token, and refuse every request."""
        _add(self._closed, where, text)

    def close_left(self, fields: Fields) -> None:
        """Call `close` for every key that was not taken."""
        for place in fields.left():
            self.close(place)

    def quote(self, rules: object) -> None:
        """Quote foreign rules in the comments."""
        self._quoted.append(rules)

    def issuer(self, name: str, issuer: dict[str, Any], settings: dict[str, Any], where: str) -> None:
        """Add an issuer under a unique name, and the settings that all issuers share."""
        issuers = self.config["issuers"]
        if any(one["issuer"] == issuer["issuer"] for one in issuers.values()):
            self.close(
                where, f"is another provider for the issuer {issuer['issuer']}, which the sidecar can have only once"
            )
            self.quote({where: issuer | settings})
            return
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:60] or "issuer"
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        issuers[next(one for one in names if one not in issuers)] = issuer
        self._settings.append((where, settings))

    def finish(self) -> None:
        """Set the shared settings of all issuers, and the one route."""
        if not self.config["issuers"]:
            raise NotUnderstood("it names no issuer of tokens")
        if all(settings == self._settings[0][1] for _, settings in self._settings):
            self.config |= self._settings[0][1]
        else:
            for where, settings in self._settings:
                self.close(where, "has its own places of tokens or headers; in the sidecar all issuers share them")
                self.quote({where: settings})
        route: dict[str, Any] = {"path": "/*", "auth": "deny" if self._closed else "required"}
        if not self._closed and not self.forward_preflights:
            route["preflight"] = "reject"
        self.config["routes"] = [route]

    def text(self, source: str) -> str:
        """The YAML with the comments above it. `source` is the name of the foreign file."""
        lines = [f"From {source}, by jwt-sidecar import."]
        for heading, said in (
            ("Every request is refused until you write rules for this by hand:", self._closed),
            ("Every request needs a valid token. To accept more requests, write rules for this by hand:", self._left),
            ("Different in the sidecar, or not needed:", self._remarks),
        ):
            lines += [heading, *(f"- {text}" for text in said)] if said else []
        if self._quoted and not self.equivalent:
            lines.append("The original rules, which are not converted:")
            for rules in self._quoted:
                lines += [f"  {line}" for line in _yaml(rules).splitlines()]
        # A line break in a foreign name must not end the comment.
        comments = (f"# {''.join(char if char.isprintable() else ' ' for char in line)}\n" for line in lines)
        return "".join(comments) + _yaml(_escaped(self.config))


def _add(said: list[str], where: str, text: str) -> None:
    line = f"{where}: {text}"
    if line not in said:
        said.append(line)


def _escaped(value: Any) -> Any:
    """Escape $ in texts: the sidecar replaces ${NAME} from the environment."""
    if isinstance(value, dict):
        return {key: _escaped(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_escaped(item) for item in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def _yaml(document: object) -> str:
    return yaml.dump(document, Dumper=_InFull, sort_keys=False, allow_unicode=True, width=110)


class _InFull(yaml.SafeDumper):
    """Writes repeated values out, since the configuration has no aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Never use aliases."""
        return True


def camel_case(name: str) -> str:
    """A key of protobuf in the form of its JSON."""
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def decoded(text: str, where: str) -> object:
    """Parse JSON. Raises NotUnderstood."""
    try:
        document: object = json.loads(text)
    except (ValueError, RecursionError):
        raise NotUnderstood(f"{where} is not JSON") from None
    return document


def audiences_of(provider: Fields, imported: Imported) -> list[str] | str:
    """The accepted audiences of a provider."""
    audiences = provider.texts("audiences")
    if not audiences:
        imported.remark(
            provider.below("audiences"), "is missing, so tokens for other services are accepted; list yours"
        )
    if any(re.match("https?://", one) or one.endswith("/") for one in audiences):
        text = "must equal the audience in tokens exactly; Envoy ignores https:// and a slash at the end"
        imported.remark(provider.below("audiences"), text)
    return audiences or "any"


def keys_at(uri: str, issuer: dict[str, Any], where: str, imported: Imported) -> None:
    """Set the URI of the issuer's keys."""
    issuer["jwks_uri"] = uri
    if uri.startswith("http:"):
        issuer["allow_http"] = True
        imported.remark(
            where, "an attacker on the way can replace keys over plain http; use https if the issuer has it"
        )


def settings_of(
    provider: Fields, imported: Imported, *, prefix: str, forward: str, payload: str, headers: tuple[str, str, str]
) -> dict[str, Any]:
    """The settings of a provider's places of tokens and headers to the backend, by their keys."""
    settings: dict[str, Any] = {"token_from": _places(provider, prefix, imported)}
    settings["forward_token"] = provider.flag(forward)
    if header := provider.text(payload):
        settings["claims_header"] = header
        imported.remark(provider.below(payload), "holds the same claims, but not the token's exact bytes")
    claims: dict[str, str] = {}
    for entry in provider.items(headers[0]):
        name, claim = entry.text(headers[1]), entry.text(headers[2])
        if not name or not claim:
            raise NotUnderstood(f"{entry.where} names no header, or no claim")
        if name.lower() in {one.lower() for one in claims} or "\\" in claim:
            imported.close(entry.where, f"{name} for {claim} is not possible, or that header has another claim")
            continue
        claims[name] = claim
        imported.close_left(entry)
    return settings | ({"identity_headers": claims} if claims else {})


def _places(provider: Fields, prefix_key: str, imported: Imported) -> list[dict[str, str]]:
    places: list[dict[str, str]] = []
    for header in provider.items("from_headers"):
        name, prefix = header.text("name") or "", header.text(prefix_key) or ""
        if prefix and (not prefix.endswith(" ") or prefix.strip(" ") != prefix[:-1]):
            imported.close(header.below(prefix_key), f"{prefix!r} is not a word followed by a space")
        places.append({"header": name, "prefix": prefix.strip(" ")})
        imported.close_left(header)
    places += [{"cookie": cookie} for cookie in provider.texts("from_cookies")]
    places += [{"query": query} for query in provider.texts("from_params")]
    if not places:
        places = [{"header": "Authorization", "prefix": "Bearer"}, {"query": "access_token"}]
        imported.remark(
            provider.below("from_params"),
            "accepts tokens in ?access_token= too; remove that place if no client uses it",
        )
    return places
