"""The admin listener's overview: problems with their beginning and earlier changes, rules, backends and the configuration."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.app.admin.configuration import shown
from sidecar.app.history import FRESH_S, MOST_KINDS, STEP_S, Event
from sidecar.common.clock import iso_time
from tests.app.test_admin_answers import TIME, get
from tests.peers.backend import RawBackend, send
from tests.peers.tokens import AUDIENCE, public_jwk
from tests.peers.wire import request
from tests.proxy.conftest import Stack, running

ROUTES: list[dict[str, Any]] = [
    {"path": "/public/*", "auth": "none"},
    {"path": "/admin/*", "methods": ["GET"], "require": {"scopes": ["admin"]}},
    {"path": "/trial/*", "mode": "report"},
]


async def told(stack: Stack, target: str) -> Any:
    answer = await get(stack, target)
    assert answer.status == 200
    return answer.json()


async def problems(stack: Stack) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await told(stack, "/status"))["problems"]
    return found


def align(stack: Stack) -> None:
    """Move the clock to the beginning of a step."""
    stack.clock.ahead_s += STEP_S - stack.clock.wall() % STEP_S


def step(stack: Stack) -> None:
    """Let a step of ten seconds end."""
    stack.clock.ahead_s += STEP_S
    stack.sidecar.live.history.step(stack.sidecar.assembly)


# The process


async def test_the_process_is_distinguished_from_others(tmp_path: Path) -> None:
    async with running(file=tmp_path / "config.yaml") as stack:
        sidecar = (await told(stack, "/status"))["sidecar"]
        assert sidecar["host"]
        assert sidecar["listens"] == f"http://127.0.0.1:{stack.sidecar.proxy_address[1]}"
        assert not sidecar["draining"]
        assert all(TIME.fullmatch(sidecar[name]) for name in ("time", "started_at"))
        assert 0 <= sidecar["uptime_s"] < 60
        assert sidecar["configuration"]["file"] == str(tmp_path / "config.yaml")
        assert sidecar["configuration"]["hash"] == stack.sidecar.assembly.config.digest


# Problems


async def test_a_serving_sidecar_reports_no_problem() -> None:
    async with running(routes=ROUTES) as stack:
        for _ in range(20):
            await stack.fetch(stack.good())
        await stack.fetch(request("GET", "/x"))  # one refusal is no problem
        assert await problems(stack) == []


async def test_a_wrong_audience_after_a_reload_is_reported_with_the_change_before_it(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with running(file=file) as stack:
        await stack.fetch(stack.good())
        step(stack)
        file.write_text(file.read_text().replace(AUDIENCE, "another"))
        assert stack.sidecar.reload is not None
        await stack.sidecar.reload.reload()
        began = stack.clock.wall()
        for _ in range(10):
            await stack.fetch(stack.good())
        [problem] = await problems(stack)
    assert problem["level"] == "bad"
    assert (problem["what"], problem["name"]) == ("refusals", "audience_mismatch")
    assert "10 requests" in problem["text"]
    assert problem["text"].endswith("refused: audience_mismatch, on (default).")
    assert problem["detail"] == f"Expected one of: another; found {AUDIENCE} in the last refused token."
    assert iso_time(began) <= problem["since"] <= iso_time(began + 30)
    assert problem["before"]["what"] == "configuration"
    assert problem["before"]["text"].endswith(
        f"{stack.sidecar.assembly.config.digest} is now in use; changed: issuers.main.audiences"
    )


async def test_a_problem_begins_when_refusals_exceed_their_usual_number() -> None:
    async with running(routes=ROUTES) as stack:
        for number in range(30):
            if number == 20:
                began = stack.clock.wall()
            for _ in range(8 if number >= 20 else number % 2):
                await stack.fetch(request("GET", "/x"))
            step(stack)
        [problem] = [one for one in await problems(stack) if one["what"] == "refusals"]
        [group] = (await told(stack, "/rejections?by=code"))["groups"]
    assert iso_time(began - STEP_S) <= problem["since"] <= iso_time(began + STEP_S)
    assert problem["first"] == group["since"] < problem["since"]


async def test_a_problem_within_a_step_begins_at_its_first_refusal() -> None:
    async with running(routes=ROUTES) as stack:
        align(stack)
        await stack.fetch(request("GET", "/x"))
        step(stack)
        for _ in range(30):
            await stack.fetch(request("GET", "/x"))
        [problem] = await problems(stack)
        [group] = (await told(stack, "/rejections?by=code"))["groups"]
    assert (problem["since"], problem["first"]) == (group["since"], None)


async def test_a_change_in_the_step_where_refusals_rise_is_named_as_before_them() -> None:
    async with running(routes=ROUTES) as stack:
        history = stack.sidecar.live.history
        align(stack)
        for _ in range(3):
            await stack.fetch(request("GET", "/x"))
            step(stack)
        stack.clock.ahead_s += STEP_S / 2
        history.note("configuration", "", "note", "changed")
        for _ in range(60):
            await stack.fetch(request("GET", "/x"))
        stack.clock.ahead_s -= STEP_S / 2
        step(stack)
        [problem] = await problems(stack)
    assert problem["before"]["text"] == "changed"
    assert problem["before"]["at"] <= problem["since"]


async def test_only_an_earlier_change_is_named_as_before_a_problem() -> None:
    async with running() as stack:
        history = stack.sidecar.live.history
        await stack.fetch(stack.good())
        step(stack)
        for _ in range(6):
            await stack.fetch(request("GET", "/x"))
        [problem] = await problems(stack)
        began = next(iter(stack.sidecar.assembly.handler.telemetry.spells.values())).since
        for at, level, text in ((began, "bad", "another problem"), (began + 1, "note", "later")):
            history.events.append(Event(at, "issuer", "main", level, text))
        assert (await problems(stack)) == [problem]
        history.events.append(Event(began, "issuer", "main", "note", "earlier"))
        assert (await problems(stack))[0]["before"]["text"] == "earlier"


async def test_an_issuer_that_is_down_is_reported_with_the_time_left_for_its_keys() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        step(stack)
        await stack.issuer.go_down()
        await stack.sidecar.assembly.sources["main"].fetch_now()
        step(stack)
        [problem] = await problems(stack)
        assert (problem["level"], problem["what"], problem["name"]) == ("warn", "issuer", "main")
        assert problem["text"].startswith("The keys of main could not be fetched: http://127.0.0.1:")
        assert re.search(
            r"\. No request is refused yet: the present keys stay trusted for \d+ (min|h)\.$", problem["text"]
        )
        assert iso_time(stack.clock.wall() + 60) < problem["until"] < iso_time(stack.clock.wall() + 24 * 3600)
        assert problem["refused"] == 0
        assert TIME.fullmatch(problem["since"])
        stack.clock.ahead_s += 24 * 3600
        [problem] = await problems(stack)
        assert (problem["level"], problem["since"]) == ("bad", None)
        assert problem["text"].startswith("main has no usable keys, so its tokens get 503: ")


@pytest.mark.parametrize(
    ("second_s", "told"),
    [
        (0.0, {"main": "the other issuers agree with this one, so tell main."}),
        (-50.0, dict.fromkeys(("main", "second"), "set the clock that is wrong.")),
        (None, {"main": "set the clock that is wrong."}),
    ],
)
async def test_a_clock_that_differs_from_all_others_is_named_as_wrong(
    second_s: float | None, told: dict[str, str]
) -> None:
    second = {"issuer": "https://second.test/", "jwks_inline": {"keys": [public_jwk("EdDSA")]}, "audiences": ["a"]}
    issuers = {"main": {**second, "issuer": "https://main.test/"}, "second": second}
    async with running(issuers=issuers) as stack:
        sources = stack.sidecar.assembly.sources
        sources["main"].issuer_clock.offset_s, sources["second"].issuer_clock.offset_s = -50.0, second_s
        texts = {one["name"]: one["text"] for one in await problems(stack) if "clock" in one["text"]}
    assert texts.keys() == told.keys()
    for name, end in told.items():
        assert texts[name] == f"The clock of {name} is 50 s behind this one; {end}"


async def test_refusals_for_lack_of_keys_name_the_issuers_that_cannot_be_reached() -> None:
    good = {"issuer": "https://good.test/", "jwks_inline": {"keys": [public_jwk("EdDSA")]}, "audiences": ["a"]}
    down = {"issuer": "http://127.0.0.1:1/", "audiences": ["a"]}
    async with running(issuers={"customers": down, "good": good}) as stack:
        for _ in range(6):
            assert (await stack.fetch(request("GET", "/x", token=stack.token(iss=down["issuer"])))).status == 503
        [problem] = await problems(stack)
    assert (problem["what"], problem["name"], problem["refused"]) == ("issuer", "customers", 6)
    assert problem["detail"] == "6 requests in the last minute refused: jwks_unavailable, on (default)."


async def test_refusals_for_lack_of_keys_of_several_issuers_have_a_line_of_their_own() -> None:
    down = {"issuer": "http://127.0.0.1:1/", "audiences": ["a"]}
    other = {"issuer": "http://127.0.0.1:2/", "audiences": ["a"]}
    async with running(issuers={"customers": down, "staff": other}) as stack:
        for iss in (down["issuer"], other["issuer"]):
            for _ in range(6):
                assert (await stack.fetch(request("GET", "/x", token=stack.token(iss=iss)))).status == 503
        [problem] = [one for one in await problems(stack) if one["what"] == "refusals"]
    assert problem["text"] == (
        "12 requests in the last minute refused: jwks_unavailable, on (default). "
        "Issuers whose keys cannot be fetched: customers, staff."
    )
    assert problem["detail"].startswith("http://127.0.0.1:")


async def test_a_failing_backend_is_reported_without_the_refusals_that_it_causes() -> None:
    async with running(backend=RawBackend(send(b"no HTTP\r\n\r\n"))) as stack:
        for _ in range(6):
            await stack.fetch(stack.good())
        [problem] = await problems(stack)
        [upstream] = (await told(stack, "/upstreams"))["upstreams"]
    assert (problem["level"], problem["what"], problem["name"]) == ("bad", "upstream", "default")
    assert (
        problem["text"]
        == f"The upstream default ({stack.backend.url}) fails most requests: 6 invalid answers in the last minute, on (default)."
    )
    assert (upstream["health"], upstream["errors"]["protocol"], upstream["minute"]["answered"]) == ("failing", 6, 0)


async def test_problems_are_sorted_by_their_refused_requests() -> None:
    upstreams = {"stock": {"url": "http://127.0.0.1:9"}}
    routes = [{"path": "/stock/*", "upstream": "stock"}, {"path": "/trial/*", "mode": "report"}]
    async with running(upstreams=upstreams, routes=routes) as stack:
        for number, raw in (
            (20, request("GET", "/trial/x")),
            (9, stack.good("GET", "/stock/x")),
            (12, request("GET", "/x", token=stack.token(aud="shop"))),
        ):
            for _ in range(number):
                await stack.fetch(raw)
        await stack.issuer.go_down()
        await stack.sidecar.assembly.sources["main"].fetch_now()
        stack.clock.ahead_s += FRESH_S
        found = await problems(stack)
        [main] = (await told(stack, "/issuers"))["issuers"]
    assert [(one["level"], one["what"], one["name"], one["refused"]) for one in found] == [
        ("bad", "refusals", "audience_mismatch", 12),
        ("bad", "upstream", "stock", 9),
        ("warn", "issuer", "main", 0),
        ("note", "refusals", "token_missing", 0),
    ]
    assert found[0]["detail"] == f"Expected one of: {AUDIENCE}; found shop in the last refused token."
    assert found[1]["text"].endswith("fails most requests: 9 connections failed in the last minute, on /stock/*.")
    nothing = "Nothing listens at the backend's address. Start the backend, or correct its url in the configuration."
    assert found[1]["detail"] == nothing
    assert main["minute"] == {"refused": 12 + 9}


async def test_an_issuer_without_keys_is_sorted_by_its_refused_requests() -> None:
    async with running() as stack:
        await stack.issuer.go_down()
        for _ in range(8):
            await stack.fetch(stack.good())
        found = await problems(stack)
    assert [(one["what"], one["name"], one["refused"]) for one in found] == [
        ("issuer", "main", 8),
    ]


async def test_refusals_of_report_mode_are_a_note() -> None:
    async with running(routes=ROUTES) as stack:
        for _ in range(6):
            await stack.fetch(request("GET", "/trial/x"))
        [problem] = await problems(stack)
    assert (problem["level"], problem["name"]) == ("note", "token_missing")
    assert problem["text"] == "6 requests in the last minute would be refused: token_missing, on /trial/*."


async def test_a_deny_list_that_cannot_be_used_is_reported_with_its_consequence(tmp_path: Path) -> None:
    (tmp_path / "denied.json").write_text("[]")
    async with running(denylist_file=str(tmp_path / "denied.json")) as stack:
        (tmp_path / "denied.json").write_text("[")
        assert stack.sidecar.assembly.denylist.file is not None
        stack.sidecar.assembly.denylist.file.look()
        [problem] = [one for one in await problems(stack) if one["what"] == "file"]
        stack.secrets.errors.clear()  # the file was refused on purpose
    assert problem["text"].endswith(
        "; the previous content stays in use. New revocations have no effect until the file can be used."
    )


async def test_a_drain_is_reported() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        stack.sidecar.live.drain.begin()
        [problem] = await problems(stack)
        assert problem["text"].startswith("The sidecar drains")
        assert (await told(stack, "/timeline"))["events"][-1]["what"] == "draining"


# Refusals in groups


async def test_refusals_are_grouped_and_filtered_by_the_query() -> None:
    async with running(routes=ROUTES) as stack:
        for raw in (
            request("GET", "/x"),
            request("GET", "/admin/x"),
            stack.good("GET", "/admin/x"),
            request("GET", "/trial/x"),
        ):
            await stack.fetch(raw)
        by_code = (await told(stack, "/rejections?by=code"))["groups"]
        assert all(TIME.fullmatch(group.pop(name)) for group in by_code for name in ("since", "last"))
        assert by_code == [
            {"code": "token_missing", "mode": "enforce", "count": 2, "last_minute": 2},
            {"code": "scope_insufficient", "mode": "enforce", "count": 1, "last_minute": 1},
            {"code": "token_missing", "mode": "report", "count": 1, "last_minute": 1},
        ]
        by_route = (await told(stack, "/rejections?by=route,issuer&code=token_missing&mode=enforce"))["groups"]
        assert [(group["route"], group["issuer"], group["count"]) for group in by_route] == [
            ("(default)", "none", 1),
            ("/admin/*", "none", 1),
        ]
        assert (await get(stack, "/rejections?by=peer")).status == 400
        listed = (await told(stack, "/rejections?route=/admin/*&code=token_missing"))["rejections"]
        assert [refusal["path"] for refusal in listed] == ["/admin/x"]


async def test_a_group_begins_again_after_five_minutes_without_a_refusal() -> None:
    async with running() as stack:
        since = []
        for pause_s in (0, 290, 310):
            stack.clock.ahead_s += pause_s
            await stack.fetch(request("GET", "/x"))
            [group] = (await told(stack, "/rejections?by=code"))["groups"]
            since.append(group["since"])
    assert since[0] == since[1] < since[2]
    assert group["count"] == 3


async def test_a_group_without_new_refusals_counts_zero_for_the_last_minute() -> None:
    async with running() as stack:
        await stack.fetch(request("GET", "/x"))
        for _ in range(7):
            step(stack)
        [group] = (await told(stack, "/rejections?by=code"))["groups"]
        assert (group["count"], group["last_minute"]) == (1, 0)
        assert (await told(stack, "/status"))["traffic"]["minute"]["requests"] == 0


# The time axis


async def test_steps_count_their_requests() -> None:
    async with running(routes=ROUTES) as stack:
        for raw in (stack.good(), request("GET", "/x"), request("GET", "/trial/x")):
            await stack.fetch(raw)
        step(stack)
        step(stack)
        timeline = await told(stack, "/timeline")
        first, second = timeline["steps"]
        assert timeline["step_s"] == STEP_S
        assert (first["requests"], second["requests"]) == (3, 0)
        assert sorted((one["route"], one["code"], one["mode"], one["count"]) for one in first["refused"]) == [
            ("(default)", "token_missing", "enforce", 1),
            ("/trial/*", "token_missing", "report", 1),
        ]
        assert 0 < first["p50_s"] < 10
        assert second["p50_s"] is None
        assert timeline["events"][0]["text"] == "the sidecar started"
        later = await told(stack, f"/timeline?after={int(stack.clock.wall() - 1.5 * STEP_S)}")
        assert later["steps"] == [second]
        assert later["events"] == []


async def test_a_step_holds_a_limited_number_of_kinds_and_sums_the_rest() -> None:
    async with running(routes=[{"path": f"/{number}", "auth": "deny"} for number in range(MOST_KINDS + 10)]) as stack:
        async with stack.client() as client:
            for number in range(MOST_KINDS + 10):
                await client.request(request("GET", f"/{number}"))
        step(stack)
        [only] = (await told(stack, "/timeline"))["steps"]
    assert len(only["refused"]) == MOST_KINDS + 1
    assert sum(one["count"] for one in only["refused"]) == MOST_KINDS + 10
    assert only["refused"][-1] | {"count": 10} == only["refused"][-1] | {"route": "(others)", "issuer": "(others)"}


async def test_new_keys_an_outage_and_a_recovery_are_events() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        step(stack)
        source = stack.sidecar.assembly.sources["main"]
        for act in (stack.issuer.rotate, stack.issuer.go_down, stack.issuer.come_back):
            done = act()
            if done is not None:
                await done
            await source.fetch_now()
            step(stack)
        events = [event["text"].partition(" http")[0] for event in (await told(stack, "/timeline"))["events"]]
    assert events == [
        "the sidecar started",
        "issuer main changed its keys: + ed25519-b, - ed25519-a",
        "issuer main cannot be reached for its keys, and the present keys stay trusted:",
        "issuer main has fresh keys",
    ]


# Rules and backends


async def test_rules_are_listed_with_their_counts(tmp_path: Path) -> None:
    async with running(routes=ROUTES, file=tmp_path / "config.yaml") as stack:
        for raw in (stack.good("GET", "/admin/x"), request("GET", "/trial/x"), stack.good()):
            await stack.fetch(raw)
        await stack.converse(b"no HTTP\r\n\r\n")
        public, admin, trial, default, none = (await told(stack, "/routes"))["routes"]
    minute = admin.pop("minute")
    assert 0 < minute.pop("p50_s") <= minute.pop("p99_s")
    assert minute == {"requests": 1, "refused": 1, "reported": 0}
    assert admin == {
        "name": "/admin/*", "line": 1, "methods": ["GET"], "hosts": None, "issuers": None, "mode": "enforce",
        "auth": "required", "upstream": "default", "requests": 1, "refused": 1, "reported": 0,
    }  # fmt: skip
    assert (public["auth"], public["requests"], public["minute"]["p50_s"]) == ("none", 0, None)
    assert (trial["mode"], trial["refused"], trial["reported"]) == ("report", 0, 1)
    assert (default["name"], default["requests"], default["line"]) == ("(default)", 1, None)
    assert (none["name"], none["refused"], none["auth"]) == ("(none)", 1, None)


async def test_backends_are_listed_with_their_connections_and_probes() -> None:
    probes = {"backend": {"path": "/health"}}
    async with running(health={"listen": "127.0.0.1:0", "probes": probes}) as stack:
        [upstream] = (await told(stack, "/upstreams"))["upstreams"]
        assert (upstream["health"], upstream["probes"]) == (
            "idle",
            [{"name": "backend", "path": "/health", "status": None}],
        )
        await stack.fetch(stack.good())
        await stack.health("/probe/backend")
        stack.clock.ahead_s += FRESH_S
        [upstream] = (await told(stack, "/upstreams"))["upstreams"]
    assert upstream["connections"] == {"open": 1, "idle": 1, "opening": 0, "waiting": 0, "most": 1000} | {
        "most": stack.sidecar.assembly.config.limits.upstream_connections
    }
    assert (upstream["url"], upstream["health"], upstream["minute"]["answered"]) == (stack.backend.url, "good", 1)
    assert upstream["probes"] == [{"name": "backend", "path": "/health", "status": 200}]


# The configuration


async def test_a_refused_file_is_reported_with_its_problems_and_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with running(file=file) as stack:
        assert (await told(stack, "/configuration"))["refused"] is None
        file.write_text(
            "issuers:\n  main:\n    issuer: https://a.test/ # a note\n    audience: my-secret\nupstream: 7\n"
        )
        assert stack.sidecar.reload is not None
        await stack.sidecar.reload.reload()
        stack.secrets.errors.clear()
        configuration = await told(stack, "/configuration")
        [problem] = await problems(stack)
    refused = configuration["refused"]
    assert [(one["line"], one["path"]) for one in refused["problems"]] == [
        (2, "issuers.main.audiences"), (4, "issuers.main.audience"), (5, "upstream"),
    ]  # fmt: skip
    assert refused["lines"] == [
        "issuers:",
        "  main:",
        "    issuer: https://a.test/",
        "    audience: ***",
        "upstream: ***",
    ]
    assert (
        problem["text"]
        == "A changed configuration was refused (3 problems); fix the file. The previous configuration stays in use."
    )
    assert "".join(configuration["lines"]).startswith('{"listen": "127.0.0.1:0"')


async def test_changes_that_need_a_restart_are_reported(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    async with running(file=file) as stack:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"workers": 3}))
        assert stack.sidecar.reload is not None
        await stack.sidecar.reload.reload()
        assert (await told(stack, "/configuration"))["restart_needed"] == ["workers"]
        [problem] = await problems(stack)
        assert problem["text"] == "workers has changed in the file; restart the sidecar to apply it."


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("upstream: http://a:1 # secret", ["upstream: http://a:1"]),
        ("# secret\nupstream: 'http://a:1' # secret", ["", "upstream: 'http://a:1'"]),
        ("a: https://me:secret@h/x?y=secret#f", ["a: https://***@h/x?***"]),
        ("a: '${B:-secret} ${C}'", ["a: '${B:-***} ${C}'"]),
        (
            "jwks_headers: {Authorization: secret, X: [secret, secret]}",
            ["jwks_headers: {Authorization: ***, X: [***, ***]}"],
        ),
        ("jwks_headers:\n  A: |\n    secret\n    secret\nb: c", ["jwks_headers:", "  A: ***", "", "", "b: c"]),
        ("a: eyJhIjoxfQ.eyJi.c2VjcmV0", ["a: ***"]),
        ("a: b#c", ["a: b#c"]),
        ("? [a]\n: b", ["? [a]", ": b"]),
        ("a: &a [b, *a]", ["a: &a [b, *a]"]),
        ("a: 'b # c'", ["a: 'b # c'"]),
        ("", []),
        ("a: [secret", []),
        ("\x00", []),
    ],
)
def test_no_secret_of_a_file_is_shown(text: str, lines: list[str]) -> None:
    assert shown(text) == lines
    assert "secret" not in "".join(shown(text))
