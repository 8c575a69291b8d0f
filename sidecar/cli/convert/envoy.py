"""Envoy's filter `jwt_authn` (extensions.filters.http.jwt_authn.v3.JwtAuthentication), alone or in a whole configuration.

Issuers, keys, places of tokens and headers are imported, and one shape of everything else: every request needs a token.
"""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from sidecar.cli.convert.reading import (
    UPSTREAM,
    Fields,
    Imported,
    NotUnderstood,
    audiences_of,
    camel_case,
    decoded,
    keys_at,
    settings_of,
)

_TYPE = ".JwtAuthentication"

_READ = object()  # read elsewhere, or means nothing for requests; may be missing
_NAMED = object()  # no equivalent, and nobody's access depends on it; may be missing
_ADDRESS = {"socket_address": {"protocol": "?TCP", "address": _READ, "port_value": _READ}}
_CLUSTER: dict[str, Any] = {
    "name": _READ,
    "type": "?STATIC|STRICT_DNS|LOGICAL_DNS",
    "connect_timeout": _NAMED,
    "lb_policy": _NAMED,
    "dns_lookup_family": _NAMED,
    "load_assignment": {
        "cluster_name": _READ,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _ADDRESS}}]}],
    },
}


def _plain(jwt_authn: dict[str, Any]) -> dict[str, Any]:
    """The one kind of configuration that does nothing beside `jwt_authn`: all requests go to one backend, as they are.

    A text is a pattern; with a ? before it, it may be missing. Lists have as many items as here, mappings no other keys.
    """
    route = {"match": {"prefix": "/"}, "route": {"cluster": _READ, "timeout": _NAMED}}
    manager = {
        "@type": r".*\.HttpConnectionManager",
        "stat_prefix": _READ,
        "codec_type": "?AUTO|auto|HTTP1|http1",
        "access_log": _NAMED,
        "route_config": {
            "name": _READ,
            "virtual_hosts": [{"name": _READ, "domains": [r"\*"], "routes": [route]}],
        },
        "http_filters": [
            {"name": _READ, "typed_config": jwt_authn},
            {"name": _READ, "typed_config": {"@type": r".*\.http\.router\..*"}},
        ],
    }
    filters = [{"name": _READ, "typed_config": manager}]
    listener = {"name": _READ, "address": _ADDRESS, "filter_chains": [{"name": _READ, "filters": filters}]}
    return {
        "admin": _NAMED,
        "node": _NAMED,
        "static_resources": {"listeners": [listener], "clusters": _READ},
    }


def envoy(documents: list[object]) -> Imported:
    """Import a configuration. Raises NotUnderstood."""
    typed = [one for one in _mappings(documents) if str(one.get("@type")).endswith(_TYPE)]
    filters = typed or [one for one in _mappings(documents) if "providers" in one and "@type" not in one]
    if not filters:
        raise NotUnderstood("it has no jwt_authn filter: no mapping with providers, or with @type ...JwtAuthentication")
    imported = Imported()
    _surroundings(documents, filters, imported)
    clusters = {
        name: set(_addresses(one))
        for one in _mappings(documents)
        if "load_assignment" in one or "loadAssignment" in one
        if isinstance(name := one.get("name"), str)
    }
    for filter_ in filters:
        _filter(Fields(filter_, ""), clusters, imported)
    imported.finish()
    return imported


def _mappings(document: object) -> Iterator[dict[str, Any]]:
    """Every mapping, wherever it is."""
    if isinstance(document, dict):
        yield document
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from _mappings(item)


def _surroundings(documents: list[object], filters: list[dict[str, Any]], imported: Imported) -> None:
    """Where Envoy listens and where its one route leads, if it does nothing else."""
    for further in filters[1:]:
        imported.close("http_filters", f"{len(filters)} jwt_authn filters: each is for requests of its own")
        imported.quote({"rules": further.get("rules")})
    if len(documents) > 1:
        imported.close("the file", f"holds {len(documents)} documents; Envoy reads one")
    if len(documents) == 1 and _unwrapped(documents[0]) is filters[0]:
        imported.remark("the file", "holds the filter alone; what else Envoy refuses or changes is not in it")
        imported.remark("upstream", f"the filter does not name the backend; {UPSTREAM} is made up")
        return
    beyond = list(_beyond(documents[0], _plain(filters[0]), "", imported))
    for place in beyond:
        imported.close(place)
    if beyond:
        imported.remark("upstream", f"{UPSTREAM} is made up, and so is where requests come in (listen)")
        return
    resources = Fields(documents[0], "").fields("static_resources")
    (listener,) = resources.items("listeners")
    listening = list(_addresses(listener.take("address")))
    if len(listening) == 1:
        imported.config["listen"] = listening[0]
    else:
        imported.close("static_resources.listeners.0.address", "says not where requests come in")
    manager = listener.items("filter_chains")[0].items("filters")[0].fields("typed_config")
    host = manager.fields("route_config").items("virtual_hosts")[0]
    wanted = host.items("routes")[0].fields("route").text("cluster")
    backends = []
    for cluster in _list_of_mappings(resources.take("clusters")):
        if cluster.get("name") == wanted:
            backends.append(cluster)
        else:
            imported.remark(
                f"clusters.{cluster.get('name')}", "is not needed: keys are fetched from the host of their URI"
            )
    for place in [place for one in backends for place in _beyond(one, _CLUSTER, f"clusters.{wanted}", imported)]:
        imported.close(place)
    addresses = [address for one in backends for address in _addresses(one)]
    if len(backends) == 1 and len(addresses) == 1:
        imported.config["upstream"] = f"http://{addresses[0]}"
    else:
        imported.close(f"clusters.{wanted}", f"has no address, or several; {UPSTREAM} is made up")


def _unwrapped(document: object) -> object:
    """What an item of `http_filters` holds, alone or in a list of its own; else the document."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if isinstance(document, dict) and document.keys() <= {"name", "typed_config", "typedConfig"}:
        return document.get("typed_config", document.get("typedConfig"))
    return document


def _list_of_mappings(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _beyond(found: object, plain: object, where: str, imported: Imported) -> Iterator[str]:
    """The places where a configuration says more than the plain one, or less."""
    if found is plain or plain is _READ:
        return
    if plain is _NAMED:
        imported.remark(where, "is not imported; nobody's access depends on it")
    elif isinstance(plain, dict) and isinstance(found, dict):
        names = {spelled: name for name in plain for spelled in (name, camel_case(name))}
        for key, value in found.items():
            if key in names and not (names[key] != key and names[key] in found):
                yield from _beyond(value, plain[names[key]], f"{where}.{key}".lstrip("."), imported)
            else:
                yield f"{where}.{key}".lstrip(".")
        for name, value in plain.items():
            optional = not isinstance(value, dict | list | str) or str(value).startswith("?")
            if not optional and name not in found and camel_case(name) not in found:
                yield f"{where}.{name}".lstrip(".")
    elif isinstance(plain, list) and isinstance(found, list) and len(plain) == len(found):
        for number, (item, wanted) in enumerate(zip(found, plain, strict=True)):
            yield from _beyond(item, wanted, f"{where}.{number}", imported)
    elif isinstance(found, list) and (
        names_of := [str(one["name"]) for one in _list_of_mappings(found) if "name" in one]
    ):
        yield f"{where} ({', '.join(names_of)})"
    elif not (isinstance(plain, str) and isinstance(found, str) and re.fullmatch(plain.removeprefix("?"), found)):
        yield where or "the file"


def _addresses(document: object) -> Iterator[str]:
    """The host:port of every address below."""
    for one in _mappings(document):
        host, port = one.get("address"), one.get("port_value", one.get("portValue"))
        if isinstance(host, str) and isinstance(port, str):
            yield f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _filter(found: Fields, clusters: dict[str, set[str]], imported: Imported) -> None:
    found.take("@type")
    providers = found.mappings("providers")
    names = set(providers)
    for name, provider in providers.items():
        _provider(name, provider, clusters, imported)
    imported.forward_preflights = found.flag("bypass_cors_preflight")
    requirements, rules = found.take("requirement_map"), found.take("rules")
    if requirements:
        imported.close("requirement_map", "is not imported: routes ask by its names for what they need")
        imported.quote({"requirement_map": requirements})
    _rules(Fields({"rules": rules}, "").items("rules"), names, imported)
    imported.quote({"rules": rules})
    imported.close_left(found)


def _provider(name: str, provider: Fields, clusters: dict[str, set[str]], imported: Imported) -> None:
    issuer: dict[str, Any] = {"issuer": provider.text("issuer"), "audiences": audiences_of(provider, imported)}
    if not issuer["issuer"]:
        issuer["issuer"] = f"https://{len(imported.config['issuers'])}.issuer.invalid/"
        imported.leave(provider.below("issuer"), "is missing, and tokens must name their issuer here; write it")
    _keys(provider, issuer, clusters, imported)
    skew = provider.text("clock_skew_seconds") or "0"
    if not re.fullmatch("[0-9]{1,9}", skew):
        raise NotUnderstood(f"{provider.below('clock_skew_seconds')} is not a number of seconds")
    if int(skew):  # 0 is Envoy's default of 60 s, and so is ours
        issuer["clock_skew"] = f"{int(skew)}s"
    if not provider.flag("require_expiration"):
        issuer["require_exp"] = False
        imported.remark(provider.below("require_expiration"), "tokens without exp get in, too; remove it if you can")
    settings = settings_of(
        provider,
        imported,
        prefix="value_prefix",
        forward="forward",
        payload="forward_payload_header",
        headers=("claim_to_headers", "header_name", "claim_name"),
    )
    _always(provider, ("jwt_cache_config",), imported)
    for key in ("payload_in_metadata", "header_in_metadata"):
        if provider.take(key) is not None:
            imported.remark(provider.below(key), "is not imported: it is for other filters, and there are none here")
    imported.close_left(provider)
    imported.issuer(name, issuer, settings, provider.where)


def _keys(provider: Fields, issuer: dict[str, Any], clusters: dict[str, set[str]], imported: Imported) -> None:
    remote, local = provider.fields("remote_jwks"), provider.fields("local_jwks")
    if bool(remote) == bool(local):
        imported.close(provider.where, "needs exactly one of remote_jwks and local_jwks")
    uri = remote.fields("http_uri")
    if jwks_uri := uri.text("uri"):
        keys_at(jwks_uri, issuer, uri.where, imported)
        cluster, asked = uri.text("cluster"), _host_of(jwks_uri)
        if cluster in clusters and asked not in clusters[cluster]:
            imported.close(
                uri.below("cluster"),
                f"keys come from {' or '.join(sorted(clusters[cluster])) or 'elsewhere'}, and here from {asked}",
            )
        elif cluster not in clusters:
            imported.remark(uri.below("cluster"), f"keys are fetched from {asked}, wherever {cluster or 'it'} leads")
    _always(uri, ("timeout",), imported)
    if (duration := remote.take("cache_duration")) is not None:
        issuer["refresh_interval"] = _duration(duration, remote.below("cache_duration"))
    _always(remote, ("async_fetch", "retry_policy"), imported)
    if file := local.text("filename"):
        issuer["jwks_file"] = file
    elif inline := local.text("inline_string"):
        issuer["jwks_inline"] = decoded(inline, local.below("inline_string"))
    for fields in (uri, remote, local):
        imported.close_left(fields)


def _always(fields: Fields, names: tuple[str, ...], imported: Imported) -> None:
    for name in names:
        if fields.take(name) is not None:
            imported.remark(fields.below(name), "is not needed: here it is always so, with numbers of its own")


def _host_of(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return uri
    host = parts.hostname or ""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _rules(rules: list[Fields], names: set[str], imported: Imported) -> None:
    """Whether every request needs a token, and if not, whether a valid one always gets in."""
    everything = False
    for rule in rules:
        match = rule.fields("match")
        prefix = match.text("prefix")
        asked = _asked(rule.fields("requires"), names)
        everything = everything or (asked == "token" and prefix == "/" and not match)
        if asked == "other" or rule:
            imported.close(rule.where, "asks for more than a valid token of any of these issuers")
        elif asked == "open":
            imported.leave(rule.where, "lets requests in without a token")
    if not everything:
        imported.leave("rules", "what no rule names gets in without a token")


def _asked(requires: Fields, names: set[str]) -> str:
    """`token`: a valid one of any of these providers. `open`: none, or such a one. `other`: something else."""
    if not requires:
        return "open"
    provider, either = requires.text("provider_name"), requires.fields("requires_any")
    free = [name for name in ("allow_missing", "allow_missing_or_failed") if requires.take(name) is not None]
    if requires or (provider is not None) + bool(either) + len(free) != 1:
        return "other"
    if free:
        return "open"
    if provider is not None:
        return "token" if {provider} == names else "other"
    parts = either.items("requirements")
    if not all(parts):
        return "other"
    providers = {name for part in parts if (name := part.text("provider_name")) is not None}
    free = [
        name for part in parts for name in ("allow_missing", "allow_missing_or_failed") if part.take(name) is not None
    ]
    if either or any(parts) or providers != names:
        return "other"
    return "open" if free else "token"


def _duration(value: object, where: str) -> str:
    """Seconds as we write them, of protobuf's JSON (`3.5s`) or its struct. Raises NotUnderstood."""
    text = str(value.get("seconds", 0) if isinstance(value, dict) else value).removesuffix("s")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise NotUnderstood(f"{where} is not a duration")
    milliseconds = round(float(text) * 1000)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
