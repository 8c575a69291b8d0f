"""Converts Istio's RequestAuthentication and AuthorizationPolicy objects (security.istio.io/v1) of one file.

Issuers, keys, places of tokens and headers are converted, and one kind of policy: every request needs a token.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sidecar.cli.convert.reading import (
    UPSTREAM,
    Fields,
    Imported,
    NotUnderstood,
    audiences_of,
    decoded,
    keys_at,
    settings_of,
)

_WITH_TOKEN = {"from": [{"source": {"requestPrincipals": ["*"]}}]}
_WITHOUT_TOKEN = {"from": [{"source": {"notRequestPrincipals": ["*"]}}]}


def istio(documents: Iterable[object]) -> Imported:
    """Convert the documents of a file. Raises NotUnderstood."""
    imported = Imported()
    imported.remark("upstream", f"Istio's files do not name the backend; replace {UPSTREAM}")
    policies: list[tuple[str, str, list[Any]]] = []
    scopes: list[object] = []
    for document in _objects(documents):
        version, kind = document.text("apiVersion") or "", document.text("kind")
        metadata = document.fields("metadata")
        name = metadata.text("name") or "unnamed"
        if kind not in ("RequestAuthentication", "AuthorizationPolicy") or not version.startswith("security.istio.io/"):
            imported.close(name, f"a {kind} ({version or 'no apiVersion'}) is not imported, and may refuse requests")
            continue
        spec = Fields(objects := document.take("spec"), name)
        document.take("status")
        scope = [metadata.text("namespace"), *(spec.take(key) for key in ("selector", "targetRefs", "targetRef"))]
        if scopes and scope not in scopes:
            imported.close(
                name, "is for another namespace or workload than the objects before it; import one workload at a time"
            )
        scopes.append(scope)
        if any(scope[1:]):
            imported.remark(name, "is not needed; the sidecar protects the workload in its pod")
        for label in metadata.fields("annotations").rest() | metadata.fields("labels").rest():
            if label.startswith("istio.io/"):  # dry-run and rev change whether it applies at all
                imported.close(f"{name}.{label}")
        if kind == "RequestAuthentication":
            for rule in spec.items("jwtRules"):
                _issuer(rule, imported)
        else:
            imported.quote({"kind": kind, "metadata": {"name": name, "namespace": scope[0]}, "spec": objects})
            policies.append((name, spec.text("action") or "ALLOW", _rules(spec)))
        imported.close_left(spec)
        imported.close_left(document)
    _policies(policies, imported)
    imported.finish()
    return imported


def _objects(documents: Iterable[object]) -> Iterator[Fields]:
    for document in documents:
        if document is None:  # an empty document
            continue
        fields = Fields(document, "")
        items = fields.take("items")
        if items is None:
            yield fields
        elif isinstance(items, list):  # a List, as kubectl get -o yaml prints it
            yield from _objects(items)
        else:
            raise NotUnderstood("items is not a list")


def _rules(spec: Fields) -> list[Any]:
    rules = spec.take("rules")
    if rules is not None and not isinstance(rules, list):
        raise NotUnderstood(f"{spec.below('rules')} is not a list")
    return rules or []


def _issuer(rule: Fields, imported: Imported) -> None:
    iss = rule.text("issuer")
    if not iss:
        raise NotUnderstood(f"{rule.where}.issuer is missing")
    issuer: dict[str, Any] = {"issuer": iss, "audiences": audiences_of(rule, imported)}
    uri, inline = rule.text("jwksUri"), rule.text("jwks")
    if uri and inline:
        imported.close(rule.where, "names two key sets, jwksUri and jwks")
    elif uri:
        keys_at(uri, issuer, rule.below("jwksUri"), imported)
    elif inline:
        issuer["jwks_inline"] = decoded(inline, rule.below("jwks"))
    issuer["require_exp"] = False
    issuer["required_claims"] = ["sub"]  # without sub there is no principal, so policies that need one refuse
    imported.remark(rule.below("issuer"), "accepts tokens without exp; remove require_exp if all tokens have one")
    settings = settings_of(
        rule,
        imported,
        prefix="prefix",
        forward="forwardOriginalToken",
        payload="outputPayloadToHeader",
        headers=("outputClaimToHeaders", "header", "claim"),
    )
    if rule.take("timeout") is not None:
        imported.remark(rule.below("timeout"), "is not needed; keys are fetched in the background, within 5 s")
    imported.close_left(rule)
    imported.issuer(re.sub(r"^https?://([^/]+).*", r"\1", iss, flags=re.DOTALL), issuer, settings, rule.where)


def _policies(policies: list[tuple[str, str, list[Any]]], imported: Imported) -> None:
    """Check that every request needs a token, or else that a valid token is always accepted."""
    allowing = [rule for _, action, rules in policies if action == "ALLOW" for rule in rules]
    denying = [rule for _, action, rules in policies if action == "DENY" for rule in rules]
    for name, action, rules in policies:
        if action not in ("ALLOW", "DENY"):
            imported.close(name, f"its action {action} is not imported, and may refuse requests")
        elif action == "DENY" and not all(_only_without_token(rule) for rule in rules):
            imported.close(name, "refuses requests that bring a valid token")
        elif action == "ALLOW" and _WITH_TOKEN not in allowing:
            imported.close(name, "accepts some requests, with or without a token, and refuses all others")
        elif action == "ALLOW" and not all(rule == _WITH_TOKEN for rule in rules) and _WITHOUT_TOKEN not in denying:
            imported.leave(name, "accepts more than requests with a valid token")
        elif action == "DENY" and rules != [_WITHOUT_TOKEN] and _WITH_TOKEN not in allowing:
            imported.leave(name, "refuses only some requests without a token")
    if _WITHOUT_TOKEN not in denying and not any(action == "ALLOW" for _, action, _ in policies):
        imported.leave(
            "AuthorizationPolicy", "no object needs a token for every request, so requests without one are accepted"
        )


def _only_without_token(rule: object) -> bool:
    """Does a DENY rule match only requests without a token?"""
    sources = rule.get("from") if isinstance(rule, dict) else None
    found = (
        [one.get("source") if isinstance(one, dict) else None for one in sources] if isinstance(sources, list) else []
    )
    return bool(found) and all(isinstance(one, dict) and one.get("notRequestPrincipals") == ["*"] for one in found)
