"""The limits of the shipped configuration fit the limit of the shipped pod, by the figures of docs/how/size.md."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sidecar import config
from sidecar.config import Config
from tests.deploy.conftest import DEPLOY

PAGE = (Path(__file__).parents[2] / "docs" / "how" / "size.md").read_text()
UNITS = {"byte": 1, "bytes": 1, "KiB": 1 << 10, "MiB": 1 << 20}
PARTS: dict[str, int | str] = {
    "the process": 1,
    "bodies and heads that wait for a slow peer": "buffered_bytes",
    "a connection of a client": "connections",
    "a request in flight or a WebSocket, with its connection to the backend": "in_flight",
    "remembered tokens": "most_bytes",
}


def figure(part: str) -> float:
    """Bytes that one of these needs, as the page says."""
    found = re.search(rf"^\| {re.escape(part)} \| ([0-9.]+) (byte|bytes|KiB|MiB) \|", PAGE, re.MULTILINE)
    assert found, part
    return float(found[1]) * UNITS[found[2]]


def needed(settings: Config) -> float:
    """Bytes that a process needs at its limits."""
    most = settings.limits.model_dump() | settings.token_cache.model_dump()
    return sum(figure(part) * (most[of] if isinstance(of, str) else of) for part, of in PARTS.items())


def smallest(**limits: int) -> Config:
    """A configuration with defaults and these limits."""
    text = (
        f"issuers: {{a: {{issuer: https://a.test/, audiences: [a]}}}}\nupstream: http://127.0.0.1:1\nlimits: {limits}"
    )
    return config.parse(text, environ={})


def memory(container: dict[str, Any]) -> int:
    return int(container["resources"]["limits"]["memory"].removesuffix("Mi")) << 20


def test_the_memory_for_the_default_limits_fits_every_shipped_limit() -> None:
    [native] = yaml.safe_load((DEPLOY / "kustomize/component/sidecar.yaml").read_text())["spec"]["template"]["spec"][
        "initContainers"
    ]
    values = yaml.safe_load((DEPLOY / "helm/jwt-sidecar/values.yaml").read_text())
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["jwt-sidecar"]
    unit = re.search(r"^MemoryMax=(\d+)M$", (DEPLOY / "systemd/jwt-sidecar.service").read_text(), re.MULTILINE)
    assert unit
    limits = [memory(native), memory(values), int(compose["mem_limit"].removesuffix("m")) << 20, int(unit[1]) << 20]
    assert needed(smallest()) <= min(limits)


def test_the_page_shows_the_computed_memory() -> None:
    assert f"**{needed(smallest()) / (1 << 20):.0f} MiB**" in PAGE


def test_the_example_needs_no_more_memory_than_the_defaults() -> None:
    assert needed(config.load(DEPLOY.parent / "config.yaml", environ={})) <= needed(smallest())


@pytest.mark.parametrize("limit", ["buffered_bytes", "connections", "in_flight"])
def test_each_limit_adds_to_the_computed_memory(limit: str) -> None:
    assert needed(smallest(**{limit: 2 * getattr(smallest().limits, limit)})) > needed(smallest())
