"""Envoy's filter `jwt_authn` (extensions.filters.http.jwt_authn.v3.JwtAuthentication), alone or in a whole configuration."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from sidecar.importing.reading import Fields, Imported, NotUnderstood, decoded, name_of, pattern_of, tokens_from

_TYPE = "filters.http.jwt_authn.v3.JwtAuthentication"
_UPSTREAM = "http://127.0.0.1:9292"


class _Requirement(NamedTuple):
    """What a rule asks for, as the keys of a route."""

    auth: str
    issuers: tuple[str, ...] = ()
    claims: dict[str, Any] | None = None


class _NoEquivalent(Exception):
    """A requirement that no route can say; the text says why."""


def envoy(document: object) -> Imported:
    """Import a configuration as decoded YAML or JSON. Raises NotUnderstood."""
    filters = [one for one in _mappings(document) if _is_filter(one)]
    if not filters:
        raise NotUnderstood("it has no jwt_authn filter: no mapping with providers, or with @type ...JwtAuthentication")
    imported = Imported()
    if len(filters) > 1:
        imported.remark("http_filters", f"{len(filters)} jwt_authn filters; the first is imported")
    _surroundings(document, imported)
    found = Fields(filters[0], "")
    found.take("@type")
    for name, provider in found.mappings("providers").items():
        _provider(name, provider, imported)
    if not imported.config["issuers"]:
        raise NotUnderstood("its jwt_authn filter has no providers")
    requirements = found.mappings("requirement_map")
    for rule in found.items("rules"):
        _rule(rule, requirements, imported)
    _otherwise(imported)
    if not found.take("bypass_cors_preflight"):
        imported.remark(
            "bypass_cors_preflight", "CORS preflights pass here; `preflight: reject` on a route refuses them"
        )
    imported.left_out(found)
    return imported


def _mappings(document: object, key: str | None = None) -> Iterator[dict[str, Any]]:
    """Every mapping, wherever it is; with `key` those that have it."""
    if isinstance(document, dict):
        if key is None or key in document:
            yield document
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from _mappings(item, key)


def _is_filter(mapping: dict[str, Any]) -> bool:
    kind = mapping.get("@type")
    return kind.endswith(_TYPE) if isinstance(kind, str) else "providers" in mapping


def _surroundings(document: object, imported: Imported) -> None:
    """Where Envoy listens, and where its routes lead."""
    for listener in _mappings(document, "filter_chains"):
        for address in _mappings(listener.get("address"), "port_value"):
            imported.config.setdefault("listen", _address(address))
    clusters = {cluster.get("name"): cluster for cluster in _mappings(document, "load_assignment")}
    of_keys = {uri.get("cluster") for uri in _mappings(document, "uri")}
    targets: dict[str, str] = {}
    for name in (route["cluster"] for route in _mappings(document, "cluster")):
        if name in clusters and name not in of_keys and (url := _url(clusters[name])) is not None:
            targets[name] = url
    imported.config["upstream"] = next(iter(targets.values()), _UPSTREAM)
    if not targets:
        imported.remark("clusters", f"no address of the backend was found; {_UPSTREAM} is made up")
    for name in list(targets)[1:]:
        imported.remark(f"clusters.{name}", f"only one backend is imported; add {targets[name]} under `upstreams`")


def _url(cluster: dict[str, Any]) -> str | None:
    """The first address of a cluster."""
    scheme = "https" if "transport_socket" in cluster else "http"
    for address in _mappings(cluster, "port_value"):
        return f"{scheme}://{_address(address)}"
    for endpoint in _mappings(cluster, "pipe"):
        return f"unix://{Fields(endpoint['pipe'], 'pipe').text('path')}"
    return None


def _address(address: dict[str, Any]) -> str:
    host = str(address.get("address"))
    return f"[{host}]:{address['port_value']}" if ":" in host else f"{host}:{address['port_value']}"


def _provider(name: str, provider: Fields, imported: Imported) -> None:
    issuer: dict[str, Any] = {"issuer": provider.text("issuer"), "audiences": provider.texts("audiences") or "any"}
    if not issuer["issuer"]:
        issuer["issuer"] = "https://issuer.invalid/"
        imported.remark(provider.below("issuer"), "is missing, and tokens must name their issuer here; write it")
    if issuer["audiences"] == "any":
        imported.remark(provider.below("audiences"), "is missing: tokens meant for other services get in; list yours")
    _keys(provider, issuer, imported)
    if (skew := provider.take("clock_skew_seconds")) is not None:
        issuer["clock_skew"] = f"{skew}s"
    if (lifetime := provider.take("max_lifetime")) is not None:
        issuer["max_token_lifetime"] = _duration(lifetime, provider.below("max_lifetime"))
    if not provider.take("require_expiration"):
        imported.remark(provider.below("require_expiration"), "tokens without exp are refused here (require_exp)")
    _subjects(provider.fields("subjects"), issuer)
    imported.config["issuers"][name_of(name)] = issuer
    tokens_from(provider, "value_prefix", imported)
    imported.once("forward_token", bool(provider.take("forward")), provider.below("forward"))
    if header := provider.text("forward_payload_header"):
        imported.once("claims_header", header, provider.below("forward_payload_header"))
        imported.remark(
            provider.below("forward_payload_header"), "holds the same claims, but not the token's very bytes"
        )
    provider.take("pad_forward_payload_header")
    for entry in provider.items("claim_to_headers"):
        imported.header(entry.text("header_name"), entry.text("claim_name"), entry.where)
    provider.take("jwt_cache_config")  # verified tokens are always remembered here
    imported.left_out(provider)


def _keys(provider: Fields, issuer: dict[str, Any], imported: Imported) -> None:
    remote, local = provider.fields("remote_jwks"), provider.fields("local_jwks")
    uri = remote.fields("http_uri")
    if jwks_uri := uri.text("uri"):
        issuer["jwks_uri"] = jwks_uri
        if jwks_uri.startswith("http:"):
            issuer["allow_http"] = True
            imported.remark(uri.where, "keys over plain http can be replaced on the way; https, if the issuer has it")
    for name in ("cluster", "timeout"):  # the host of the URI is asked itself, for 5 s at most
        uri.take(name)
    if (duration := remote.take("cache_duration")) is not None:
        issuer["refresh_interval"] = _duration(duration, remote.below("cache_duration"))
    for name in ("async_fetch", "retry_policy"):  # keys are always fetched in the background, and again when that fails
        remote.take(name)
    if file := local.text("filename"):
        issuer["jwks_file"] = file
    elif inline := local.text("inline_string"):
        issuer["jwks_inline"] = decoded(inline, local.below("inline_string"))
    for fields in (uri, remote, local):
        imported.left_out(fields)


def _subjects(subjects: Fields, issuer: dict[str, Any]) -> None:
    exact, prefix, suffix = subjects.text("exact"), subjects.text("prefix"), subjects.text("suffix")
    if exact:
        issuer["subjects"] = {"exact": [exact]}
    elif prefix:
        issuer["subjects"] = {"prefix": [prefix]}
    elif suffix and "*" not in suffix:
        issuer["subjects"] = {"glob": [f"*{suffix}"]}
    elif suffix or subjects:
        raise NotUnderstood(f"{subjects.where} can be exact, prefix or suffix here; write which subjects are meant")


def _rule(rule: Fields, requirements: Mapping[str, Fields], imported: Imported) -> None:
    match = rule.fields("match")
    route = _match(match, imported)
    name, asked = rule.text("requirement_name"), rule.fields("requires")
    if name is not None:
        if name not in requirements:
            raise NotUnderstood(f"{rule.where}.requirement_name: {name} is not in requirement_map")
        asked = requirements[name]
    try:
        requirement = _requirement(asked, imported) if asked else _Requirement("none")
    except _NoEquivalent as error:
        imported.remark(rule.where, f"{error}; nobody gets in until you write what is meant")
        requirement = _Requirement("deny")
    if match and requirement.auth in ("none", "optional"):
        imported.remark(rule.where, f"opens requests by {', '.join(match.left())}, which no route can say; left out")
        return
    imported.left_out(match)
    imported.left_out(rule)
    if requirement.auth != "required":
        route["auth"] = requirement.auth
    if requirement.issuers:
        route["issuers"] = list(requirement.issuers)
    if requirement.claims:
        route["require"] = {"claims": requirement.claims}
    if "path" in route or "path_regex" in route:
        imported.route(route, rule.where)
    else:
        imported.remark(rule.where, "names no path; left out")


def _match(match: Fields, imported: Imported) -> dict[str, Any]:
    """The requests of a rule, as keys of a route; what cannot be said stays in `match`."""
    route: dict[str, Any] = {}
    prefix, path, below = match.text("prefix"), match.text("path"), match.text("path_separated_prefix")
    regex = match.fields("safe_regex").text("regex")
    if prefix and prefix.endswith("/"):
        route["path"] = prefix + "*"
        if prefix != "/":
            imported.remark(match.below("prefix"), f"{prefix}* is here for {prefix[:-1]} too")
    elif prefix:
        route["path_regex"] = pattern_of(prefix)
        imported.remark(match.below("prefix"), f"{prefix} is for {prefix}x too; if that is not meant, path: {prefix}/*")
    elif path:
        route["path"] = path
    elif below:
        route["path"] = f"{below}/*"
    elif regex:
        route["path_regex"] = regex
    for header in match.items("headers"):
        name = header.text("name")
        exact = header.text("exact_match") or header.fields("string_match").text("exact")
        if name == ":method" and exact and not header:
            route["methods"] = [exact]
        elif name in (":authority", "host") and exact and not header:
            route["hosts"] = [exact.lower()]
        else:
            match.untaken(f"headers.{name}")
    return route


def _requirement(requirement: Fields, imported: Imported) -> _Requirement:
    """What a requirement means for a route. Raises _NoEquivalent."""
    if (provider := requirement.text("provider_name")) is not None:
        return _Requirement("required", (name_of(provider),))
    if narrowed := requirement.fields("provider_and_audiences"):
        imported.remark(narrowed.where, "the issuer's `audiences` hold as well; a token for others gets 403 here")
        claims = {"aud": {"any": narrowed.texts("audiences")}}
        return _Requirement("required", (name_of(narrowed.text("provider_name") or ""),), claims)
    if requirement.take("allow_missing") is not None:
        return _Requirement("optional")
    if requirement.take("allow_missing_or_failed") is not None:
        imported.remark(requirement.below("allow_missing_or_failed"), "a token that comes must be valid here")
        return _Requirement("optional")
    if either := requirement.fields("requires_any").items("requirements"):
        parts = [_requirement(part, imported) for part in either]
        if any(part.claims for part in parts):
            raise _NoEquivalent("one of several audiences, each with its provider, is more than a route can say")
        auth = "optional" if any(part.auth == "optional" for part in parts) else "required"
        return _Requirement(auth, tuple(dict.fromkeys(name for part in parts for name in part.issuers)))
    raise _NoEquivalent("asks for more than one token, or for nothing known; a request brings one token here")


def _otherwise(imported: Imported) -> None:
    """Envoy lets through what no rule names."""
    everything = {"path": "/*", "auth": "none"}
    if not any(route.get("path") == "/*" and not {"methods", "hosts"} & route.keys() for route in imported.routes):
        imported.routes.append(everything)
        imported.remark(
            "rules", "what no rule names passes without a token; the last route says so: remove it if you can"
        )


def _duration(value: object, where: str) -> str:
    """Seconds as we write them, of protobuf's JSON (`3.5s`) or its struct. Raises NotUnderstood."""
    seconds = value.get("seconds", 0) if isinstance(value, dict) else str(value).removesuffix("s")
    try:
        milliseconds = round(float(seconds) * 1000)
    except (TypeError, ValueError, OverflowError):
        raise NotUnderstood(f"{where} is not a duration") from None
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
