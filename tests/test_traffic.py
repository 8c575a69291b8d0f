"""The program of `make traffic`: its scenes follow from the seed, its judges detect errors, and a short run finds none."""

import asyncio
import sys
from collections import Counter
from collections.abc import Callable

import pytest

from tests.proofs.http_model import Head, Malformed
from tests.proofs.traffic import SOURCES
from tests.proofs.traffic_peers import Backend, Client, Wire, Wrong, check_identity
from tests.proofs.traffic_scenes import USERS, Author, Case, Connection, Scene, Script, Step

TOKENS = {f"{user}.{which}": f"{user}-{which}".encode() for user in USERS for which in ("0", "1", "expired", "forged")}


def author(without: frozenset[str] = frozenset()) -> Author:
    return Author(TOKENS, lambda user: f"{user}-new".encode(), without)


def test_a_scene_follows_from_seed_and_number() -> None:
    assert author().scene("1", 7) == author().scene("1", 7)
    assert author().scene("1", 7) != author().scene("1", 8)
    assert author().scene("1", 7) != author().scene("2", 7)


def test_scenes_include_every_kind() -> None:
    connections = [one for number in range(300) for one in author().scene("1", number).connections]
    cases = [case for one in connections for case in one.cases]
    assert {case.kind for case in cases} == {"good", "anonymous", "refused", "broken", "unserved"}
    assert {one.ending for one in connections} == {"read", "fin", "close", "reset"}
    assert {step.wait for one in connections for step in one.steps} == {"now", "pause", "quiet", "invited"}
    assert max(len(one.cases) for one in connections) > 80
    assert {case.version for case in cases} == {"HTTP/1.0", "HTTP/1.1"}
    for some in (
        [case for case in cases if case.sent > 1],
        [case for case in cases if case.upgrade and case.script.tunnel],
        [case for case in cases if case.script.spent and case.script.ending == "keep"],
        [case for case in cases if case.script.deaths],
        [case for case in cases if case.script.early],
        [one for one in connections if one.stalls],
    ):
        assert some


def test_kinds_of_scenes_can_be_excluded() -> None:
    scenes = [author(frozenset({"dead", "bad ends"})).scene("1", number) for number in range(100)]
    cases = [case for scene in scenes for one in scene.connections for case in one.cases]
    assert not any(case.script.deaths or case.kind in ("broken", "unserved") for case in cases)


def case(number: int, **more: object) -> Case:
    """A request of alice, as received by the backend."""
    made = Case(f"1-{number}", "GET", f"/t/1-{number}", "good", "alice", owner="alice", sent=1)
    made.head = f"GET {made.target} HTTP/1.1\r\nHost: sidecar.test\r\n\r\n".encode()
    made.script = Script(body=b"body %d" % number)
    made.arrivals, made.seen_ids = 1, [f"id{number}"]
    for name, value in more.items():
        setattr(made, name, value)
    return made


def answer(number: int, first: str = "200 OK", *, more: str = "", of: int = 0) -> bytes:
    return (
        f"HTTP/1.1 {first}\r\nX-Request-Id: id{of or number}\r\n{more}Content-Length: 6\r\n\r\nbody {number}".encode()
    )


REFUSED = (
    b"HTTP/1.1 401 Unauthorized\r\nX-JWT-Sidecar: rejected\r\nX-Request-Id: id1\r\nContent-Length: 20\r\n\r\n"
    b'{"request_id":"id1"}'
)


async def played(said: bytes, *cases: Case, end: bool = False) -> None:
    """A client sends these requests and gets these bytes. Raises Wrong and Malformed."""

    def made(wire: Wire) -> None:
        wire.write(said)
        if end:
            wire.transport.close()

    server = await asyncio.get_running_loop().create_server(lambda: Wire(made=made), "127.0.0.1", 0)
    connection = Connection(list(cases), [Step(one.head) for one in cases], lingers=True)
    try:
        await Client(connection, Counter()).play(server.sockets[0].getsockname())
    finally:
        server.close()


@pytest.mark.parametrize(
    ("said", "cases", "end"),
    [
        (answer(1) + answer(2), [case(1), case(2)], False),
        (answer(1, more="Connection: close\r\n"), [case(1), case(2)], True),
        (REFUSED, [case(1, kind="refused", arrivals=0)], False),
        (answer(1)[:-1], [case(1, script=Script(body=b"body 1", whole=False, may_fail=True))], True),
    ],
)
async def test_the_judge_accepts_correct_answers(said: bytes, cases: list[Case], end: bool) -> None:
    await played(said, *cases, end=end)


@pytest.mark.parametrize(
    ("said", "cases", "end"),
    [
        pytest.param(answer(2) + answer(1), [case(1), case(2)], False, id="answers in another order"),
        pytest.param(answer(1) + answer(1), [case(1), case(2)], False, id="the same answer twice"),
        pytest.param(answer(1, of=2), [case(1)], False, id="the request id of another request"),
        pytest.param(answer(1, more="X-Case: 1-1\r\n"), [case(1)], False, id="the head of another answer"),
        pytest.param(answer(1, "404 Not Found"), [case(1)], False, id="another status"),
        pytest.param(answer(1) + b"x", [case(1)], False, id="bytes after the answer"),
        pytest.param(answer(1), [case(1), case(2)], True, id="too few answers"),
        pytest.param(answer(1)[:-1], [case(1)], True, id="a truncated answer"),
        pytest.param(
            answer(1),
            [case(1, script=Script(body=b"body 1", whole=False))],
            False,
            id="a complete answer where the backend broke off",
        ),
        pytest.param(answer(1), [case(1, kind="refused", arrivals=0)], False, id="served though it must be refused"),
        pytest.param(REFUSED, [case(1)], False, id="refused though it must be served"),
        pytest.param(REFUSED, [case(1, kind="refused", request_id="id2")], False, id="refused with another request id"),
        pytest.param(b"HTTP/1.1 103 Early Hints\r\n\r\n" + answer(1), [case(1)], False, id="an interim answer"),
        pytest.param(b"HTTP/1.1 200 OK\n\n", [case(1)], True, id="not HTTP"),
    ],
)
async def test_the_judge_detects_wrong_answers(said: bytes, cases: list[Case], end: bool) -> None:
    with pytest.raises((Wrong, Malformed)):
        await played(said, *cases, end=end)


def seen(*headers: tuple[str, str]) -> Head:
    return Head("HTTP/1.1", "GET", "/t/1-1", headers=list(headers))


STATUS, SUB = ("X-JWT-Status", "verified"), ("X-JWT-Sub", "alice")
CLAIMS = ("X-JWT-Claims", "eyJzdWIiOiJhbGljZSJ9")


def test_the_judge_accepts_the_identity_of_the_token() -> None:
    check_identity(case(1), seen(STATUS, SUB, CLAIMS))
    check_identity(case(1), seen(STATUS, SUB, CLAIMS, ("X-JWT-Who", "alice")))
    check_identity(case(1, user=""), seen(("X-JWT-Status", "anonymous")))


@pytest.mark.parametrize(
    "head",
    [
        seen(STATUS, CLAIMS),
        seen(SUB, CLAIMS),
        seen(STATUS, SUB),
        seen(STATUS, ("X-JWT-Sub", "bob"), CLAIMS),
        seen(STATUS, SUB, SUB, CLAIMS),
        seen(STATUS, SUB, CLAIMS, ("X_JWT_Sub", "bob")),
        seen(STATUS, SUB, CLAIMS, ("X-JWT-Who", "bob")),
        seen(STATUS, SUB, CLAIMS, ("X-JWT-Role", "admin")),
        seen(STATUS, SUB, ("X-JWT-Claims", "eyJzdWIiOiJib2IifQ")),
        seen(("X-JWT-Status", "anonymous"), SUB, CLAIMS),
    ],
)
def test_the_judge_detects_a_wrong_identity(head: Head) -> None:
    with pytest.raises(Wrong):
        check_identity(case(1), head)


FORWARDED = "".join(
    f"{name}: {value}\r\n" for name, value in (STATUS, SUB, CLAIMS, ("X-Own", "alice"), ("X-Request-Id", "id1"))
)


def at_the_backend(made: Case, more: str = "", target: str = "") -> bytes:
    return f"GET {target or made.target} HTTP/1.1\r\nHost: sidecar.test\r\n{FORWARDED}{more}\r\n".encode()


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        (at_the_backend, ""),
        (lambda made: at_the_backend(made) * 2, "came 2 times"),
        (lambda made: at_the_backend(made, "X-Mark: 1-2\r\n"), "lines of another"),
        (lambda made: at_the_backend(made, "Authorization: Bearer x\r\n"), "token was passed on"),
        (lambda made: at_the_backend(made, target="/t/1-9"), "nobody sent"),
        (lambda made: at_the_backend(made, target="/t/1-1/x"), "came as"),
        (lambda made: at_the_backend(made, "Content-Length: 1\r\n") + b"a", "another body"),
        (lambda made: at_the_backend(made, " folded\r\n"), "not a header"),
    ],
)
async def test_the_judge_detects_wrong_requests_at_the_backend(sent: Callable[[Case], bytes], wrong: str) -> None:
    made = case(1, arrivals=0, seen_ids=[])
    made.script = Script([(0.0, b"HTTP/1.1 204 No Content\r\n\r\n")], 204, ending="keep")
    backend = Backend()
    url = await backend.start()
    backend.expect(Scene(1, [Connection([made])]))
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(sent(made))
    writer.write_eof()
    await reader.read()
    writer.close()
    await backend.stop()
    assert [text for _, text in backend.failures if wrong not in text] == []
    assert len(backend.failures) == bool(wrong)


async def test_a_short_run_finds_no_error() -> None:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.proofs.traffic", "--seed", "1", "--scenes", "60"),
        cwd=SOURCES,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told, _ = await program.communicate()
    assert program.returncode == 0, told.decode(errors="replace")[-5000:]
    assert told.endswith(b"PASS\n")
