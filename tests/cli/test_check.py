"""`check`: names in the configuration that this machine or the other side cannot serve."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.app.server import CannotStart, build
from sidecar.cli.check import problems_of, unseen
from sidecar.cli.main import main
from sidecar.config import Config, parse
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer

INLINE = "issuers: {idp: {issuer: https://idp.example/, audiences: any, jwks_inline: {keys: [KEY]}}}"
KEY = "{kty: OKP, crv: Ed25519, kid: a, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}"
ISSUERS = INLINE.replace("KEY", KEY)
UPSTREAM = "upstream: http://127.0.0.1:9292"


def issued(source: str) -> str:
    return f"issuers: {{idp: {{issuer: https://idp.example/, audiences: any, {source}}}}}"


FILES = {
    "jwks_file": (issued("jwks_file: here"), UPSTREAM, "issuers.idp: FILE: not JSON"),
    "public_key_file": (
        issued("public_key_file: here"),
        UPSTREAM,
        "issuers.idp: FILE: it holds no PEM public key or certificate; write one with openssl pkey -pubout",
    ),
    "jwks_tls": (
        issued("jwks_uri: 'https://idp.example/keys', jwks_tls: {ca_file: here}"),
        UPSTREAM,
        "issuers.idp.jwks_tls: FILE: holds no PEM certificates of authorities",
    ),
    "tls": (
        ISSUERS,
        f"{UPSTREAM}\ntls: {{cert_file: here}}",
        "tls: FILE: holds no PEM certificate with its key",
    ),
    "upstreams": (
        ISSUERS,
        "upstreams: {api: {url: 'https://127.0.0.1:9292', tls: {ca_file: here}}}",
        "upstreams.api.tls: FILE: holds no PEM certificates of authorities",
    ),
    "denylist_file": (ISSUERS, f"{UPSTREAM}\ndenylist_file: here", "denylist_file: FILE: must be a list of entries"),
    "assertion": (
        ISSUERS,
        f"{UPSTREAM}\nassertion: {{issuer: me, audience: you, key_file: here}}",
        "assertion: FILE: holds no PEM private key of Ed25519, RSA or P-256, or an encrypted one",
    ),
    "api_keys": (
        ISSUERS,
        f"{UPSTREAM}\napi_keys: {{file: here}}",
        "api_keys: FILE: is not a JSON object, or has a name twice",
    ),
    "signing": (
        f"{ISSUERS}\nsigning: {{issuer: 'https://gw/', keys_file: here}}",
        "upstreams: {api: {url: 'http://127.0.0.1:9292', token: {audience: api}}}",
        "signing: FILE: is not a JSON object, or has a name twice",
    ),
}


def config(tmp_path: Path, *lines: str) -> Config:
    return parse("\n".join(lines), environ={}, base=tmp_path)


@pytest.mark.parametrize("name", FILES)
async def test_check_reports_a_file_that_cannot_be_used(name: str, tmp_path: Path) -> None:
    issuers, rest, expected = FILES[name]
    (tmp_path / "here").write_text("nothing of use")
    assert await problems_of(config(tmp_path, issuers, rest), online=False) == [
        expected.replace("FILE", f"{tmp_path}/here")
    ]


@pytest.mark.parametrize("name", FILES)
def test_check_lists_missing_files_as_not_read(name: str, tmp_path: Path) -> None:
    issuers, rest, expected = FILES[name]
    missing = f"{expected.partition(':')[0]}: {tmp_path}/here"
    assert missing in unseen(config(tmp_path, issuers, rest))
    (tmp_path / "here").write_text("nothing of use")
    assert missing not in unseen(config(tmp_path, issuers, rest))


def test_check_as_root_says_that_another_user_may_read_less(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "denied.json").write_text("[]")
    for lines, expected in (((ISSUERS, UPSTREAM), False), ((ISSUERS, UPSTREAM, "denylist_file: denied.json"), True)):
        (tmp_path / "config.yaml").write_text("\n".join(lines))
        assert main(["check", "-c", str(tmp_path / "config.yaml")]) == 0
        assert ("checked as root" in capsys.readouterr().out) == (expected and os.geteuid() == 0)


async def test_a_file_with_an_impossible_name_counts_as_missing(tmp_path: Path) -> None:
    found = config(tmp_path, ISSUERS, UPSTREAM, f"denylist_file: {'x' * 5000}")
    assert await problems_of(found, online=False) == []
    assert unseen(found) == [f"denylist_file: {tmp_path}/{'x' * 5000}"]


@pytest.mark.parametrize("name", FILES)
async def test_a_missing_file_is_no_problem_offline(name: str, tmp_path: Path) -> None:
    issuers, rest, _ = FILES[name]
    assert await problems_of(config(tmp_path, issuers, rest), online=False) == []


@pytest.mark.parametrize("name", sorted(FILES.keys() - {"jwks_tls"}))  # online, the check would also ask its host
async def test_a_missing_file_is_a_problem_online(name: str, tmp_path: Path) -> None:
    issuers, rest, expected = FILES[name]
    found = await problems_of(config(tmp_path, issuers, rest), online=True)
    assert [problem for problem in found if problem.startswith(expected.partition(" ")[0] + f" {tmp_path}/here: ")]


async def test_a_missing_secret_of_a_signature_is_a_problem_online(tmp_path: Path) -> None:
    read = config(tmp_path, ISSUERS, UPSTREAM, "signature: {secret_file: none}")
    assert await problems_of(read, online=False) == []
    assert f"signature: {tmp_path}/none: cannot be read: No such file or directory" in await problems_of(
        read, online=True
    )


async def test_an_unreachable_backend_is_reported_with_the_cause(tmp_path: Path) -> None:
    found = await problems_of(config(tmp_path, ISSUERS, "upstream: unix:///none/here.sock"), online=True)
    assert "upstreams.default: The backend's socket does not exist." in found


async def test_each_bad_file_of_the_gateway_is_reported_once(tmp_path: Path) -> None:
    read = config(
        tmp_path,
        "api_keys: {file: api}",
        "signing: {issuer: 'https://gw.example/i', keys_file: keys, token_endpoint: {audience: o}}",
        "upstreams: {default: {url: 'http://127.0.0.1:9292', token: {audience: o}}}",
        "routes: [{path: /*, auth: api_key}]",
    )
    assert await problems_of(read, online=False) == []
    for name in ("api", "keys"):
        (tmp_path / name).write_text("nothing of use")
    assert await problems_of(read, online=False) == [
        f"api_keys: {tmp_path}/api: is not a JSON object, or has a name twice",
        f"signing: {tmp_path}/keys: is not a JSON object, or has a name twice",
    ]


async def test_inline_keys_are_checked(tmp_path: Path) -> None:
    assert await problems_of(config(tmp_path, ISSUERS, UPSTREAM), online=False) == []
    (problem,) = await problems_of(
        config(tmp_path, INLINE.replace("KEY", "{kty: OKP, crv: Ed25519, kid: a, x: AAAA}"), UPSTREAM), online=False
    )
    assert problem.startswith('issuers.idp: the key set has no usable key (key 0 (kid "a"): ')


async def test_check_online_fetches_key_sets_and_connects_to_backends(tmp_path: Path) -> None:
    async with RawBackend() as backend, ScriptedIssuer() as issuer:
        issuers = f"issuers: {{idp: {{issuer: '{issuer.issuer}', audiences: any, jwks_uri: '{issuer.jwks_uri}'}}}}"
        read = config(tmp_path, issuers, f"upstream: {backend.url}")
        assert await problems_of(read, online=True) == []
        assert issuer.fetches
        await backend.go_down()
        (unreachable,) = await problems_of(read, online=True)
        assert unreachable.startswith("upstreams.default: ")
        url = issuer.jwks_uri
    assert f"issuers.idp: {url}: no connection" in await problems_of(read, online=True)
    assert await problems_of(read, online=False) == []


@pytest.mark.parametrize("name", ["upstreams", "assertion"])
def test_the_sidecar_does_not_start_with_a_file_that_check_refuses(name: str, tmp_path: Path) -> None:
    issuers, rest, expected = FILES[name]
    (tmp_path / "here").write_text("nothing of use")
    with pytest.raises(CannotStart) as raised:
        build(config(tmp_path, issuers, rest))
    assert str(raised.value) == expected.partition(": ")[2].replace("FILE", f"{tmp_path}/here")


@pytest.mark.parametrize("command", ["check", "run"])
def test_an_invalid_pattern_is_reported_with_its_place(command: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    rules = "routes:\n- path_regex: '/id/[0-9]{99999999999}'"
    file.write_text("\n".join((FILES["jwks_file"][0], UPSTREAM, rules)))
    ended = subprocess.run(
        [sys.executable, "-m", "sidecar", command, "-c", file], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert ended.stderr.startswith(f"{file}:")
    assert ": routes.0.path_regex: '/id/[0-9]{99999999999}' " in ended.stderr


def test_the_command_prints_all_problems(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("nothing of use")
    file = tmp_path / "config.yaml"
    file.write_text("\n".join((FILES["jwks_file"][0], UPSTREAM, "denylist_file: here")))
    ended = subprocess.run(
        [sys.executable, "-m", "sidecar", "check", "-c", file], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr.splitlines() == [
        f"{file}: denylist_file: {tmp_path}/here: must be a list of entries",
        f"{file}: issuers.idp: {tmp_path}/here: not JSON",
    ]
