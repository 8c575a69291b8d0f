"""A backend on 127.0.0.1:9292 that may start and stop slowly: `python -m tests.proofs.rollout_backend '{"start": 6, ...}'`.

After SIGTERM it accepts nothing, closes idle connections, answers what it has, and ends `stop` seconds later.
"""

import asyncio
import json
import signal
import sys


async def main(start: float, stop: float, answer: float) -> None:
    """Until SIGTERM."""
    await asyncio.sleep(start)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended = asyncio.create_task(stopping.wait())
        while not stopping.is_set():
            head = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
            await asyncio.wait({head, ended}, return_when=asyncio.FIRST_COMPLETED)
            if not head.done() or head.exception() is not None:
                head.cancel()
                break
            await asyncio.sleep(answer)
            close = b"Connection: close\r\n" if stopping.is_set() else b""
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + close + b"\r\nok")
        ended.cancel()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 9292)
    await stopping.wait()
    server.close()
    await asyncio.sleep(max(stop, answer + 0.1))


if __name__ == "__main__":
    asyncio.run(main(**json.loads(sys.argv[1])))
