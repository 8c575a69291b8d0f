"""Closed-loop load by wrk: the number of answered requests and their statuses."""

import random
import re
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, count
from pathlib import Path

from benchmarks.proxies import Broken

CONNECTIONS = 32

_POST = 'wrk.method, wrk.body = "POST", string.rep(".", %d)'

_VARIED = """\
-- Each request has a path, an X-Request-Id and a Traceparent of its own.
local number = 0
function request()
    number = number + 1
    wrk.headers["X-Request-Id"] = string.format("0f1e2d3c-4b5a-6978-8796-%012x", number)
    wrk.headers["Traceparent"] = string.format("00-%032x-00f067aa0ba902b7-01", number)
    return wrk.format(nil, wrk.path .. number)
end
"""

_MIX_HEADERS = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "application/json, text/plain, */*",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "en-GB,en;q=0.9,de;q=0.7",
}

_USERS = """\
-- Users by Zipf's law (the n-th as often as 1/n), each with a token of its own; a new path and Traceparent in each request.
local tokens, sums, total, number, answered, refused = {}, {}, 0, 0, 0, 0
for line in io.lines("%(path)s") do
    tokens[#tokens + 1] = "Bearer " .. line
    total = total + 1 / #tokens
    sums[#tokens] = total
end
math.randomseed(%(seed)d)
function request()
    number = number + 1
    local sought, low, high = math.random() * total, 1, #tokens
    while low < high do
        local middle = math.floor((low + high) / 2)
        if sums[middle] < sought then low = middle + 1 else high = middle end
    end
    return wrk.format("GET", "/orders/" .. number, {
        ["Authorization"] = tokens[low],
        ["Traceparent"] = string.format("00-%%032x-00f067aa0ba902b7-01", number),
%(headers)s
    })
end
"""

_UNTIL = """\
-- Ends when `expected` answers have come.
function response(status)
    answered = answered + 1
    if status ~= 200 then refused = refused + 1 end
    if answered == %(expected)d then
        io.write(answered, " requests in -\\n  Non-2xx or 3xx responses: ", refused, "\\n")
        io.flush()
        os.exit(0)
    end
end
"""

_EACH_ONCE = """\
-- Sends each line of the file as a token, in turn.
local tokens, sent, answered, refused = {}, 0, 0, 0
for line in io.lines("%(path)s") do tokens[#tokens + 1] = line end
function request()
    sent = sent + 1
    return wrk.format("GET", nil, { ["Authorization"] = "Bearer " .. tokens[(sent - 1) %% #tokens + 1] })
end
"""


@dataclass(frozen=True)
class Load:
    """The counts of wrk."""

    requests: int
    refused: int
    """Answers other than 2xx and 3xx."""
    seconds: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def closed_loop(
    url: str,
    token: str | None,
    seconds: int,
    headers: Mapping[str, str] | None = None,
    connections: int = CONNECTIONS,
    body: int = 0,
    varied: bool = False,
) -> Load:
    """One token (None: no token) on all connections, each sending its next request when it has its answer.

    POSTs where `body` has a length; `varied`: no request is quite like another.
    """
    lines = {**({} if token is None else {"Authorization": f"Bearer {token}"}), **(headers or {})}
    flags = [part for name, value in lines.items() for part in ("-H", f"{name}: {value}")]
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        if body or varied:
            script.write(_POST % body if body else _VARIED)
            script.flush()
            flags += ["-s", script.name]
        return _wrk([f"-d{seconds}s", *flags, url], connections)


def each_once(url: str, tokens: Sequence[str], requests: int | None = None) -> Load:
    """Every token in one request, or, with `requests`, the tokens in turn until so many are answered."""
    with tempfile.TemporaryDirectory() as directory:
        listed, script = Path(directory, "tokens"), Path(directory, "each_once.lua")
        listed.write_text("\n".join(tokens))
        # The last tokens are spent by requests that are under way when enough are answered.
        expected = requests if requests is not None else len(tokens) - CONNECTIONS
        script.write_text((_EACH_ONCE + _UNTIL) % {"expected": expected, "path": listed})
        return _wrk(["-d3600s", "-s", str(script), url])


def users(url: str, tokens: Sequence[str], seconds: int, seed: int, requests: int | None = None) -> Load:
    """Requests of many users, as a service gets them, for so many seconds or until so many `requests` are answered."""
    with tempfile.TemporaryDirectory() as directory:
        listed, script = Path(directory, "tokens"), Path(directory, "mix.lua")
        listed.write_text("\n".join(tokens))
        headers = "\n".join(f'        ["{name}"] = "{value}",' for name, value in _MIX_HEADERS.items())
        said = {"path": listed, "seed": seed, "headers": headers, "expected": requests}
        script.write_text((_USERS if requests is None else _USERS + _UNTIL) % said)
        return _wrk([f"-d{seconds}s", "-s", str(script), url])


def users_requests(tokens: Sequence[str]) -> Iterator[bytes]:
    """The same requests, one by one, for other clients than wrk."""
    chances = random.Random(1)
    sums = list(accumulate(1 / rank for rank in range(1, len(tokens) + 1)))
    lines = "".join(f"{name}: {value}\r\n" for name, value in _MIX_HEADERS.items())
    for number in count(1):
        (token,) = chances.choices(tokens, cum_weights=sums)
        yield (
            f"GET /orders/{number} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
            f"Traceparent: 00-{number:032x}-00f067aa0ba902b7-01\r\n{lines}\r\n"
        ).encode()


def _wrk(arguments: Sequence[str], connections: int = CONNECTIONS) -> Load:
    began = time.monotonic()
    run = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", "--timeout", "10s", *arguments], capture_output=True, text=True, check=True
    )
    seconds = time.monotonic() - began
    counted = re.search(r"(\d+) requests in", run.stdout)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", run.stdout)
    if counted is None or "Socket errors" in run.stdout:
        raise Broken(f"wrk: {run.stdout}{run.stderr}")
    return Load(int(counted[1]), int(refused[1]) if refused else 0, seconds)
