"""Fixtures for every test."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.peers.clock import HandClock

# The suite tries the same inputs in each run, so its results repeat. `make explore` tries others.
settings.register_profile(
    "suite",
    max_examples=60,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", max_examples=1000, database=None, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
settings.load_profile("suite")

Need = Callable[..., str]


@pytest.fixture(scope="session")
def need() -> Need:
    """``need("node")`` gives the path of a program (or of a file that a preparation leaves behind) or skips the test.

    With JWT_SIDECAR_REQUIRE_ALL=1, as in ``.ci/run``, what is missing fails the test: there, nothing may be skipped.
    """

    def found(what: str, cure: str = "install it to run this test") -> str:
        path = shutil.which(what) or (what if Path(what).exists() else None)
        if path is None:
            missing = f"{what} is missing: {cure}"
            if os.environ.get("JWT_SIDECAR_REQUIRE_ALL") == "1":
                pytest.fail(missing)
            pytest.skip(missing)
        return path

    return found


@pytest.fixture
def clock() -> HandClock:
    """A clock that stands still until the test moves it."""
    return HandClock()
