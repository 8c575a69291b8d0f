"""Fixtures for the tests of tokens."""

import pytest

from tests.jwt.issuers import Issuers
from tests.peers.clock import HandClock


@pytest.fixture
def issuers(clock: HandClock) -> Issuers:
    """Issuers whose keys are there already."""
    return Issuers(clock)
