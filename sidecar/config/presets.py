"""Reads `presets.yaml`, the settings of known issuers."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import AfterValidator, WithJsonSchema

from sidecar.config.values import nearest

Keys = Mapping[str, Any]

FILE = Path(__file__).with_suffix(".yaml")


class Preset(NamedTuple):
    """One entry of the file. The head of the file explains each field."""

    keys: Keys
    asks: Sequence[str] = ()
    may: Sequence[str] = ()
    given: Mapping[str, Keys] = MappingProxyType({})
    token_from: Sequence[Mapping[str, str]] = ({"header": "Authorization"},)
    fetch: Keys = MappingProxyType({})
    slash: bool | None = None

    @property
    def used(self) -> set[str]:
        """The keys of the issuer that the preset uses."""
        return {*self.asks, *self.may, *self.given}


def _read() -> Mapping[str, Preset]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, if PyYAML was built with libyaml
    entries: dict[str, dict[str, Any]] = yaml.load(FILE.read_bytes(), loader)  # noqa: S506  # both are safe
    return {name: Preset(**entry) for name, entry in entries.items()}


PRESETS = _read()


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"{{input}} is not a preset; one of: {', '.join(PRESETS)}{nearest(name, PRESETS)}")
    return name


PresetName = Annotated[str, AfterValidator(_preset), WithJsonSchema({"enum": list(PRESETS)})]
