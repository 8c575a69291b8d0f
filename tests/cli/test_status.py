"""The commands that ask a running sidecar: status, report, probe and explain --id."""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from sidecar.cli.main import main
from sidecar.cli.status import status as status_lines
from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.program import configuration, started
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

Said = pytest.CaptureFixture[str]


async def run(stack: Stack, *arguments: str) -> int:
    host, port = stack.sidecar.admin_address
    return await asyncio.to_thread(main, [*arguments, "--admin", f"http://{host}:{port}"])


async def test_status_prints_the_process_its_problems_and_its_traffic(capsys: Said) -> None:
    routes = [{"path": "/public/*", "auth": "none"}]
    async with running(routes=routes) as stack:
        for _ in range(25):
            await stack.fetch(request("GET", "/x"))
        await stack.fetch(stack.good())
        assert await run(stack, "status") == 0
        said = capsys.readouterr().out
        assert f"proxy {stack.sidecar.live.listens}" in said
        assert "26 requests in the last minute, 25 refused" in said
        assert "since the start refused: 25 token_missing" in said
        lines = [line.split() for line in said.splitlines()]
        assert ["/public/*", "none", "enforce", "0", "0", "0"] in lines
        assert ["(default)", "required", "enforce", "26", "25", "0"] in lines
        assert ["default", stack.backend.url, "good", "1", "1", "0", "1000"] in lines
        assert any(line[:3] == ["main", "1", "fresh"] for line in lines)
        assert "BAD  25 requests in the last minute refused: token_missing, on (default)." in said


def test_status_prints_the_beginning_of_each_problem_and_once_the_last_change() -> None:
    change = {"at": "2026-01-01T12:00:00.000Z", "text": "the configuration 1a2b is now in use"}
    problem = {"level": "bad", "what": "refusals", "text": "5 requests refused.", "detail": None, "until": None}
    about = dict.fromkeys(("version", "pid", "listens", "health", "admin"), "")
    file = {"file": None, "hash": "", "loaded_at": ""}
    told = {
        "sidecar": {**about, "uptime_s": 1, "draining": False, "configuration": file},
        "problems": [
            {**problem, "since": "2026-01-01T12:00:05.000Z", "before": change, "detail": "Expected a; found b."},
            {**problem, "since": "2026-01-01T12:00:06.000Z", "before": change, "first": "2026-01-01T11:59:00.000Z"},
            {**problem, "since": None, "before": None},
        ],
        "traffic": {**dict.fromkeys(("in_flight", "connections"), 0), "refused": {}, "reported": {}}
        | {"minute": {"requests": 5, "refused": 5}},
    }
    lines = list(status_lines(told, [], [], []))
    at = lines.index("BAD  5 requests refused.")
    assert lines[at : at + 8] == [
        "BAD  5 requests refused.",
        "     Expected a; found b.",
        "     since 2026-01-01T12:00:05.000Z",
        "BAD  5 requests refused.",
        "     first at 2026-01-01T11:59:00.000Z, frequent since 2026-01-01T12:00:06.000Z",
        "BAD  5 requests refused.",
        "last change: 2026-01-01T12:00:00.000Z the configuration 1a2b is now in use",
        "",
    ]


async def test_report_prints_the_rules_that_are_safe_to_enforce(capsys: Said) -> None:
    routes = [{"path": "/a/*"}, {"path": "/b/*"}, {"path": "/c/*", "mode": "enforce"}]
    async with running(mode="report", routes=routes) as stack:
        async with stack.client() as client:
            for _ in range(300):
                assert (await client.request(stack.good("GET", "/a/x"))).status == 200
        await stack.fetch(request("GET", "/b/x", token=stack.token(aud="another")))
        assert await run(stack, "report") == 1
        lines = capsys.readouterr().out.splitlines()
        assert (
            "/a/*: safe to enforce: none of 300 requests would be refused (fewer than 1 in 100, with 95 % certainty)"
            in lines
        )
        at = lines.index("/b/*: not yet: of 1 requests 1 would be refused")
        assert lines[at + 1].startswith("         1  audience_mismatch")
        assert (
            "(default): too few to know: 0 requests, none of which would be refused; 300 requests are needed" in lines
        )
        assert not [line for line in lines if line.startswith("/c/*")]
        assert lines[-1] == "not safe to enforce yet"


async def test_report_counts_from_zero_after_a_reload(tmp_path: Path, capsys: Said) -> None:
    file = tmp_path / "config.yaml"
    async with running(mode="report", file=file) as stack:
        await stack.fetch(request("GET", "/"))
        assert stack.sidecar.reload is not None
        assert await stack.sidecar.reload.reload()
        assert await run(stack, "report") == 1
        assert "too few to know: 0 requests" in capsys.readouterr().out


async def test_report_succeeds_when_no_rule_is_in_report_mode(stack: Stack, capsys: Said) -> None:
    assert await run(stack, "report") == 0
    assert capsys.readouterr().out == "No rule is in report mode; all rules are enforced.\n"


@pytest.fixture
async def stack() -> Any:
    async with running() as stack:
        yield stack


async def test_probe_exits_with_0_only_if_the_sidecar_is_ready(stack: Stack, capsys: Said) -> None:
    assert await run(stack, "probe") == 0
    stack.sidecar.live.drain.begin()
    assert [await run(stack, "probe"), await run(stack, "probe", "--live")] == [1, 0]
    assert capsys.readouterr().out == "ok\ndraining\nok\n"
    host, port = stack.sidecar.health_address
    assert await asyncio.to_thread(main, ["probe", "--health", f"http://{host}:{port}"]) == 1
    assert await asyncio.to_thread(main, ["probe", "--health", "http://127.0.0.1:1"]) == 1
    assert await asyncio.to_thread(main, ["probe", "--health", "nonsense"]) == 2


async def test_a_refusal_is_printed_by_its_request_id_with_its_remedy(stack: Stack, capsys: Said) -> None:
    refused = await stack.fetch(request("GET", "/x", token=stack.token(aud="another")))
    assert await run(stack, "explain", "--id", refused.json()["request_id"]) == 1
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert (told["code"], told["path"], told["status"]) == ("audience_mismatch", "/x", "401")
    assert "audiences" in told["do"]
    assert await run(stack, "explain", "--id", "no/such") == 1
    assert "None of the last refusals has this request id." in capsys.readouterr().err


@pytest.mark.skipif(sys.platform != "linux", reason="the names of its sockets are Linux's")
async def test_a_port_in_use_is_reported_with_the_sidecar_that_uses_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with ScriptedIssuer(algs=["EdDSA"]) as issuer, RawBackend() as backend:
        settings = configuration(issuer, backend)
        file.write_text(json.dumps(settings))
        async with started(file, issuer, backend) as one:
            other = tmp_path / "other.yaml"
            other.write_text(json.dumps(settings | {"listen": f"127.0.0.1:{one.addresses['proxy'][1]}"}))
            command = (sys.executable, "-m", "sidecar", "run", "-c", str(other))
            second = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
            said = (await second.communicate())[1].decode()
            assert second.returncode == 1
            assert said.startswith(f"jwt-sidecar: listen: cannot listen on 127.0.0.1:{one.addresses['proxy'][1]}: ")
            assert f"Another sidecar uses it (pid {one.process.pid}, {file})" in said
            one.process.terminate()
            assert await one.ended() == 0


async def test_status_names_files_that_cannot_be_used(tmp_path: Path, capsys: Said) -> None:
    denied, file = tmp_path / "denied.json", tmp_path / "config.yaml"
    denied.write_text("[]")
    async with running(denylist_file=str(denied), file=file) as stack:
        denied.write_text("nonsense")
        async with patience("the deny list to be read again"):
            while stack.sidecar.assembly.denylist.file.problem is None:
                await asyncio.sleep(0.05)
        file.write_text("{")
        assert stack.sidecar.reload is not None
        await stack.sidecar.reload.reload()
        assert await run(stack, "status") == 0
        said = capsys.readouterr().out
        assert f"BAD  {denied}: " in said
        assert "BAD  A changed configuration was refused (1 problem)" in said
        assert "\n     line 1: a value is missing here" in said
        stack.secrets.errors.clear()
