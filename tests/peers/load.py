"""Clients that send requests without a pause during a block, and count every wrong answer."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tests.peers import patience
from tests.peers.raw import RawClient
from tests.peers.wire import Truncated

Address = tuple[str, int]


class Load:
    """The results of the clients: `answers` by status, and `failed`: requests without an answer, refused connections."""

    def __init__(self, where: Callable[[], Address], raw: bytes) -> None:
        self.answers: Counter[int] = Counter()
        self.failed: list[str] = []
        self._where = where
        self._raw = raw
        self._ending = False

    @property
    def lost(self) -> dict[str, object]:
        """Every answer but 200; empty if there is none."""
        wrong = {str(status): number for status, number in self.answers.items() if status != 200}
        return wrong | ({"failed": self.failed} if self.failed else {})

    async def more(self, number: int) -> None:
        """Return after this many further answers."""
        goal = self.answers.total() + number
        async with patience(f"{number} further answers; lost so far: {self.lost}"):
            while self.answers.total() < goal:
                await asyncio.sleep(0.001)

    async def client(self) -> None:
        """One client: it keeps its connection as long as the sidecar does, then opens another at `where()`."""
        while not self._ending:
            address = self._where()
            try:
                async with RawClient.to(address) as client:
                    while not self._ending:
                        answer = await client.request(self._raw)
                        self.answers[answer.status] += 1
                        if answer.get("connection") == "close":
                            break
            except (OSError, Truncated) as error:
                self.failed.append(f"{address}: {error!r}")

    def end(self) -> None:
        """Each client ends after its answer."""
        self._ending = True


@asynccontextmanager
async def load(where: Callable[[], Address], raw: bytes, clients: int = 20) -> AsyncIterator[Load]:
    """Clients that send `raw` to `where()` until the end of the block."""
    seen = Load(where, raw)
    tasks = [asyncio.create_task(seen.client()) for _ in range(clients)]
    try:
        yield seen
    finally:
        seen.end()
        async with patience("the clients to end"):
            await asyncio.gather(*tasks)
