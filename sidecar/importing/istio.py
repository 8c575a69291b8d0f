"""Istio's RequestAuthentication and AuthorizationPolicy (security.istio.io/v1), as many of them as one file holds."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from sidecar.importing.reading import Fields, Imported, NotUnderstood, decoded, name_of, pattern_of, tokens_from

_CLAIM = re.compile(r"request\.auth\.claims((?:\[[^\[\]]+\])+)")


class _NoEquivalent(Exception):
    """A rule that no route can say; the text says why."""


class _Asked(NamedTuple):
    """What a rule asks of a request besides its path, as keys of a route."""

    token: bool = False
    issuers: tuple[str, ...] = ()
    claims: dict[str, Any] | None = None


def istio(documents: Iterable[object]) -> Imported:
    """Import the documents of a file. Raises NotUnderstood."""
    imported = Imported()
    imported.config["upstream"] = "http://127.0.0.1:9292"
    imported.remark("upstream", "Istio's files do not name the backend; http://127.0.0.1:9292 is made up")
    policies: list[tuple[str, Fields]] = []
    for document in _objects(documents):
        kind = document.text("kind")
        name = document.fields("metadata").text("name") or "unnamed"
        spec = Fields(document.take("spec"), name)
        for scope in ("selector", "targetRefs", "targetRef"):
            if spec.take(scope) is not None:
                imported.remark(f"{name}.{scope}", "this configuration is for the workload that it is put beside")
        if kind == "RequestAuthentication":
            for rule in spec.items("jwtRules"):
                _issuer(rule, imported)
            imported.left_out(spec)
        elif kind == "AuthorizationPolicy":
            policies.append((spec.text("action") or "ALLOW", spec))
        else:
            imported.remark(name, f"a {kind} has no equivalent; left out")
    if not imported.config["issuers"]:
        raise NotUnderstood("it has no RequestAuthentication with jwtRules")
    token_everywhere = False
    for action in ("DENY", "ALLOW"):  # in the order in which Istio asks them
        for spec in (spec for one, spec in policies if one == action):
            token_everywhere |= _policy(action, spec, imported)
    for action, spec in policies:
        if action not in ("DENY", "ALLOW"):
            imported.remark(spec.where, f"action {action} has no equivalent; left out")
    _otherwise(imported, token_everywhere, allowed=any(action == "ALLOW" for action, _ in policies))
    return imported


def _objects(documents: Iterable[object]) -> Iterator[Fields]:
    for document in documents:
        fields = Fields(document, "")
        items = fields.take("items")
        if items is not None:  # a List, as kubectl get -o yaml prints it
            yield from _objects(items)
        elif document is not None:
            yield fields


def _issuer(rule: Fields, imported: Imported) -> None:
    iss = rule.text("issuer")
    if not iss:
        raise NotUnderstood(f"{rule.where}.issuer is missing")
    issuer: dict[str, Any] = {"issuer": iss, "audiences": rule.texts("audiences") or "any"}
    if issuer["audiences"] == "any":
        imported.remark(f"{rule.where}.audiences", "is missing: tokens meant for other services get in; list yours")
    uri, inline = rule.text("jwksUri"), rule.text("jwks")
    if uri:
        issuer["jwks_uri"] = uri
        if uri.startswith("http:"):
            issuer["allow_http"] = True
            imported.remark(
                f"{rule.where}.jwksUri", "keys over plain http can be replaced on the way; https, if you can"
            )
    elif inline:
        issuer["jwks_inline"] = decoded(inline, rule.below("jwks"))
    imported.remark(f"{rule.where}.issuer", "tokens without exp are refused here, unless require_exp: false")
    imported.config["issuers"][_name(iss, imported)] = issuer
    tokens_from(rule, "prefix", imported)
    imported.once("forward_token", bool(rule.take("forwardOriginalToken")), f"{rule.where}.forwardOriginalToken")
    if header := rule.text("outputPayloadToHeader"):
        imported.once("claims_header", header, f"{rule.where}.outputPayloadToHeader")
    for entry in rule.items("outputClaimToHeaders"):
        imported.header(entry.text("header"), entry.text("claim"), entry.where)
    rule.take("timeout")  # ours is 5 s, in the background
    imported.left_out(rule)


def _name(iss: str, imported: Imported) -> str:
    """A name for an issuer: the host of its URL, or all of it."""
    name = name_of(re.sub(r"^https?://([^/]+).*", r"\1", iss))
    names = imported.config["issuers"]
    return name if name not in names else f"{name}-{len(names) + 1}"


def _policy(action: str, spec: Fields, imported: Imported) -> bool:
    """Add the routes of a policy; says whether it refuses whoever brings no token, whatever the request."""
    token_everywhere = False
    for rule in spec.items("rules"):
        try:
            asked = _asked(rule, imported, refused=action == "DENY")
        except _NoEquivalent as error:
            asked = None
            what = "nobody gets in there" if action == "DENY" else "left out, so nobody gets in by it"
            imported.remark(rule.where, f"{error}; {what}")
        routes = [
            route for operation in rule.items("to") for route in _operation(operation.fields("operation"), imported)
        ]
        imported.left_out(rule)
        for route in routes or [{"path": "/*"}]:
            if asked is None and action == "ALLOW":
                continue
            _complete(route, action, asked)
            if action == "DENY" and route == {"path": "/*"}:
                token_everywhere = True
                continue
            imported.route(route, rule.where)
            if action == "DENY" and route.get("auth") != "deny":
                imported.remark(rule.where, "these requests meet this rule alone; add what ALLOW policies ask of them")
    imported.left_out(spec)
    return token_everywhere


def _complete(route: dict[str, Any], action: str, asked: _Asked | None) -> None:
    """Add to a route what its rule asks of the token."""
    if asked is None or (action == "DENY" and not asked.token):
        route["auth"] = "deny"
    elif not asked.token:
        route["auth"] = "optional"  # a token that comes is verified: RequestAuthentication refuses a bad one everywhere
    if asked is not None and asked.issuers:
        route["issuers"] = list(asked.issuers)
    if asked is not None and asked.claims:
        route["require"] = {"claims": asked.claims}


def _otherwise(imported: Imported, token_everywhere: bool, *, allowed: bool) -> None:
    """What becomes of requests that no policy names: with ALLOW policies they are refused, without they need no token."""
    if token_everywhere:
        for route in imported.routes:
            if route.get("auth") == "optional":
                del route["auth"]
    if allowed:
        imported.route({"path": "/*", "auth": "deny"}, "AuthorizationPolicy")
    elif not token_everywhere:
        imported.route({"path": "/*", "auth": "optional"}, "AuthorizationPolicy")
        imported.remark("routes", "requests without a token pass, as they do in Istio without an ALLOW policy")


def _asked(rule: Fields, imported: Imported, *, refused: bool) -> _Asked:
    """What a rule asks of the token; of a rule that refuses (DENY), what it takes not to be refused. Raises _NoEquivalent."""
    principals: list[str] = []
    for source in rule.items("from"):
        fields = source.fields("source")
        principals += fields.texts("notRequestPrincipals" if refused else "request_principals")
        if fields.left():
            raise _NoEquivalent(f"asks for {', '.join(fields.left())}, which is not about the token")
    claims: dict[str, Any] = {}
    for condition in rule.items("when"):
        key = condition.text("key")
        wanted = condition.texts("notValues" if refused else "values")
        path = _claim_path(key)
        if path is None or not wanted or condition or any("*" in value for value in wanted):
            raise _NoEquivalent(f"asks for {key} in a way that no route can say")
        claims[path] = {"any": wanted}
    issuers: list[str] = []
    if principals and "*" not in principals:
        issuers, subjects = _principals(principals, imported)
        if subjects:
            claims["sub"] = {"in": subjects}
    if refused and claims and principals:
        raise _NoEquivalent("refuses by principal and by claim at once")
    return _Asked(bool(principals or claims), tuple(issuers), claims)


def _principals(principals: list[str], imported: Imported) -> tuple[list[str], list[str]]:
    """The issuers and subjects of `iss/sub`. Raises _NoEquivalent."""
    names = {issuer["issuer"]: name for name, issuer in imported.config["issuers"].items()}
    pairs = [principal.rpartition("/")[::2] for principal in principals]
    if unknown := [iss for iss, _ in pairs if iss not in names]:
        raise _NoEquivalent(f"names {', '.join(unknown)}, which is no issuer of this file")
    issuers = list(dict.fromkeys(names[iss] for iss, _ in pairs))
    subjects = [sub for _, sub in pairs]
    if set(subjects) == {"*"}:
        return issuers, []
    if len(issuers) > 1 or any("*" in sub for sub in subjects):
        raise _NoEquivalent("names subjects of several issuers, or parts of them")
    return issuers, subjects


def _claim_path(key: object) -> str | None:
    """Our path of the claim that a condition is about."""
    if key == "request.auth.audiences":
        return "aud"
    found = _CLAIM.fullmatch(str(key))
    if found is None:
        return None
    return ".".join(re.sub(r"([\\.])", r"\\\1", part) for part in re.findall(r"\[([^\[\]]+)\]", found[1]))


def _operation(operation: Fields, imported: Imported) -> Iterator[dict[str, Any]]:
    """The requests of an operation, as keys of routes: one for each path."""
    rest: dict[str, Any] = {}
    if methods := operation.texts("methods"):
        rest["methods"] = methods
    if hosts := operation.texts("hosts"):
        rest["hosts"] = [re.sub(r":\d+$|:\*$", "", host).lower() for host in hosts]
    paths = operation.texts("paths") or ["/*"]
    imported.left_out(operation)
    for path in paths:
        yield {**_path(path), **rest}


def _path(path: str) -> dict[str, str]:
    """Istio's four kinds of paths: exact, prefix, suffix, and templates with {*} and {**}."""
    if "{" in path:
        template = re.escape(path).replace(r"\{\*\*\}", ".*").replace(r"\{\*\}", "[^/]+")
        return {"path_regex": template.replace("\\-", "-")}
    if path in ("*", "/*"):
        return {"path": "/*"}
    if path.startswith("*"):
        return {"path_regex": ".*" + re.escape(path[1:]).replace("\\-", "-")}
    if path.endswith("/*"):
        return {"path": path}
    if path.endswith("*"):
        return {"path_regex": pattern_of(path[:-1])}
    return {"path": path}
