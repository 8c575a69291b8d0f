"""A reload replaces the configuration while requests are served: whole, between two requests, or not at all."""

import asyncio
import json
import logging
import os
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.builder.assembly import Assembly
from sidecar.app.builder.key_sources import key_source
from sidecar.app.reload import Reload, with_fixed
from sidecar.app.state import Live
from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.common.watched_file import Watch
from sidecar.config import Issuer, load, parse
from sidecar.jwt.jwks.cache import JwksSource
from tests.peers import patience
from tests.peers.backend import RawBackend, Request, never
from tests.peers.issuer import Answer, ScriptedIssuer
from tests.peers.load import load as under_load
from tests.peers.program import configuration, program
from tests.peers.raw import fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request, response
from tests.proxy.conftest import Stack, running

NEVER_S = 3600.0  # between two checks of the file
PUBLIC = [{"path": "/open", "auth": "none"}]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.yaml"


def write(stack: Stack, file: Path, **settings: Any) -> None:
    """Change some keys of the file; None removes a key."""
    config = json.loads(file.read_text()) | settings
    file.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


async def reload(stack: Stack, file: Path, **settings: Any) -> bool:
    """Change the file and have it read."""
    write(stack, file, **settings)
    assert stack.sidecar.reload is not None
    return await stack.sidecar.reload.reload()


async def status(stack: Stack, target: str = "/open", token: str | None = None) -> int:
    return (await stack.fetch(request("GET", target, token=token))).status


async def samples(stack: Stack) -> str:
    return (await stack.health("/metrics")).body.decode()


# Changes


async def test_a_new_file_is_in_use_from_the_next_request_on_the_same_connection(file: Path) -> None:
    async with running(file=file) as stack, stack.client() as client:
        assert (await client.request(request("GET", "/open"))).status == 401
        assert await reload(stack, file, routes=PUBLIC, identity_headers={"X-JWT-User": "sub"})
        assert (await client.request(request("GET", "/open"))).status == 200
        assert (await client.request(stack.good())).status == 200
        seen = await stack.backend.received(2)
        assert (seen.get("x-jwt-user"), seen.get("x-jwt-sub")) == ("alice", None)


async def test_a_request_keeps_the_configuration_that_it_began_with(file: Path) -> None:
    issuer = ScriptedIssuer(algs=["EdDSA"])
    async with running(file=file, issuer=issuer) as stack, stack.client() as client:
        assert await status(stack, token=stack.alice) == 200
        issuer.hang()
        await client.send(stack.good(token=stack.token(name="z")))  # waits for a key that the issuer does not have
        await issuer.fetched(2, issuer.path + "/.well-known/openid-configuration")
        assert await reload(stack, file, error_format="problem", routes=[{"path": "/*", "auth": "deny"}])
        assert await status(stack) == 403
        issuer.release()
        answer = await client.response()
        assert (answer.status, answer.json()["code"]) == (401, "key_unknown")
        answer = await client.request(stack.good())
        assert (answer.status, answer.get("content-type")) == (403, "application/problem+json")


async def test_a_reload_changes_timeouts_limits_and_trusted_proxies(file: Path) -> None:
    async with running(file=file) as stack, stack.client() as client:
        forwarded = stack.good(headers=[("X-Forwarded-For", "192.0.2.7")])
        await client.request(forwarded)
        assert (await stack.backend.received()).get("x-forwarded-for") == "127.0.0.1"
        assert await reload(stack, file, trusted_proxies=["127.0.0.0/8"], limits={"header_bytes": 2000, "in_flight": 1})
        await client.request(forwarded)
        assert (await stack.backend.received(2)).get("x-forwarded-for") == "192.0.2.7, 127.0.0.1"
        assert (await stack.fetch(stack.good(headers=[("X-Long", "a" * 3000)]))).status == 431


async def test_the_log_names_the_changed_keys(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with running(file=file) as stack:
        with caplog.at_level(logging.INFO):
            assert await reload(stack, file, realm="their own")
        assert f"event=config_reloaded file={file} changed='realm'" in caplog.messages


async def test_a_reload_changes_the_access_log(file: Path, capfd: pytest.CaptureFixture[str]) -> None:
    async with running(file=file) as stack:
        await status(stack)
        assert await reload(stack, file, access_log="json")
        await status(stack, "/logged")
        assert await reload(stack, file, access_log="off")
        await status(stack, "/again")
        await asyncio.sleep(0.15)  # the timer writes the waiting lines
    assert [json.loads(line)["url.path"] for line in capfd.readouterr().out.splitlines()] == ["/logged"]


async def test_keys_that_need_a_restart_are_named_and_the_rest_is_used(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(file=file) as stack:
        address = stack.sidecar.proxy_address
        with caplog.at_level(logging.WARNING):
            assert await reload(stack, file, listen="127.0.0.1:1", admin={"listen": "127.0.0.1:2"}, routes=PUBLIC)
        assert [text.partition(" do=")[0] for text in caplog.messages] == [
            "event=restart_needed key=listen",
            "event=restart_needed key=admin.listen",
        ]
        assert await status(stack) == 200
        assert stack.sidecar.proxy_address == address


async def test_a_reload_refuses_full_details_while_the_listener_is_beyond_loopback(file: Path) -> None:
    async with running(file=file, listen="0.0.0.0:0") as stack:
        assert not await reload(stack, file, listen="127.0.0.1:0", error_detail="full")
        assert stack.sidecar.assembly.config.error_detail == "code"
        stack.secrets.errors.clear()


def test_a_reload_refuses_an_assertion_without_key_file_for_several_workers() -> None:
    smallest = (
        "{issuers: {a: {issuer: 'https://a.test/', audiences: any}}, upstream: 'http://127.0.0.1:1', workers: %d%s}"
    )
    with pytest.raises(Unusable, match=r"^assertion: needs a key_file with several workers"):
        with_fixed(parse(smallest % (2, "")), parse(smallest % (1, ", assertion: {audience: b}")))
    config = with_fixed(parse(smallest % (2, "")), parse(smallest % (3, ", assertion: {audience: b, key_file: k}")))
    assert config.workers == 2


# A bad file


BAD = {
    "not YAML": "{",
    "a problem": json.dumps({"issuers": {}, "upstream": "http://127.0.0.1:1", "routs": []}),
    "empty": "",
    "a pattern that is no regular expression": json.dumps(
        {
            "issuers": {"a": {"issuer": "https://a.test/", "audiences": "any"}},
            "upstream": "http://127.0.0.1:1",
            "routes": [{"path_regex": "/id/[0-9]{99999999999}"}],
        }
    ),
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_a_bad_file_changes_nothing_and_every_problem_is_logged(file: Path, text: str) -> None:
    async with running(file=file, routes=PUBLIC) as stack:
        assert stack.sidecar.reload is not None
        good = file.read_text()
        before = stack.sidecar.assembly
        file.write_text(text)
        assert not await stack.sidecar.reload.reload()
        assert stack.sidecar.assembly is before
        assert (await status(stack), await status(stack, "/x", stack.alice)) == (200, 200)
        assert "jwt_sidecar_config_last_reload_successful 0.0" in await samples(stack)
        assert 'jwt_sidecar_config_reloads_total{result="failure"} 1.0' in await samples(stack)
        said, stack.secrets.errors[:] = list(stack.secrets.errors), []
        assert all("event=config_kept problem=" in line and f"{file}:" in line for line in said)
        assert len(said) == (2 if "routs" in text else 1)
        file.write_text(good)
        assert await stack.sidecar.reload.reload()
        assert "jwt_sidecar_config_last_reload_successful 1.0" in await samples(stack)
        assert 'jwt_sidecar_config_reloads_total{result="success"} 1.0' in await samples(stack)


async def test_a_configuration_that_names_a_missing_file_changes_nothing(file: Path, tmp_path: Path) -> None:
    async with running(file=file) as stack:
        for settings in (
            {"signature": {"secret_file": str(tmp_path / "nothing")}},
            {"denylist_file": str(tmp_path / "nothing"), "signature": None},
        ):
            assert not await reload(stack, file, routes=PUBLIC, **settings)
            assert await status(stack) == 401
        assert len(stack.secrets.errors) == 2
        stack.secrets.errors.clear()


async def test_a_fifo_in_place_of_the_file_refuses_the_reload(file: Path) -> None:
    async with running(file=file) as stack:
        text = file.read_text()
        file.unlink()
        os.mkfifo(file)
        assert stack.sidecar.reload is not None
        assert not await stack.sidecar.reload.reload()
        assert f"{file}: cannot be read: it is not a regular file" in stack.secrets.errors.pop()
        file.unlink()
        file.write_text(text)
        assert await stack.sidecar.reload.reload()


async def test_a_bug_in_a_reload_refuses_it_and_the_next_one_succeeds(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def source_of(issuer: Issuer, *rest: Any) -> JwksSource:
        if issuer.name == "faulty":
            raise OverflowError("secret")
        return key_source(issuer, *rest)

    async def exchanged(assembly: Assembly) -> None:
        in_use.append(assembly)

    def write(name: str) -> None:
        file.write_text(f"{{issuers: {{{name}: {main}}}, upstream: 'http://127.0.0.1:1'}}")

    in_use: list[Assembly] = []
    main = "{issuer: 'http://127.0.0.1:1', audiences: any}"
    write("main")
    live = Live(load(file), Clock(), source_of)
    await live.prepare()
    live.begin()
    changing = Reload(file, live, exchanged)
    write("faulty")
    assert not await changing.reload()
    assert (in_use, live.telemetry.reloads["failure"]) == ([], 1)
    fault = "cannot be used: the sidecar has a bug here (OverflowError); undo the last change and report the bug"
    kept = [text for text in caplog.messages if text.startswith("event=config_kept")]
    assert [f" problem='{file}: {fault}' " in text for text in kept] == [True]
    write("main")
    assert await changing.reload()
    assert in_use == [live.assembly]
    await live.stop()


# State that survives


async def test_keys_of_an_unchanged_issuer_are_not_fetched_again(file: Path) -> None:
    async with running(file=file) as stack:
        assert await status(stack, token=stack.alice) == 200
        fetches = stack.issuer.jwks_fetches
        stack.issuer.on_jwks = Answer(500)
        main = {"issuer": stack.issuer.issuer, "audiences": [AUDIENCE, "another"], "clock_skew": "60s"}
        assert await reload(stack, file, routes=PUBLIC, issuers={"main": main})
        assert await status(stack, "/x", stack.alice) == 200
        assert stack.issuer.jwks_fetches == fetches


async def test_keys_of_a_changed_issuer_are_fetched_before_the_reload_takes_effect(file: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as other, running(file=file) as stack:
        token = other.token("EdDSA")
        stack.secrets.tokens.add(token)
        assert await status(stack, token=stack.alice) == 200
        old = stack.sidecar.assembly.sources["main"]
        assert await reload(stack, file, issuers={"main": {"issuer": other.issuer, "audiences": [AUDIENCE]}})
        other.hang()
        assert await status(stack, token=token) == 200
        assert await status(stack, token=stack.alice) == 401
        assert old not in stack.sidecar.live._tasks
        other.release()


async def test_an_issuer_that_is_down_delays_a_reload_only_for_a_limited_time(file: Path) -> None:
    async with ScriptedIssuer(algs=["EdDSA"]) as down, running(file=file) as stack:
        assert await status(stack, token=stack.alice) == 200
        assert (await stack.health("/readyz")).status == 200
        await down.go_down()
        both = {
            "main": {"issuer": stack.issuer.issuer, "audiences": [AUDIENCE]},
            "down": {"issuer": down.issuer, "audiences": [AUDIENCE]},
        }
        assert await reload(stack, file, issuers=both)
        assert await status(stack, token=stack.alice) == 200
        token = down.token("EdDSA")
        stack.secrets.tokens.add(token)
        assert await status(stack, token=token) == 503
        assert (await stack.health("/readyz")).status == 200  # one bad issuer in a file must not unready every replica


async def test_an_issuer_that_is_down_keeps_its_keys_over_a_reload_unless_their_place_changes(file: Path) -> None:
    async with running(file=file) as stack:
        assert await status(stack, token=stack.alice) == 200
        stack.issuer.on_jwks = Answer(500)
        main = {"issuer": stack.issuer.issuer, "audiences": [AUDIENCE], "refresh_interval": "2m", "max_stale": "3m"}
        assert await reload(stack, file, issuers={"main": main})
        assert await status(stack, token=stack.alice) == 200
        left_s = stack.sidecar.assembly.sources["main"].trusted_until - stack.clock.monotonic()
        assert 290 < left_s <= 300
        main["jwks_uri"] = f"{stack.issuer.issuer}/.well-known/jwks.json"
        assert await reload(stack, file, issuers={"main": main})
        assert await status(stack, token=stack.alice) == 503


async def test_the_grace_period_of_a_removed_key_survives_a_change_of_its_issuer(file: Path) -> None:
    async with running(file=file) as stack:
        main = {"issuer": stack.issuer.issuer, "audiences": [AUDIENCE], "removed_key_grace": "10m"}
        assert await reload(stack, file, issuers={"main": main})
        assert await status(stack, token=stack.alice) == 200
        stack.issuer.rotate()  # the reload is the first to notice that the old key is gone
        assert await reload(stack, file, issuers={"main": main | {"clock_skew": "61s"}})
        assert await status(stack, token=stack.alice) == 200
        assert await reload(stack, file, issuers={"main": main | {"clock_skew": "62s"}})
        assert await status(stack, token=stack.alice) == 200
        elsewhere = {"jwks_uri": f"{stack.issuer.issuer}/.well-known/jwks.json"}
        assert await reload(stack, file, issuers={"main": main | elsewhere})
        assert await status(stack, token=stack.alice) == 401


async def test_the_grace_period_of_a_key_file_ends_when_its_issuer_changes(file: Path, tmp_path: Path) -> None:
    async with running(file=file) as stack:
        keys = tmp_path / "keys.json"
        keys.write_text(json.dumps({"keys": stack.issuer.keys}))
        main = {
            "issuer": stack.issuer.issuer,
            "audiences": [AUDIENCE],
            "jwks_file": str(keys),
            "removed_key_grace": "10m",
        }
        assert await reload(stack, file, issuers={"main": main})
        assert await status(stack, token=stack.alice) == 200
        stack.issuer.rotate()
        keys.write_text(json.dumps({"keys": stack.issuer.keys}))
        assert await reload(stack, file, issuers={"main": main | {"clock_skew": "61s"}})
        assert await status(stack, token=stack.alice) == 200
        assert await status(stack, token=stack.issuer.token("EdDSA")) == 200
        another = {"issuer": "https://another.test/", "issuer_aliases": [stack.issuer.issuer]}
        assert await reload(stack, file, issuers={"main": main | another})
        assert await status(stack, token=stack.alice) == 401
        assert await status(stack, token=stack.issuer.token("EdDSA")) == 200


async def test_posted_entries_of_the_deny_list_survive_a_reload(file: Path, tmp_path: Path) -> None:
    async with running(file=file) as stack:
        stack.sidecar.assembly.denylist.add({"iss": stack.issuer.issuer, "sub": "alice"})
        denylist = tmp_path / "deny.json"
        denylist.write_text(json.dumps([{"iss": stack.issuer.issuer, "sub": "bob"}]))
        assert await status(stack, token=stack.alice) == 401
        assert await reload(stack, file, denylist_file=str(denylist))
        answer = await stack.fetch(stack.good())
        assert (answer.status, answer.json()["code"]) == (401, "token_revoked")
        assert await status(stack, token=stack.token(sub="bob")) == 401


async def test_posted_entries_survive_a_reload_without_their_issuer(file: Path) -> None:
    async with running(file=file) as stack:
        main = {"issuer": stack.issuer.issuer, "audiences": [AUDIENCE]}
        stack.sidecar.assembly.denylist.add({"iss": stack.issuer.issuer, "sub": "alice"})
        assert await reload(stack, file, issuers={"main": main | {"issuer": "https://mistyped.test/"}})
        assert stack.sidecar.assembly.denylist.counts["posted", "waiting"] == 1
        samples = (await stack.health("/metrics")).body
        assert b'jwt_sidecar_denylist_entries{origin="posted",state="waiting"} 1.0' in samples
        assert await reload(stack, file, issuers={"main": main})
        answer = await stack.fetch(stack.good())
        assert (answer.status, answer.json()["code"]) == (401, "token_revoked")


async def test_a_token_revoked_after_a_reload_is_refused_to_requests_that_waited_for_a_key(file: Path) -> None:
    async with running(file=file) as stack:
        assert await status(stack, token=stack.alice) == 200
        stack.issuer.rotate()
        stack.issuer.hang()
        request = stack.good("GET", "/open", token=stack.issuer.token("EdDSA", sub="alice"))
        waiting = asyncio.create_task(stack.fetch(request))
        await stack.issuer.fetched(2, stack.issuer.discovery_path)
        assert await reload(stack, file)
        stack.sidecar.assembly.denylist.add({"iss": stack.issuer.issuer, "sub": "alice"})
        stack.issuer.release()
        assert (await waiting).json()["code"] == "token_revoked"


async def test_the_key_of_the_assertion_survives_a_reload(file: Path) -> None:
    async with running(file=file, assertion={"audience": "backend"}) as stack:
        [key] = stack.sidecar.assembly.signing_keys
        assert await reload(stack, file, routes=PUBLIC)
        assert stack.sidecar.assembly.signing_keys == [key]


async def test_counters_continue_over_a_reload(file: Path) -> None:
    async with running(file=file) as stack:
        for _ in range(3):
            assert await status(stack, token=stack.alice) == 200
        assert await reload(stack, file, routes=PUBLIC)
        await status(stack)
        verifier = stack.sidecar.assembly.handler.authentication.verifier
        assert (verifier.hits, verifier.misses) == (2, 1)
        assert sum(stack.sidecar.live.telemetry.requests.values()) == 4
        assert "jwt_sidecar_requests_in_flight 0.0" in await samples(stack)


async def test_connections_to_an_unchanged_upstream_stay_and_others_close(file: Path) -> None:
    async with RawBackend() as another, running(file=file) as stack:
        assert await status(stack, token=stack.alice) == 200
        old = stack.sidecar.assembly.upstreams["default"]
        assert await reload(stack, file, routes=PUBLIC)
        assert await status(stack) == 200
        assert stack.backend.connections == 1
        assert await reload(stack, file, upstream=another.url)
        assert await status(stack) == 200
        assert (len(stack.backend.requests), len(another.requests)) == (2, 1)
        assert old.use.open == 0


async def test_a_reload_changes_the_timeouts_of_an_upstream(file: Path) -> None:
    async with running(file=file, routes=PUBLIC) as stack:
        assert await reload(stack, file, timeouts={"response_headers": "20ms"})
        assert stack.sidecar.live.deadlines.tick_s == 0.005
        stack.backend.handler = never
        assert await status(stack) == 504


async def test_a_request_in_flight_ends_on_its_old_upstream(file: Path) -> None:
    async with running(file=file) as stack, stack.client() as client:
        answering = asyncio.Event()

        async def slow(_request: Request, writer: asyncio.StreamWriter) -> None:
            await answering.wait()
            writer.write(response(200, b"hello"))

        stack.backend.handler = slow
        await client.send(stack.good())
        await stack.backend.received()
        old = stack.sidecar.assembly.upstreams["default"]
        assert await reload(stack, file, timeouts={"connect": "1s"})
        answering.set()
        assert (await client.response()).body == b"hello"
        assert old.use.open == 0


async def test_a_new_directory_for_snapshots_receives_them(file: Path, tmp_path: Path) -> None:
    async with running(file=file) as stack:
        assert await status(stack, token=stack.alice) == 200
        assert await reload(stack, file, jwks_snapshot_dir=str(tmp_path))
        assert (tmp_path / "main.json").exists()


# Noticing a change of the file


async def follow(stack: Stack, poll_s: float = 0.005) -> "asyncio.Task[None]":
    assert stack.sidecar.reload is not None
    return asyncio.create_task(stack.sidecar.reload.follow(poll_s))


async def until(stack: Stack, reloads: int) -> None:
    async with patience(f"{reloads} reloads"):
        while stack.sidecar.live.telemetry.reloads["success"] < reloads:
            await asyncio.sleep(0.005)


async def test_a_changed_file_is_loaded(file: Path) -> None:
    async with running(file=file) as stack:
        following = await follow(stack)
        write(stack, file, routes=PUBLIC)
        await until(stack, 1)
        assert await status(stack) == 200
        following.cancel()


async def test_a_file_that_changed_between_its_reading_and_the_start_is_read_again(file: Path) -> None:
    async with running(file=file) as stack:
        write(stack, file, routes=PUBLIC)
        assert stack.sidecar.reload is not None
        late = Reload(file, stack.sidecar.live, stack.sidecar.plane.use)
        following = asyncio.create_task(late.follow(NEVER_S))
        await until(stack, 1)
        assert await status(stack) == 200
        following.cancel()


async def test_the_update_of_a_configmap_is_loaded(tmp_path: Path) -> None:
    """A kubelet updates it so: config.yaml -> ..data/config.yaml, ..data -> a directory, and another link renamed over it."""
    volume = tmp_path / "volume"

    def publish(name: str, text: str) -> None:
        (volume / name).mkdir(parents=True)
        (volume / name / "config.yaml").write_text(text)
        (volume / "..tmp").symlink_to(name)
        os.replace(volume / "..tmp", volume / "..data")

    publish("..one", "")
    (volume / "config.yaml").symlink_to("..data/config.yaml")
    async with running(file=volume / "config.yaml") as stack:
        following = await follow(stack)
        text = (volume / "..one" / "config.yaml").read_text()
        for number, target in enumerate(("/one", "/two"), start=1):
            publish(f"..{number}", json.dumps(json.loads(text) | {"routes": [{"path": target, "auth": "none"}]}))
            await until(stack, number)
            assert await status(stack, target) == 200
        following.cancel()


async def test_changed_files_of_secrets_are_loaded(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a" * 32)
    async with running(file=file, signature={"secret_file": str(secret)}) as stack:
        following = await follow(stack)
        secret.write_text("b" * 33)
        await until(stack, 1)
        assert stack.sidecar.assembly.handler._signature is not None
        assert stack.sidecar.assembly.handler._signature._secret == b"b" * 33
        other = tmp_path / "other"
        other.write_text("c" * 32)
        write(stack, file, signature={"secret_file": str(other)})
        await until(stack, 2)
        other.write_text("d" * 33)
        await until(stack, 3)
        following.cancel()


def test_a_file_that_still_changes_is_not_read(file: Path) -> None:
    file.write_text("a")
    watch = Watch([file])
    assert not watch.changed()
    file.write_text("ab")
    assert not watch.changed()
    file.write_text("abc")
    assert not watch.changed()
    assert watch.changed()


def test_a_file_that_disappears_and_returns_unchanged_has_not_changed(file: Path, tmp_path: Path) -> None:
    file.write_text("a")
    watch = Watch([file])
    file.rename(tmp_path / "away")
    assert not watch.changed()
    (tmp_path / "away").rename(file)
    assert [watch.changed() for _ in range(3)] == [False, False, False]


# Under load


async def test_a_hundred_reloads_lose_no_request(tmp_path: Path) -> None:
    """The program itself reloads on SIGHUP. Every time routes, headers, limits, one of two issuers and the upstream change."""
    async with ScriptedIssuer(algs=["EdDSA"]) as second, program(tmp_path, access_log="off") as it:
        file = tmp_path / "config.yaml"
        config = configuration(it.issuer, it.backend) | {"access_log": "off"}
        changing = {"issuer": second.issuer, "audiences": [AUDIENCE]}
        odd = config | {"issuers": config["issuers"] | {"second": changing}}
        even = odd | {
            "routes": [
                {"path": "/public/*", "auth": "none"},
                {"path": "/x", "require": {"claims": {"sub": {"equals": "alice"}}}},
            ],
            "identity_headers": {"X-JWT-User": "sub"},
            "timeouts": {"drain_delay": "0s", "connect": "1s"},
            "limits": {"header_bytes": 16384},
            "issuers": config["issuers"] | {"second": changing | {"refresh_interval": "5m"}},
        }
        proxy = it.addresses["proxy"]
        of_second = request("GET", "/x", token=second.token("EdDSA"))
        async with under_load(lambda: proxy, it.good("GET", "/x")) as clients, AsyncExitStack() as later:
            for number in range(1, 101):
                file.write_text(json.dumps(odd if number % 2 else even))
                it.process.send_signal(signal.SIGHUP)
                await it.says("event=config_reloaded", number)
                if number == 1:
                    others = await later.enter_async_context(under_load(lambda: proxy, of_second, clients=5))
                await clients.more(20)
        assert (clients.lost, others.lost) == ({}, {})
        assert clients.answers.total() > 2000
        assert (it.issuer.jwks_fetches, second.jwks_fetches) == (1, 100)
        assert await it.metric('jwt_sidecar_config_reloads_total{result="success"}') == 100
        assert (await fetch(proxy, request("GET", "/public/x"))).status == 200
        it.process.terminate()
        assert await it.ended() == 0
        assert await it.told() == []
