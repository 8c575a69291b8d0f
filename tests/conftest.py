"""Fixtures for every test."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# A busy machine is no finding.
settings.register_profile("sidecar", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("sidecar")

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
