"""`make rollout`: a rolling restart of the shipped manifests under load, with no request lost.

There is no kubelet for a test machine, so `Pod` does what one does, step by step, with the rendered manifests' own numbers, hooks
and probes (https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/ and .../pod-lifecycle/#pod-termination-flow):

- Init containers start in order; a native sidecar counts as started once its start-up probe succeeds. Then the others start.
- A pod is ready when each container with a readiness probe is, and all run.
- At its end every preStop hook runs at once; a container gets SIGTERM after its own, a native sidecar only when the others have
  ended. What is there when the grace period is over is killed.

A pod is a network namespace and its containers are processes in it. `Service` does what a cluster's Service does, as late as a
cluster does. Needs root, and tests.deploy.tools.
"""

import argparse
import asyncio
import ctypes
import json
import os
import random
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from sidecar.cli.dev.issuer import Issuer
from sidecar.gateway.signing_key import key_set
from tests.deploy.tools import BIN
from tests.peers.raw import read_response
from tests.peers.wire import request

ROOT = Path(__file__).parents[2]
LATE_S = 3.0  # until the whole cluster knows of a change; the hooks allow for 5
CLIENTS = 16
SLOW = {"start": 6.0, "stop": 8.0, "answer": 0.05}
QUICK = {"start": 0.0, "stop": 0.0, "answer": 0.05}
BROKEN = {
    "pre-stop": lambda pod: pod["containers"][0].pop("lifecycle"),
    "readiness": lambda pod: sidecar_of(pod)["readinessProbe"]["httpGet"].update(path="/readyz"),
}
Manifest = dict[str, Any]


def sidecar_of(pod: Manifest) -> Manifest:
    """The sidecar's container."""
    found: Manifest
    [found] = [one for one in [*pod.get("initContainers", []), *pod["containers"]] if one["name"] == "jwt-sidecar"]
    return found


@contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Sockets made here are in the pod's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net") as before, open(f"/run/netns/{namespace}") as there:
        assert libc.setns(there.fileno(), 0) == 0
        try:
            yield
        finally:
            assert libc.setns(before.fileno(), 0) == 0


async def connect(namespace: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to a port of the pod."""
    with inside(namespace):
        opened = socket.socket()
    opened.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(opened, ("127.0.0.1", port))
    except OSError:
        opened.close()
        raise
    return await asyncio.open_connection(sock=opened)


class Pod:
    """One pod, run like a kubelet does. `faults` has the events that a kubelet would report."""

    number = 0

    def __init__(self, spec: Manifest, directory: Path, backend: dict[str, float]) -> None:
        Pod.number += 1
        self.name = f"jwt-rollout-{os.getpid()}-{Pod.number}"
        self.faults: list[str] = []
        self.ready = self.terminating = False
        self._spec = spec
        self._directory = directory
        self._backend = backend
        self._running: dict[str, asyncio.subprocess.Process] = {}
        self._ready: dict[str, bool] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def port(self) -> int:
        """The address for clients."""
        return int(sidecar_of(self._spec)["ports"][0]["containerPort"])

    async def start(self) -> None:
        """Start it; it is ready when its probes succeed."""
        await said("ip", "netns", "add", self.name)
        await said("ip", "netns", "exec", self.name, "ip", "link", "set", "lo", "up")
        for container in self._spec.get("initContainers", []):
            assert container["restartPolicy"] == "Always", "the examples have native sidecars only"
            await self._begin(container)
            await self._until(container, "startupProbe")
        for container in self._spec["containers"]:
            await self._begin(container)
        for container in self._spec["containers"]:
            if "startupProbe" in container:
                await self._until(container, "startupProbe")
        for container in [*self._spec.get("initContainers", []), *self._spec["containers"]]:
            self._ready[container["name"]] = "readinessProbe" not in container
            for probe, told in (("readinessProbe", self._is_ready), ("livenessProbe", self._is_alive)):
                if probe in container:
                    self._tasks.append(asyncio.create_task(self._follow(container, probe, told)))

    async def _begin(self, container: Manifest) -> None:
        backend = container is self._spec["containers"][0]
        command = ["tests.proofs.rollout_backend", json.dumps(self._backend)] if backend else ["sidecar", *self._run()]
        self._running[container["name"]] = await asyncio.create_subprocess_exec(
            *("ip", "netns", "exec", self.name, sys.executable, "-m", *command),
            cwd=ROOT,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )

    def _run(self) -> list[str]:
        return ["run", "-c", str(self._directory / "config.yaml")]

    async def _asked(self, container: Manifest, probe: Manifest) -> bool:
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        asked = probe["httpGet"]
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                reader, writer = await connect(self.name, named.get(asked["port"], asked["port"]))
                writer.write(request("GET", asked["path"]))
                answer = await read_response(reader)
                writer.close()
        except (OSError, TimeoutError, EOFError):
            return False
        return 200 <= answer.status < 400

    async def _until(self, container: Manifest, probe: str) -> None:
        settings = container[probe]
        for _ in range(settings["failureThreshold"]):
            if await self._asked(container, settings):
                return
            await asyncio.sleep(settings.get("periodSeconds", 10))
        self.faults.append(f"{container['name']}: {probe} never succeeded")

    async def _follow(self, container: Manifest, probe: str, told: Callable[[str, bool], None]) -> None:
        settings, failures = container[probe], 0
        while not self.terminating or probe == "readinessProbe":
            good = await self._asked(container, settings)
            failures = 0 if good else failures + 1
            if good or failures >= settings.get("failureThreshold", 3):
                told(container["name"], good)
            await asyncio.sleep(settings.get("periodSeconds", 10))

    def _is_ready(self, name: str, good: bool) -> None:
        self._ready[name] = good
        self.ready = all(self._ready.values())

    def _is_alive(self, name: str, good: bool) -> None:
        if not good:
            self.faults.append(f"{name}: killed by its liveness probe")

    async def end(self) -> None:
        """Terminate it, within its grace period."""
        self.terminating = True
        natives = [one for one in self._spec.get("initContainers", []) if one.get("restartPolicy") == "Always"]
        hooks = {one["name"]: asyncio.create_task(self._hook(one)) for one in [*natives, *self._spec["containers"]]}

        async def orderly() -> None:
            await asyncio.gather(*(self._stop(one["name"], hooks) for one in self._spec["containers"]))
            for one in reversed(natives):
                await self._stop(one["name"], hooks)

        try:
            async with asyncio.timeout(self._spec["terminationGracePeriodSeconds"]):
                await orderly()
        except TimeoutError:
            left = [name for name, process in self._running.items() if process.returncode is None]
            self.faults.append(f"killed at the end of the grace period: {', '.join(left)}")
        await self.away()

    async def _hook(self, container: Manifest) -> None:
        match container.get("lifecycle", {}).get("preStop"):
            case {"sleep": {"seconds": seconds}}:
                await asyncio.sleep(seconds)
            case {"exec": {"command": [_, *arguments]}}:
                there = [str(self._directory / "config.yaml") if one.startswith("/etc/") else one for one in arguments]
                await said("ip", "netns", "exec", self.name, sys.executable, "-m", "sidecar", *there)

    async def _stop(self, name: str, hooks: dict[str, asyncio.Task[None]]) -> None:
        await hooks[name]
        self._running[name].terminate()
        if code := await self._running[name].wait():
            self.faults.append(f"{name}: ended with {code}")

    async def away(self) -> None:
        """Remove it completely."""
        for task in self._tasks:
            task.cancel()
        for process in self._running.values():
            if process.returncode is None:
                process.kill()
                await process.wait()
        await said("ip", "netns", "del", self.name)


async def said(*command: str) -> None:
    """Run a command, which must succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 0, f"{' '.join(command)}: {err.decode()}"


class Service:
    """The pods that get new connections; the cluster learns of changes `LATE_S` later."""

    def __init__(self) -> None:
        self.pods: list[Pod] = []
        self.endpoints: list[Pod] = []

    async def follow(self) -> None:
        """For ever."""
        while True:
            seen = [pod for pod in self.pods if pod.ready and not pod.terminating]
            asyncio.get_running_loop().call_later(LATE_S, self._know, seen)
            await asyncio.sleep(0.1)

    def _know(self, seen: list[Pod]) -> None:
        self.endpoints = seen


class Load:
    """Clients that keep their connections, and clients that do not. `results` counts what each request came to."""

    def __init__(self, service: Service, token: str) -> None:
        self.results: Counter[str] = Counter()
        self._service = service
        self._raw = request("GET", "/", token=token)

    async def client(self, keeps: bool) -> None:
        """Sends requests with pauses, without end."""
        writer: asyncio.StreamWriter | None = None
        while True:
            try:
                if writer is None:
                    pod = random.choice(self._service.endpoints)
                    reader, writer = await connect(pod.name, pod.port)
                writer.write(self._raw)
                async with asyncio.timeout(15):  # wait_for can lose a cancellation on 3.11
                    answer = await read_response(reader)
                self.results[str(answer.status)] += 1
                if not keeps or answer.get("connection") == "close":
                    writer.close()
                    writer = None
            except (OSError, EOFError, TimeoutError) as error:
                self.results[f"lost: {type(error).__name__}"] += 1
                writer = None
            await asyncio.sleep(0.01)


async def rollout(spec: Manifest, replicas: int, backend: dict[str, float]) -> tuple[Counter[str], list[str]]:
    """Replace every pod, with one more than the replicas (maxSurge 25 %, rounded up). What came of the requests; faults."""
    issuer = Issuer("https://issuer.test", audience="api")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "keys.json").write_text(json.dumps(key_set(issuer.keys)))
        trusted = {"issuer": issuer.issuer, "audiences": ["api"], "jwks_file": "keys.json"}
        settings = {"issuers": {"main": trusted}, "upstream": "http://127.0.0.1:9292", "access_log": "off"}
        (directory / "config.yaml").write_text(json.dumps(settings))
        service = Service()
        tasks = [asyncio.create_task(service.follow())]
        try:
            for _ in range(replicas):
                await one_more(service, Pod(spec, directory, backend))
            old = list(service.pods)
            await asyncio.sleep(LATE_S + 0.5)
            load = Load(service, issuer.mint("EdDSA", sub="alice"))
            clients = [asyncio.create_task(load.client(number % 2 == 0)) for number in range(CLIENTS)]
            endings = []
            await asyncio.sleep(1)
            for pod in old:
                await one_more(service, Pod(spec, directory, backend))
                endings.append(asyncio.create_task(pod.end()))
            await asyncio.gather(*endings)
            await asyncio.sleep(1)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
            return load.results, [fault for pod in service.pods for fault in pod.faults]
        finally:
            for task in tasks:
                task.cancel()
            for pod in service.pods:
                if not pod.terminating:
                    pod.terminating = True
                    await pod.away()


async def one_more(service: Service, pod: Pod) -> None:
    """Start a pod, and wait until it is ready."""
    service.pods.append(pod)
    await pod.start()
    async with asyncio.timeout(60):
        while not pod.ready:
            await asyncio.sleep(0.05)


async def rendered(example: str) -> Manifest:
    """The Deployment of one of the examples."""
    command = [str(BIN / "kubectl"), "kustomize", str(ROOT / "deploy/kustomize/examples" / example)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    [deployment] = [item for item in yaml.safe_load_all(out) if item["kind"] == "Deployment"]
    return dict(deployment["spec"])


async def main() -> None:
    """Run every example and kind of backend, or one of them without a part, to show the part's purpose."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--without", choices=BROKEN)
    parser.add_argument("--example", choices=("native", "plain"))
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root, for network namespaces")
    lost = 0
    for example in [arguments.example] if arguments.example else ["native", "plain"]:
        spec = await rendered(example)
        pod = spec["template"]["spec"]
        if arguments.without:
            BROKEN[arguments.without](pod)
        for kind, backend in (("a quick backend", QUICK), ("a backend slow to start and to stop", SLOW)):
            results, faults = await rollout(pod, spec["replicas"], backend)
            bad = sum(results.values()) - results["200"]
            lost += bad + len(faults)
            print(
                f"{example}, {kind}: {results['200']} answered, {bad} lost {dict(results)} {faults or ''}", flush=True
            )
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    asyncio.run(main())
