"""The cost of a request on the gateway leg (a warm API key) and on the sidecar leg (the token that the gateway sends).

CPU time of the process per request, wrk on the other core, nginx as the origin of both; the legs take turns.
"""

import contextlib
import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.origin import nginx_origin
from benchmarks.process import PROXY_CORE, Process, reserved_port, running
from benchmarks.proxies import Broken
from benchmarks.wrk import closed_loop
from sidecar.gateway.api_keys import NEVER, ApiKey
from sidecar.gateway.key_ring import TimedKey
from sidecar.gateway.signing_key import SigningKey, key_set

ISSUER, AUDIENCE = "https://gateway.bench/issuer", "bench"


def measure(directory: Path, alg: str, rounds: int, seconds: int) -> dict[str, list[float]]:
    """Microseconds per request of each leg, a value for each round."""
    directory.mkdir()
    key = SigningKey.generate(alg)
    entry, secret = ApiKey.new("bench", ("orders:read", "orders:write"), {}, NEVER)
    (directory / "api-keys.json").write_text(json.dumps({"keys": [entry.document()]}))
    (directory / "signing-keys.json").write_text(json.dumps({"keys": [TimedKey(key).document()]}))
    (directory / "jwks.json").write_text(json.dumps(key_set([key])))
    now = int(time.time())
    token = key.sign({"iss": ISSUER, "aud": AUDIENCE, **entry.holder().claims, "iat": now, "exp": now + 86_400})
    with contextlib.ExitStack() as stack:
        origin = f"http://127.0.0.1:{stack.enter_context(nginx_origin(directory / 'origin'))}"
        signing = {"issuer": ISSUER, "keys_file": str(directory / "signing-keys.json")}
        gateway = {
            "api_keys": {"file": str(directory / "api-keys.json")},
            "signing": signing,
            "upstreams": {"origin": {"url": origin, "token": {"audience": AUDIENCE, "algorithm": alg}}},
            "routes": [{"path": "/*", "auth": "api_key"}],
        }
        trusted = {"issuer": ISSUER, "audiences": [AUDIENCE], "jwks_file": str(directory / "jwks.json")}
        sidecar = {"issuers": {"gateway": trusted}, "upstream": origin}
        legs = {
            "gateway": (stack.enter_context(serving(directory / "gateway", gateway, secret)), secret),
            "sidecar": (stack.enter_context(serving(directory / "sidecar", sidecar, token)), token),
        }
        costs: dict[str, list[float]] = {leg: [] for leg in legs}
        for number in range(rounds + 1):
            for leg, ((process, port), credentials) in legs.items():
                before = process.cpu_s()
                load = closed_loop(f"http://127.0.0.1:{port}/", credentials, seconds)
                if load.refused:
                    raise Broken(f"{leg} refused {load.refused} of {load.requests}")
                if number:  # the first one warms up
                    costs[leg].append((process.cpu_s() - before) / load.requests * 1e6)
        return costs


@contextlib.contextmanager
def serving(directory: Path, config: dict[str, Any], credentials: str) -> Any:
    """(the process, its port), once it lets these credentials in."""
    directory.mkdir()
    listeners = {name: {"listen": "127.0.0.1:0"} for name in ("health", "admin")}
    command = [str(Path(sys.executable).with_name("jwt-sidecar")), "run", "-c", "config.yaml"]
    with reserved_port() as port:
        settings = {"listen": f"127.0.0.1:{port}", **listeners, "access_log": "off", "claims_header": "off", **config}
        (directory / "config.yaml").write_text(json.dumps(settings))
        with running(command, directory, PROXY_CORE) as process:
            await_served(process, port, credentials)
            yield process, port


def await_served(process: Process, port: int, credentials: str) -> None:
    """Return when the first request has been let in."""
    ends = time.monotonic() + 20
    while time.monotonic() < ends and process.alive():
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
            connection.request("GET", "/", headers={"Authorization": f"Bearer {credentials}"})
            if connection.getresponse().status == 200:
                return
        time.sleep(0.05)
    raise Broken(f"it lets nobody in: {process.output.read_text()}")
