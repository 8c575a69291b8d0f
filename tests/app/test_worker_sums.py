"""The answers of several workers combined into one: metrics and the views of operators."""

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from sidecar.app.admin.report import judged
from sidecar.app.workers.metrics import Counted
from sidecar.app.workers.views import together
from sidecar.observability.metric_families import FAMILIES, PREFIX
from tests.proxy.conftest import running

THE_SAME_OR_THE_OLDEST = {
    "config_info",
    "build_info",
    "jwks_age_seconds",
    "jwks_state",
    "jwks_next_refresh_seconds",
    "jwks_clock_offset_seconds",
    "denylist_entries",
    "denylist_age_seconds",
    "api_keys",
    "signing_key_age_seconds",
    "draining",
}

ONE = """# TYPE jwt_sidecar_requests_total counter
jwt_sidecar_requests_total{route="a"} 2
# TYPE jwt_sidecar_connections gauge
jwt_sidecar_connections 3
# TYPE jwt_sidecar_jwks_age_seconds gauge
jwt_sidecar_jwks_age_seconds{issuer="main"} 10
# TYPE jwt_sidecar_key_file_good gauge
jwt_sidecar_key_file_good{file="a"} 1
# TYPE jwt_sidecar_overhead_seconds histogram
jwt_sidecar_overhead_seconds_bucket{le="0.1"} 1
jwt_sidecar_overhead_seconds_bucket{le="+Inf"} 2
jwt_sidecar_overhead_seconds_count 2
jwt_sidecar_overhead_seconds_sum 0.5
"""
OTHER = ONE.replace('route="a"} 2', 'route="b"} 5').replace("} 10\n", "} 30\n")
OTHER = OTHER.replace('file="a"} 1', 'file="a"} 0')


def samples(counted: Counted) -> dict[str, float]:
    return {
        line.rpartition(" ")[0].removeprefix(PREFIX): float(line.rpartition(" ")[2])
        for line in counted.text()[0].decode().splitlines()
        if not line.startswith("#")
    }


def test_counters_and_histograms_are_summed_and_gauges_by_their_meaning() -> None:
    counted = Counted()
    counted.add(1, ONE)
    counted.add(2, OTHER)
    found = samples(counted)
    assert (found['requests_total{route="a"}'], found['requests_total{route="b"}']) == (2, 5)
    assert found["connections"] == 6
    assert found['jwks_age_seconds{issuer="main"}'] == 30
    assert found['key_file_good{file="a"}'] == 0
    assert (found['overhead_seconds_bucket{le="0.1"}'], found["overhead_seconds_count"]) == (2, 4)
    assert found["overhead_seconds_sum"] == 1.0


def test_counters_keep_the_counts_of_a_lost_worker() -> None:
    counted = Counted()
    for pid in (1, 2, 3):
        counted.add(pid, ONE)
        counted.add(pid, ONE)
        counted.lost(pid)
        assert samples(counted)['requests_total{route="a"}'] == 2 * pid
    assert "connections" not in samples(counted)


async def test_every_gauge_has_a_rule_for_several_workers() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        text = (await stack.health("/metrics")).body.decode()
    metrics = [metric for metric in text_string_to_metric_families(text) if metric.name.startswith(PREFIX)]
    gauges = {metric.name.removeprefix(PREFIX) for metric in metrics if metric.type == "gauge"}
    assert {name for name in gauges if FAMILIES[name].together is max} == THE_SAME_OR_THE_OLDEST


@pytest.mark.parametrize(
    ("answers", "one"),
    [
        ([{"requests": 2, "p99_s": 0.5}, {"requests": 3, "p99_s": 0.1}], {"requests": 5, "p99_s": 0.5}),
        ([{"a": None}, {"a": "text"}, {}], {"a": "text"}),
        ([{"usable": True, "draining": True}, {"usable": False, "draining": False}], {"usable": False, "draining": True}),
        ([{"state": "fresh"}, {"state": "stale"}], {"state": "stale"}),
        ([{"since": "2026-01-02"}, {"since": "2026-01-01"}], {"since": "2026-01-01"}),
        (
            [[{"name": "a", "line": 3, "requests": 1}, {"name": "b", "requests": 1}], [{"name": "a", "line": 3, "requests": 1}]],
            [{"name": "a", "line": 3, "requests": 2}, {"name": "b", "requests": 1}],
        ),
        (
            [[{"time": "1", "request_id": "x"}], [{"time": "2", "request_id": "y"}]],
            [{"time": "2", "request_id": "y"}, {"time": "1", "request_id": "x"}],
        ),
        ([{"durations": [1, 2]}, {"durations": [1, 0]}], {"durations": [2, 2]}),
        ([{"bounds_s": [0.1]}, {"bounds_s": [0.1]}], {"bounds_s": [0.1]}),
        (
            [
                [{"level": "note", "what": "x", "name": "a", "refused": 0, "text": "4 requests refused: c, on /d/2."}],
                [
                    {"level": "warn", "what": "x", "name": "a", "refused": 1200, "text": "1,200 requests refused: c, on /d/2."},
                    {"level": "bad", "what": "upstream", "name": "u", "refused": 4, "text": "1 connection failed, 1 timeout."},
                ],
                [{"level": "bad", "what": "upstream", "name": "u", "refused": 12, "text": "1 connection failed, 7 timeouts."}],
            ],
            [
                {"level": "warn", "what": "x", "name": "a", "refused": 1200, "text": "1,204 requests refused: c, on /d/2."},
                {"level": "bad", "what": "upstream", "name": "u", "refused": 16, "text": "2 connections failed, 8 timeouts."},
            ],
        ),
        (
            [
                [{"at": "2026-01-01T00:00:00Z", "what": "started", "name": "s", "level": "note", "text": "started"}],
                [
                    {"at": "2026-01-01T00:00:01Z", "what": "started", "name": "s", "level": "note", "text": "started"},
                    {"at": "2026-01-01T00:00:09Z", "what": "started", "name": "s", "level": "note", "text": "started"},
                ],
            ],
            [
                {"at": "2026-01-01T00:00:00Z", "what": "started", "name": "s", "level": "note", "text": "started"},
                {"at": "2026-01-01T00:00:09Z", "what": "started", "name": "s", "level": "note", "text": "started"},
            ],
        ),
        ([{"lines": ["a: 1"]}, {"lines": ["a: 1"]}], {"lines": ["a: 1"]}),
    ],
)  # fmt: skip
def test_counts_are_summed_and_other_values_come_from_one_worker(answers: list[object], one: object) -> None:
    assert together(answers) == one


def test_report_mode_is_judged_by_the_sum_of_all_workers() -> None:
    def said(requests: int, *refused: int) -> dict[str, Any]:
        kinds = [{"issuer": "main", "code": "token_expired", "count": one, "last": "2026"} for one in refused]
        return judged(
            {"since": "2026", "seconds": 1.0, "routes": [{"route": "/a", "requests": requests, "refused": kinds}]}
        )

    alone = said(200)
    assert (alone["safe"], alone["routes"][0]["verdict"]) == (False, "too_few")
    both = judged(together([said(200), said(200)]))
    assert (both["safe"], both["enough"], both["routes"][0]["requests"]) == (True, 300, 400)
    assert (both["routes"][0]["verdict"], both["routes"][0]["at_most"]) == ("safe", 0.0075)
    both = judged(together([said(400), said(400, 1)]))
    assert (both["safe"], both["routes"][0]["verdict"], both["routes"][0]["would_be_refused"]) == (False, "refuses", 1)
