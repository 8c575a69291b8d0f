"""Checks the names that refer to other parts of the file: issuers and upstreams in routes, upstreams in probes."""

from collections.abc import Iterable, Mapping

from sidecar.config.listeners import Probe
from sidecar.config.route import Route
from sidecar.config.values import nearest
from sidecar.config.yaml_source import Section


def check_default_upstream(section: Section) -> None:
    """Report if there is no upstream, or more than one, for requests without an upstream of their route."""
    names = _names(section, "upstreams")
    if "upstream" in section and "default" in names:
        text = f"`upstream` on line {section.line('upstream')} is this upstream too; remove one of the two"
        section.report(text, "upstreams", "default")
    elif _without_upstream(section):
        if "forward_auth" not in section:
            section.report("is missing; write http://127.0.0.1:9292, or several under `upstreams`", "upstream")
    elif (
        "upstream" not in section
        and isinstance(section.get("upstreams"), Section)
        and "default" not in names
        and len(names) != 1
    ):
        text = "none is for requests without an upstream; name one `default`, or add `upstream: URL`"
        section.report(text, "upstreams")


def check_names_in_routes(section: Section, rules: Iterable[tuple[Section, Route]]) -> None:
    """Report issuers and upstreams that a route names and the file lacks."""
    issuers, upstreams = _names(section, "issuers"), _upstreams(section)
    for rule, route in rules:
        if route.could_read("issuers"):
            for item, name in enumerate(route.issuers or ()):
                if issuers and name not in issuers:
                    rule.report(_unknown("an issuer", name, issuers), "issuers", item)
        if route.could_read("upstream") and route.upstream is not None:
            if _without_upstream(section):
                rule.report("names an upstream, and the file has none; add `upstreams`", "upstream")
            elif upstreams and route.upstream not in upstreams:
                rule.report(_unknown("an upstream", route.upstream, upstreams), "upstream")


def check_probes(section: Section, probes: Mapping[str, Probe]) -> None:
    """Report upstreams that a probe names and the file lacks."""
    upstreams = _upstreams(section)
    for name, probe in probes.items():
        if _without_upstream(section):
            section.report("needs an upstream, and the file has none; add `upstream`", "health", "probes", name)
        elif probe.could_read("upstream") and probe.upstream and upstreams and probe.upstream not in upstreams:
            text = _unknown("an upstream", probe.upstream, upstreams)
            section.report(text, "health", "probes", name, "upstream")


def sections_of(section: Section, key: str) -> list[Section]:
    """The items of a list below the section that are mappings."""
    value = section.get(key)
    return [item for item in value if isinstance(item, Section)] if isinstance(value, list) else []


def _names(section: Section, key: str) -> list[str]:
    """The keys of a mapping below the section, also if it has problems."""
    value = section.get(key)
    return list(value) if isinstance(value, Section) else []


def _upstreams(section: Section) -> list[str]:
    return _names(section, "upstreams") + ["default"] * ("upstream" in section)


def _without_upstream(section: Section) -> bool:
    return "upstream" not in section and "upstreams" not in section


def _unknown(kind: str, name: str, known: list[str]) -> str:
    return f"{{input}} is not {kind} of this file; one of: {', '.join(known)}{nearest(name, known)}"
