"""Finds the issuer for the `iss` of a token: by the exact value, or by a template that a claim of the token fills.

A provider with many tenants uses a different `iss` for each. The template `https://login.example/{tid}/v2.0` stands for the `iss`
in which the token's own claim `tid` replaces `{tid}`, one segment of the path. Templates have no other patterns, and no pattern
in the host.
"""

import re
from collections.abc import Mapping
from typing import Any

_TEMPLATE = re.compile(r"([^{}]*)\{([^{}]+)\}([^{}]*)")
_SEGMENT = re.compile(r"[A-Za-z0-9_~-][A-Za-z0-9._~-]*")


class IssuerTemplate:
    """An `iss` with one placeholder for a claim of the token."""

    __slots__ = ("_after", "_before", "claim")

    def __init__(self, text: str) -> None:
        parts = _TEMPLATE.fullmatch(text)
        assert parts is not None, "the configuration checks templates"
        self._before, self.claim, self._after = parts.groups()

    def filled(self, value: object) -> str | None:
        """The `iss` with this value in place of the placeholder; None if the value is no path segment."""
        if not isinstance(value, str) or _SEGMENT.fullmatch(value) is None:
            return None
        return f"{self._before}{value}{self._after}"

    def filled_by(self, claims: Mapping[str, Any]) -> str | None:
        """The `iss` filled with the token's claim; None if that is no path segment."""
        return self.filled(claims.get(self.claim))

    def value_in(self, iss: str) -> str | None:
        """The value at the placeholder of an `iss`; None if the `iss` does not match this template."""
        value = iss.removeprefix(self._before).removesuffix(self._after)
        return value if self.filled(value) == iss else None


def is_template(iss: str) -> bool:
    """Does the `iss` have a placeholder?"""
    return "{" in iss


class IssuerNames:
    """Maps every `iss` and template of the configured issuers to the issuer's name."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.texts = tuple(names)
        self._names = {iss: name for iss, name in names.items() if not is_template(iss)}
        self._spellings: dict[str, list[str]] = {}
        for iss, name in self._names.items():
            self._spellings.setdefault(name, []).append(iss)
        self._templates = [(IssuerTemplate(text), name) for text, name in names.items() if is_template(text)]

    def __contains__(self, iss: str) -> bool:
        return self.name_of(iss) is not None

    def name_of(self, iss: str) -> str | None:
        """The name of the issuer with this `iss`; None if there is none."""
        if iss in self._names:
            return self._names[iss]
        return next((name for template, name in self._templates if template.value_in(iss) is not None), None)

    def spellings(self, name: str, iss: object) -> list[str]:
        """Every `iss` of the issuer with this name that is equivalent to `iss`."""
        exact = self._spellings.get(name, [])
        templates = [template for template, of in self._templates if of == name]
        if not templates or not isinstance(iss, str):
            return exact
        values = {value for template in templates if (value := template.value_in(iss)) is not None}
        return exact + [text for template in templates for value in values if (text := template.filled(value))]
