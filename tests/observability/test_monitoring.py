"""The alert rules and the dashboard: they are valid, fire when they should, and use only existing metrics."""

import json
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import Need
from tests.proxy.conftest import running

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text())
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"] if "alert" in rule]
DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
EXPRESSIONS = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


@pytest.mark.parametrize("command", [("check", "rules", "rules.yml"), ("test", "rules", "rules_test.yml")])
def test_promtool_accepts_the_rules_and_their_tests(command: tuple[str, ...], need: Need) -> None:
    said = subprocess.run(
        [need("promtool"), *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout + said.stderr


def test_promtool_accepts_every_query_of_the_dashboard(need: Need, tmp_path: Path) -> None:
    """It reads them as recording rules, with durations and patterns in place of Grafana's variables."""
    rules = [
        {"record": f"query_{number}", "expr": re.sub(r"\$__rate_interval", "5m", expression)}
        for number, expression in enumerate(EXPRESSIONS)
    ]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    said = subprocess.run([need("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_its_cause_severity_and_remedy(alert: dict[str, Any]) -> None:
    assert alert["labels"]["severity"] in ("warning", "critical")
    assert len(alert["annotations"]["summary"]) > 20
    assert len(alert["annotations"]["description"]) > 100


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert["alert"])
def test_an_alert_has_its_runbook(alert: dict[str, Any]) -> None:
    page, _, section = alert["annotations"]["runbook_url"].partition("#")
    assert section == alert["alert"].lower()
    text = (DEPLOY.parent / page).read_text()
    [about] = re.findall(rf"^## {alert['alert']}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert [word for word in ("**Means:**", "**Look:**", "**Do:**") if word not in about] == []


def test_every_runbook_has_an_alert() -> None:
    sections = re.findall(r"^## (\w+)$", (DEPLOY.parent / "docs/how/runbooks.md").read_text(), re.MULTILINE)
    assert sections == [alert["alert"] for alert in ALERTS]


@pytest.mark.parametrize("tree", ["kustomize", "helm"])
def test_the_objects_for_the_prometheus_operator_are_generated_from_the_rules(tree: str) -> None:
    made = runpy.run_path(str(DEPLOY / "prometheus" / "prometheus_rule.py"))["files"]()
    [(file, content)] = [item for item in made.items() if tree in item[0].parts]
    assert file.read_text() == content, "python deploy/prometheus/prometheus_rule.py writes it"


def test_only_one_alert_is_about_a_single_pod() -> None:
    """One issuer that fifty pods cannot reach causes one page."""
    per_pod = {alert["alert"] for alert in ALERTS if "instance" in "".join(alert["annotations"].values())}
    assert per_pod == {"SidecarUnlikeOthers"}


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus" / "rules_test.yml").read_text())["tests"]
    checks = [check for test in tests for check in test["promql_expr_test"]]
    for fires in (True, False):
        tested = {
            re.findall('alertname="(.*?)"', check["expr"])[0] for check in checks if ("exp_samples" in check) is fires
        }
        assert tested == {alert["alert"] for alert in ALERTS}


def test_every_panel_has_a_title_and_its_own_position() -> None:
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in DASHBOARD["panels"]]
    assert len(set(places)) == len(places)
    assert all(panel["title"] and panel["targets"] for panel in DASHBOARD["panels"])


async def test_rules_and_dashboard_use_only_metrics_of_a_live_scrape() -> None:
    async with running() as stack:
        await stack.fetch(stack.good())
        scrape = (await stack.health("/metrics")).body.decode()
    there = set(re.findall(r"^(?:# TYPE )?(jwt_sidecar_\w+)", scrape, re.MULTILINE))
    recorded = {
        rule["record"].partition(":")[0] for group in RULES["groups"] for rule in group["rules"] if "record" in rule
    }
    there |= recorded
    texts = [*EXPRESSIONS, (DEPLOY / "prometheus" / "rules.yml").read_text(), json.dumps(DASHBOARD["templating"])]
    asked = {name for text in texts for name in re.findall(r"\bjwt_sidecar_\w+", text)}
    assert len(asked) > 20
    assert asked <= there
