"""`jwt-sidecar keys`: creates and changes the files of API keys and signing keys, also concurrently."""

import asyncio
import json
import re
import stat
import sys
import time
from pathlib import Path

import pytest

from sidecar.cli.main import main
from sidecar.common.clock import Clock
from sidecar.common.watched_file import WatchedFile
from sidecar.gateway.api_keys import ApiKeys, Entries, HashedKey
from sidecar.gateway.key_ring import KeyRing
from sidecar.jwt.token_places import TokenHeader

Out = pytest.CaptureFixture[str]


def keys(*arguments: object) -> int:
    return main(["keys", *map(str, arguments)])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def ring(file: Path) -> KeyRing:
    return KeyRing.read(file.read_bytes())


# API keys


def test_a_new_key_is_printed_once_and_accepted(file: Path, capsys: Out) -> None:
    made = ["alice", "--scope", "read", "--scope", "write admin", "--claim", "tenant=acme", "--claim", 'roles=["a"]']
    assert keys("new", file, *made, "--claim", "level=5") == 0
    told = capsys.readouterr()
    (key,) = told.out.split()
    assert key not in told.err
    assert key[21:] not in file.read_text()
    judged = ApiKeys(WatchedFile.of(file, Entries.read), TokenHeader("Authorization", "Bearer"), Clock(), "Bearer")
    expected = {"sub": "alice", "scope": "read write admin", "tenant": "acme", "roles": ["a"], "level": 5}
    assert judged.holder(HashedKey.of(key.encode())).claims == expected
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_list_shows_the_holders_of_keys_and_no_hash(file: Path, capsys: Out) -> None:
    keys("new", file, "alice", "--scope", "read", "--expires", "2099-12-31T23:59:59Z")
    keys("new", file, "bob", "--expires", "2000-01-01T00:00:00Z")
    keys("new", file, "carl")
    ids = list(Entries.read(file.read_bytes()))
    assert keys("disable", file, ids[2]) == 0
    capsys.readouterr()
    assert keys("list", file) == 0
    told = capsys.readouterr().out
    assert [line.split() for line in told.splitlines()] == [
        ["ID", "NAME", "STATE", "EXPIRES", "SCOPES"],
        [ids[0], "alice", "on", "2099-12-31T23:59:59Z", "read"],
        [ids[1], "bob", "expired", "2000-01-01T00:00:00Z"],
        [ids[2], "carl", "disabled", "never"],
    ]
    assert not re.search("[0-9a-f]{64}", told)


def test_a_key_can_expire_after_a_number_of_days(file: Path) -> None:
    keys("new", file, "alice", "--expires", "90d")
    ((entry, _),) = Entries.read(file.read_bytes()).values()
    assert abs(entry.expires - time.time() - 90 * 86_400) < 60


def test_a_change_keeps_the_other_entries_the_mode_and_the_link(file: Path, tmp_path: Path) -> None:
    keys("new", file, "alice", "--scope", "read", "--claim", "x={}")
    before = json.loads(file.read_text())["keys"]
    file.chmod(0o640)
    (tmp_path / "link.json").symlink_to(file)
    keys("new", tmp_path / "link.json", "bob")
    assert json.loads(file.read_text())["keys"][:1] == before
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert (tmp_path / "link.json").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keys.json", "link.json"]


async def test_concurrent_changes_lose_no_key(file: Path) -> None:
    async def add(name: str) -> int | None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sidecar", "keys", "new", str(file), name),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        return await process.wait()

    assert set(await asyncio.gather(*(add(f"n{number}") for number in range(8)))) == {0}
    assert {entry.name for entry, _ in Entries.read(file.read_bytes()).values()} == {
        f"n{number}" for number in range(8)
    }


REFUSED = {
    "reserved claim": (["new", "F", "a", "--claim", "iss=x"], "claims must not hold iss"),
    "claim without value": (["new", "F", "a", "--claim", "x"], "--claim x: write name=value"),
    "expiry": (["new", "F", "a", "--expires", "soon"], "--expires soon: write 90d"),
    "name": (["new", "F", ""], "name must be text of 1 to 128"),
    "scope": (["new", "F", "a", "--scope", 'x"y'], "scopes must be a list of words"),
    "unknown id": (["disable", "F", "x"], "F: no key has the id x"),
    "unknown kid": (["withdraw", "F", "x"], "F: no key has the kid x"),
    "duration": (["rotate", "F", "--ahead", "soon"], "soon is not a duration"),
    "nothing to list": (["list", "F"], "F: cannot be read: No such file or directory"),
    "no directory": (["new", "F/x", "a"], "F/x: cannot be changed: No such file or directory"),
}


@pytest.mark.parametrize(("arguments", "problem"), REFUSED.values(), ids=REFUSED)
def test_a_failing_command_changes_nothing(arguments: list[str], problem: str, file: Path, capsys: Out) -> None:
    assert keys(*(one.replace("F", str(file)) for one in arguments)) == 2
    assert capsys.readouterr().err.startswith(f"jwt-sidecar: {problem.replace('F', str(file), 1)}")
    assert list(file.parent.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["new", "F", "a"], ["disable", "F", "a"], ["rotate", "F"], ["withdraw", "F", "a"], ["list", "F"]]
)
def test_a_file_of_another_format_is_reported_and_kept(command: list[str], file: Path, capsys: Out) -> None:
    file.write_text("{}")
    assert keys(*(one.replace("F", str(file)) for one in command)) == 2
    assert capsys.readouterr().err.startswith(f"jwt-sidecar: {file}: has no list `keys`")
    assert file.read_text() == "{}"


def test_commands_for_one_kind_of_file_refuse_the_other_kind(tmp_path: Path, capsys: Out) -> None:
    api, signing = tmp_path / "api.json", tmp_path / "signing.json"
    keys("new", api, "alice")
    keys("rotate", signing)
    before = api.read_text(), signing.read_text()
    assert [keys("new", signing, "bob"), keys("rotate", api)] == [2, 2]
    assert (api.read_text(), signing.read_text()) == before
    told = capsys.readouterr().err
    (jwk,) = json.loads(signing.read_text())["keys"]
    assert jwk["d"] not in told


# Signing keys


def age(file: Path, seconds: float) -> None:
    """Make the file this much older."""
    moved = [
        timed._replace(**{name: getattr(timed, name) - seconds for name in ("publish_from", "sign_from", "retire_at")})
        for timed in ring(file).keys
    ]
    file.write_text(json.dumps({"keys": [timed.document() for timed in moved]}))


@pytest.mark.parametrize("alg", ["EdDSA", "RS256", "ES256"])
def test_the_first_signing_key_signs_at_once(file: Path, alg: str) -> None:
    assert keys("rotate", file, "--algorithm", alg) == 0
    signer = ring(file).signer(alg, time.time())
    assert (signer.key.alg, signer.publish_from, signer.retire_at) == (alg, signer.sign_from, float("inf"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_rotation_publishes_the_next_key_early_and_keeps_the_last_one(file: Path) -> None:
    keys("rotate", file)
    keys("rotate", file, "--algorithm", "ES256")
    (first, other) = ring(file).keys
    keys("rotate", file, "--ahead", "20m", "--keep", "2h")
    one, same, second = ring(file).keys
    assert (one.key.kid, same.key.kid, same[1:]) == (first.key.kid, other.key.kid, other[1:])
    assert second.sign_from - second.publish_from == 20 * 60
    assert one.retire_at == second.sign_from + 2 * 3600
    assert one[1:3] == first[1:3]
    now = time.time()
    assert ring(file).signer("EdDSA", now).key.kid == first.key.kid
    assert ring(file).signer("EdDSA", second.sign_from).key.kid == second.key.kid
    assert {key.kid for key in ring(file).published(now)} == {one.key.kid, same.key.kid, second.key.kid}


def test_an_early_rotation_does_not_extend_old_keys(file: Path) -> None:
    keys("rotate", file)
    age(file, 60)
    keys("rotate", file)
    age(file, 60)
    retires = ring(file).keys[0].retire_at
    keys("rotate", file, "--keep", "9h")
    assert ring(file).keys[0].retire_at == retires
    assert len(ring(file).keys) == 3


def test_a_rotation_removes_retired_keys_from_the_file(file: Path) -> None:
    keys("rotate", file)
    age(file, 60)
    keys("rotate", file, "--ahead", "0s", "--keep", "10s")
    second = ring(file).keys[1]
    age(file, 60)
    keys("rotate", file)
    assert [timed.key.kid for timed in ring(file).keys][:-1] == [second.key.kid]


def test_an_immediate_rotation_replaces_a_planned_one(file: Path) -> None:
    keys("rotate", file)
    age(file, 60)
    keys("rotate", file)
    first, planned = ring(file).keys
    assert keys("rotate", file, "--ahead", "0s", "--keep", "0s") == 0
    old, new = ring(file).keys
    assert planned.key.kid not in (old.key.kid, new.key.kid) == (first.key.kid, new.key.kid)
    assert old.retire_at == new.sign_from + 1
    assert ring(file).signer("EdDSA", new.sign_from).key.kid == new.key.kid


def test_two_rotations_within_a_second_take_effect_one_after_the_other(file: Path) -> None:
    keys("rotate", file)
    keys("rotate", file, "--ahead", "0s")
    first, second = ring(file).keys
    assert first.sign_from < second.sign_from <= first.sign_from + 2


def test_withdraw_removes_a_key_at_once(file: Path) -> None:
    keys("rotate", file)
    keys("rotate", file)
    first, second = ring(file).keys
    assert keys("withdraw", file, second.key.kid) == 0
    assert [timed.key.kid for timed in ring(file).keys] == [first.key.kid]


def test_the_list_of_signing_keys_shows_their_state_and_no_secret(file: Path, capsys: Out) -> None:
    keys("rotate", file)
    age(file, 60)
    keys("rotate", file, "--ahead", "0s")
    age(file, 60)
    keys("rotate", file)
    keys("rotate", file, "--algorithm", "ES256")
    document = json.loads(file.read_text())
    document["keys"][3]["retire_at"] = "2000-01-02T00:00:00Z"
    document["keys"][3] |= {"publish_from": "2000-01-01T00:00:00Z", "sign_from": "2000-01-01T00:00:00Z"}
    file.write_text(json.dumps(document))
    capsys.readouterr()
    assert keys("list", file) == 0
    told = capsys.readouterr().out
    assert [line.split()[1:3] for line in told.splitlines()[1:]] == [
        ["EdDSA", "previous"],
        ["EdDSA", "signing"],
        ["EdDSA", "next"],
        ["ES256", "retired"],
    ]
    assert not [jwk for jwk in document["keys"] if jwk["d"] in told]


# The last key


def test_the_last_enabled_key_is_only_disabled_with_last(file: Path, capsys: Out) -> None:
    keys("new", file, "alice")
    (entry,) = [entry for entry, _ in Entries.read(file.read_bytes()).values()]
    before = file.read_bytes()
    assert keys("disable", file, entry.id) == 2
    assert f"{entry.id} is the last enabled key of {file}" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert keys("disable", file, entry.id, "--last") == 0


def test_the_last_signing_key_is_only_withdrawn_with_last(file: Path, capsys: Out) -> None:
    keys("rotate", file)
    keys("rotate", file, "--ahead", "20m")
    first, second = ring(file).keys
    before = file.read_bytes()
    assert keys("withdraw", file, first.key.kid) == 2
    assert f"{first.key.kid} is the last key that signs EdDSA now" in capsys.readouterr().err
    assert file.read_bytes() == before
    assert keys("withdraw", file, second.key.kid) == 0
    assert keys("withdraw", file, first.key.kid, "--last") == 0
