"""Converts Envoy's filter `jwt_authn` (extensions.filters.http.jwt_authn.v3.JwtAuthentication), alone or in a whole
configuration.

Issuers, keys, places of tokens and headers are converted. Of everything else only one form is: every request needs a token.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from sidecar.cli.convert.envoy_surroundings import addresses, mappings, surroundings
from sidecar.cli.convert.reading import (
    Fields,
    Imported,
    NotUnderstood,
    audiences_of,
    decoded,
    keys_at,
    settings_of,
)
from sidecar.common.encoding import host_and_port

_TYPE = ".JwtAuthentication"


def envoy(documents: list[object]) -> Imported:
    """Convert a configuration. Raises NotUnderstood."""
    typed = [one for one in mappings(documents) if str(one.get("@type")).endswith(_TYPE)]
    filters = typed or [one for one in mappings(documents) if "providers" in one and "@type" not in one]
    if not filters:
        raise NotUnderstood("it has no jwt_authn filter (a mapping with providers, or with @type ...JwtAuthentication)")
    imported = Imported()
    surroundings(documents, filters, imported)
    clusters = {
        name: set(addresses(one))
        for one in mappings(documents)
        if "load_assignment" in one or "loadAssignment" in one
        if isinstance(name := one.get("name"), str)
    }
    for filter_ in filters:
        _filter(Fields(filter_, ""), clusters, imported)
    imported.finish()
    return imported


def _filter(found: Fields, clusters: dict[str, set[str]], imported: Imported) -> None:
    found.take("@type")
    providers = found.mappings("providers")
    names = set(providers)
    for name, provider in providers.items():
        _provider(name, provider, clusters, imported)
    imported.forward_preflights = found.flag("bypass_cors_preflight")
    requirements, rules = found.take("requirement_map"), found.take("rules")
    if requirements:
        imported.close("requirement_map", "is not imported; routes refer to its names")
        imported.quote({"requirement_map": requirements})
    _rules(Fields({"rules": rules}, "").items("rules"), names, imported)
    imported.quote({"rules": rules})
    imported.close_left(found)


def _provider(name: str, provider: Fields, clusters: dict[str, set[str]], imported: Imported) -> None:
    issuer: dict[str, Any] = {"issuer": provider.text("issuer"), "audiences": audiences_of(provider, imported)}
    if not issuer["issuer"]:
        issuer["issuer"] = f"https://{len(imported.config['issuers'])}.issuer.invalid/"
        imported.leave(provider.below("issuer"), "is missing; write it, since the sidecar needs the iss of the tokens")
    _keys(provider, issuer, clusters, imported)
    skew = provider.text("clock_skew_seconds") or "0"
    if not re.fullmatch("[0-9]{1,9}", skew):
        raise NotUnderstood(f"{provider.below('clock_skew_seconds')} is not a number of seconds")
    if int(skew):  # 0 is Envoy's default of 60 s, which is also the sidecar's
        issuer["clock_skew"] = f"{int(skew)}s"
    if not provider.flag("require_expiration"):
        issuer["require_exp"] = False
        imported.remark(
            provider.below("require_expiration"),
            "accepts tokens without exp; remove require_exp if all tokens have one",
        )
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
            imported.remark(provider.below(key), "is not imported; it is for other filters")
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
                f"Envoy fetches keys from {' or '.join(sorted(clusters[cluster])) or 'elsewhere'}, the sidecar from {asked}",
            )
        elif cluster not in clusters:
            imported.remark(uri.below("cluster"), f"keys are fetched from {asked}, not from {cluster or 'it'}")
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
            imported.remark(fields.below(name), "is not needed; the sidecar always does this, with its own limits")


def _host_of(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return uri
    return host_and_port(parts.hostname or "", port)


def _rules(rules: list[Fields], names: set[str], imported: Imported) -> None:
    """Check that every request needs a token, or else that a valid token is always accepted."""
    everything = False
    for rule in rules:
        match = rule.fields("match")
        prefix = match.text("prefix")
        asked = _asked(rule.fields("requires"), names)
        everything = everything or (asked == "token" and prefix == "/" and not match)
        if asked == "other" or rule:
            imported.close(rule.where, "needs more than a valid token of any of these issuers")
        elif asked == "open":
            imported.leave(rule.where, "accepts requests without a token")
    if not everything:
        imported.leave("rules", "requests that no rule matches are accepted without a token")


def _asked(requires: Fields, names: set[str]) -> str:
    """`token`: a valid token of any of these providers. `open`: no token, or such a token. `other`: anything else."""
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
    """A duration of the configuration, from protobuf's JSON (`3.5s`) or its struct. Raises NotUnderstood."""
    text = str(value.get("seconds", 0) if isinstance(value, dict) else value).removesuffix("s")
    if not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):
        raise NotUnderstood(f"{where} is not a duration")
    milliseconds = round(float(text) * 1000)
    return f"{milliseconds}ms" if milliseconds % 1000 else f"{milliseconds // 1000}s"
