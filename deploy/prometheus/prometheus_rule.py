"""`python deploy/prometheus/prometheus_rule.py` writes rules.yml as a PrometheusRule, for kustomize and for Helm."""

import textwrap
from pathlib import Path

DEPLOY = Path(__file__).parents[1]
COMPONENT = DEPLOY / "kustomize" / "alerts" / "prometheus-rule.yaml"
TEMPLATE = DEPLOY / "helm" / "jwt-sidecar" / "templates" / "_rules.tpl"

OBJECT = """\
# Made of deploy/prometheus/rules.yml by prometheus_rule.py beside it. Add the labels that your Prometheus' ruleSelector asks for.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: jwt-sidecar
  labels:
    app.kubernetes.io/component: jwt-sidecar
spec:
"""
DEFINE = """\
{{/* Made of deploy/prometheus/rules.yml by prometheus_rule.py beside it. */}}
{{- define "jwt-sidecar.rules" -}}
%s
{{- end }}
"""


def files() -> dict[Path, str]:
    """What has to be in which file."""
    text = (DEPLOY / "prometheus" / "rules.yml").read_text()
    groups = text[text.index("groups:") :]
    for_helm = groups.strip().replace("{{", '{{"{{"}}')  # which Helm turns back into Prometheus' own template
    return {COMPONENT: OBJECT + textwrap.indent(groups, "  "), TEMPLATE: DEFINE % for_helm}


if __name__ == "__main__":
    for file, content in files().items():
        file.write_text(content)
