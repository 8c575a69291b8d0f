"""An operator's day: two issuers, a real Prometheus with the shipped alerts, and only the product's own output.

Durations of the alerts are sixty times shorter here: minutes are seconds.
"""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from benchmarks.process import reserved_port
from sidecar.cli.main import main
from tests.conftest import Need
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, send
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import Program, configuration
from tests.peers.raw import RawClient, Response, fetch
from tests.peers.wire import request, response

DEPLOY = Path(__file__).parents[2] / "deploy"
ENOUGH = 300
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
NOTHING_TO_SHOW = {
    "Backend errors",
    "Clock of the issuer",
    "Accepted without a token",
    "Stripped headers",
    "Files and handshakes",
}


class Prometheus:
    """A real one, with the shipped rules, that scrapes the targets of a file every second."""

    def __init__(self, folder: Path, address: tuple[str, int]) -> None:
        self.address = address
        self._targets = folder / "targets.json"

    def scrape(self, *programs: Program) -> None:
        """Scrape these from now on."""
        targets = [":".join(map(str, program.addresses["health"])) for program in programs]
        new = self._targets.with_suffix(".new")
        new.write_text(json.dumps([{"targets": targets}]))
        new.replace(self._targets)

    async def ask(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The result of a query: labels and value of each series."""
        answer = await fetch(self.address, request("GET", f"/api/v1/query?query={quote(query)}"))
        told = answer.json()
        assert told["status"] == "success", told
        return [(one["metric"], float(one["value"][1])) for one in told["data"]["result"]]

    async def until(self, query: str) -> list[tuple[dict[str, str], float]]:
        """The result of a query, once there is one."""
        async with patience(f"a result of {query}"):
            while not (found := await self.ask(query)):
                await asyncio.sleep(0.2)
        return found

    async def fires(self, alert: str, **labels: str) -> None:
        """Wait until an alert fires."""
        wanted = "".join(f', {name}="{value}"' for name, value in labels.items())
        await self.until(f'ALERTS{{alertname="{alert}", alertstate="firing"{wanted}}}')

    async def firing(self) -> set[str]:
        """The alerts that fire."""
        return {labels["alertname"] for labels, _ in await self.ask('ALERTS{alertstate="firing"}')}


@asynccontextmanager
async def prometheus(folder: Path, binary: str) -> AsyncIterator[Prometheus]:
    rules = (DEPLOY / "prometheus" / "rules.yml").read_text()
    rules = re.sub(r"\b(\d+)h\b", lambda found: f"{60 * int(found[1])}s", re.sub(r"\b(\d+)m\b", r"\1s", rules))
    (folder / "rules.yml").write_text(rules)
    (folder / "targets.json").write_text("[]")
    job = {"job_name": "api", "file_sd_configs": [{"files": [str(folder / "targets.json")], "refresh_interval": "1s"}]}
    settings = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(folder / "rules.yml")],
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings | {"scrape_configs": [job]}))
    with reserved_port() as port:
        address = ("127.0.0.1", port)
        process = await asyncio.create_subprocess_exec(
            *(binary, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"),
            *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"),
            cwd=folder,
        )
        try:
            async with patience("prometheus"):
                while True:
                    try:
                        if (await fetch(address, request("GET", "/-/ready"))).status == 200:
                            break
                    except (OSError, asyncio.IncompleteReadError):
                        pass
                    await asyncio.sleep(0.1)
            yield Prometheus(folder, address)
        finally:
            process.kill()
            await process.wait()


class Sidecar(Program):
    """The program, with its access log in a file, and the commands that ask it."""

    log: Path

    def logged(self) -> list[dict[str, Any]]:
        """The lines of its access log."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    async def said(self, capsys: pytest.CaptureFixture[str], *command: str) -> tuple[int, str]:
        """The exit code and output of a command about this process."""
        code = await asyncio.to_thread(main, [*command, "--pid", str(self.process.pid)])
        captured = capsys.readouterr()
        return code, captured.out + captured.err


@asynccontextmanager
async def sidecar(file: Path, log: Path, issuer: ScriptedIssuer, backend: RawBackend) -> AsyncIterator[Sidecar]:
    with log.open("wb") as stdout:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "run", "-c", str(file)), stdout=stdout, stderr=asyncio.subprocess.PIPE
        )
    it = Sidecar(process, issuer, backend)
    it.log = log
    try:
        await it.announced()
        yield it
    finally:
        if process.returncode is None:
            process.kill()
        await it.ended()


async def many(it: Sidecar, raw: bytes, number: int) -> list[int]:
    """The statuses of several requests on one connection."""
    async with RawClient.to(it.addresses["proxy"]) as client:
        return [(await client.request(raw)).status for _ in range(number)]


async def ask(it: Sidecar, token: str | None, target: str = "/orders/7") -> Response:
    return await fetch(it.addresses["proxy"], request("GET", target, token=token))


@pytest.mark.skipif(sys.platform != "linux", reason="the commands find a process by Linux's sockets")
async def test_an_operators_day_works_with_the_products_own_output(
    tmp_path: Path, need: Need, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = need("prometheus")
    file = tmp_path / "config.yaml"
    seen: list[Request] = []

    async def backend_answer(one: Request, writer: asyncio.StreamWriter) -> None:
        seen.append(one)
        await send(response(200, b"{}"))(one, writer)

    async with AsyncExitStack() as running:
        enter = running.enter_async_context
        main_issuer = await enter(ScriptedIssuer(algs=["EdDSA"]))
        partner = await enter(ScriptedIssuer(algs=["EdDSA"]))
        backend = await enter(RawBackend(backend_answer))
        config = configuration(main_issuer, backend)
        config["issuers"]["partner"] = {"issuer": partner.issuer, "audiences": ["my-api"]}

        def edit(**settings: Any) -> None:
            file.write_text(json.dumps(config | settings))

        async def reload(it: Sidecar) -> None:
            number = len([line for line in it.lines if "event=config_reloaded" in line])
            it.process.send_signal(signal.SIGHUP)
            await it.says("event=config_reloaded", number + 1)

        # Morning: report mode in front of existing clients.
        edit(mode="report")
        it = await enter(sidecar(file, tmp_path / "access.log", main_issuer, backend))
        monitor = await enter(prometheus(tmp_path, binary))
        monitor.scrape(it)
        theirs = partner.token("EdDSA", aud="partner-api")
        good = request("GET", "/orders/7", token=main_issuer.token("EdDSA"))
        assert set(await many(it, good, ENOUGH)) == {200}
        assert set(await many(it, request("GET", "/orders/7", token=theirs), 5)) == {200}
        assert seen[-1].get("authorization") == f"Bearer {theirs}"
        assert (seen[-1].get("x-jwt-status"), seen[-1].get("x-jwt-report")) == ("report", "audience_mismatch")

        # Whose tokens would fail, and why?
        code, said = await it.said(capsys, "report")
        assert code == 1
        assert f"(default): not yet: of {ENOUGH + 5} requests 5 would be refused" in said
        assert "5  audience_mismatch of partner" in said
        [(labels, _)] = await monitor.until('sum by (issuer, route, reason) (jwt_sidecar_refused_total{mode="report"})')
        assert labels == {"issuer": "partner", "route": "(default)", "reason": "audience_mismatch"}
        async with patience("lines of the access log"):
            while not (told := [one for one in it.logged() if one["auth.result"] == "report"]):
                await asyncio.sleep(0.05)
        assert (told[0]["auth.reason"], told[0]["auth.issuer"]) == ("audience_mismatch", "partner")
        groups = (await it.admin("GET", "/rejections?by=code,issuer,route")).json()
        assert "audience_mismatch" in json.dumps(groups)

        # The audience is corrected, and it is safe to enforce.
        config["issuers"]["partner"]["audiences"] = ["partner-api"]
        edit(mode="report")
        await reload(it)
        assert set(await many(it, request("GET", "/orders/7", token=theirs), ENOUGH)) == {200}
        code, said = await it.said(capsys, "report")
        assert (code, said.splitlines()[-1]) == (0, "safe to enforce")

        # Enforced: each refusal can be found by the request id that the client has.
        edit()
        await reload(it)
        refused = await ask(it, main_issuer.token("EdDSA", exp=1))
        assert (refused.status, refused.json()["code"]) == (401, "token_expired")
        code, said = await it.said(capsys, "explain", "--id", refused.json()["request_id"])
        assert code == 1
        assert re.search(r"^code +token_expired$", said, re.MULTILINE)
        assert re.search(r"^issuer +main$", said, re.MULTILINE)

        # An issuer rotates its keys without notice.
        main_issuer.rotate()
        assert (await ask(it, main_issuer.token("EdDSA"))).status == 200
        await monitor.until('jwt_sidecar_jwks_fetches_total{issuer="main", trigger="forced", result="success"} > 0')
        [about_main] = [one for one in (await it.admin("GET", "/issuers")).json()["issuers"] if one["name"] == "main"]
        assert [one["kid"] for one in about_main["keys"] if one["grace_s"] is None] == ["ed25519-b"]

        # An issuer goes down: only the operator notices.
        await partner.go_down()
        told_so = (await it.admin("POST", "/jwks/refresh/partner", {"force": True})).json()
        assert told_so["issuers"][0]["result"] == "failed"
        assert (await ask(it, theirs)).status == 200
        code, said = await it.said(capsys, "status")
        assert code == 0
        assert "WARN The keys of partner could not be fetched" in said
        await monitor.fires("JwksFetchFailing", issuer="partner")
        assert "JwksStale" not in await monitor.firing()
        await partner.come_back()
        assert (await it.admin("POST", "/jwks/refresh/partner", {"force": True})).status == 200

        # A bad edit changes nothing, and four places report it.
        good_text = file.read_text()
        file.write_text(good_text.replace('"audiences"', '"audience"', 1))
        it.process.send_signal(signal.SIGHUP)
        await it.says("event=config_kept .*issuers.main.audience: unknown key; did you mean audiences")
        assert (await ask(it, theirs)).status == 200
        code, said = await it.said(capsys, "status")
        assert "did you mean audiences" in said
        assert await asyncio.to_thread(main, ["check", "-c", str(file)]) == 2
        assert "did you mean audiences" in capsys.readouterr().err
        await monitor.fires("ConfigReloadFailed", job="api")
        await monitor.fires("FileNotUsable", file="config.yaml")
        file.write_text(good_text)
        await reload(it)

        # A drain by hand, and its end.
        file.write_text("{")
        code, said = await it.said(capsys, "drain")
        assert code == 0
        assert f"pid {it.process.pid}" in said
        assert (await it.said(capsys, "probe")) == (1, "draining\n")
        await monitor.until("jwt_sidecar_draining == 1")
        assert (await it.said(capsys, "drain", "--undrain"))[0] == 0
        assert (await it.said(capsys, "probe")) == (0, "ok\n")
        file.write_text(good_text)

        # An upgrade: the next process is ready before the last one has to end.
        following = await enter(sidecar(file, tmp_path / "access-2.log", main_issuer, backend))
        monitor.scrape(it, following)
        async with patience("the next replica to be ready"):
            while (await following.said(capsys, "probe"))[0] != 0:
                await asyncio.sleep(0.05)
        assert (await it.said(capsys, "drain"))[0] == 0
        assert (await ask(it, theirs)).status == 200
        monitor.scrape(following)  # a cluster ends a pod so
        async with patience("Prometheus to stop scraping the old one"):
            while await monitor.ask(f'up{{instance="{":".join(map(str, it.addresses["health"]))}"}}'):
                await asyncio.sleep(0.2)
        it.process.terminate()
        assert await it.ended() == 0
        assert (await ask(following, theirs)).status == 200
        instance = ":".join(map(str, following.addresses["health"]))
        await monitor.until(f'jwt_sidecar_config_info{{instance="{instance}"}}')
        code, said = await following.said(capsys, "status")
        assert f"pid {following.process.pid}" in said
        assert "SidecarsDown" not in await monitor.firing()

        # Each query of the dashboard has an answer.
        for panel in DASHBOARD["panels"]:
            queries = [
                re.sub(r"\$(job|instance)", ".*", target["expr"]).replace("$__rate_interval", "60s")
                for target in panel["targets"]
            ]
            if panel["title"] in NOTHING_TO_SHOW:
                for query in queries:
                    await monitor.ask(query)  # it fails if Prometheus cannot parse the query
            else:
                await monitor.until(" or ".join(f"({query})" for query in queries))
