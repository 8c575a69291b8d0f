"""Real peers for the tests: an issuer, a backend and a client that misbehave to the byte, and tokens of all kinds."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

PATIENCE_S = 60.0  # longer than any wait on a busy machine: a longer wait hangs, and the test says where


class Impatient(AssertionError):
    """A test has waited for something in vain."""


@asynccontextmanager
async def patience(what: str) -> AsyncIterator[None]:
    """Raise Impatient, with the name `what`, if the block takes longer than PATIENCE_S."""
    try:
        async with asyncio.timeout(PATIENCE_S) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise Impatient(f"waited {PATIENCE_S:g} s for {what}") from None


class Tally:
    """A number that only grows; a test can wait for a value."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.count = 0
        self._grown = asyncio.Event()

    def add(self) -> None:
        """Count one more."""
        self.count += 1
        self._grown.set()
        self._grown = asyncio.Event()

    async def reach(self, n: int) -> None:
        """Return as soon as the number is `n`."""
        async with patience(f"{n} {self.what}, had {self.count}"):
            while self.count < n:
                await self._grown.wait()

    def __repr__(self) -> str:
        return f"<{self.count} {self.what}>"
