"""Programs as separate processes."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.peers import patience


@asynccontextmanager
async def run(*command: str, announces: str, never: str = "Traceback") -> AsyncIterator[str]:
    """Run a program until the block ends.

    `announces` is a pattern for what the program prints once it listens; its group is the address that comes out. `never` is what
    it must not print after that.
    """
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        async with patience(f"{command[0]} to listen"):
            address = await _announced(process, announces)
        yield address
        process.terminate()
        async with patience(f"{command[0]} to end after SIGTERM"):
            rest, _ = await process.communicate()
        print(rest.decode())
        assert never not in rest.decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def _announced(process: asyncio.subprocess.Process, pattern: str) -> str:
    assert process.stdout is not None
    output = ""
    async for line in process.stdout:
        print(line.decode(), end="")
        output += line.decode()
        if match := re.search(pattern, output, re.DOTALL):
            return match[1]
    pytest.fail("the process ended before it listened")
