"""The checks between the parts of the gateway half."""

from collections.abc import Iterable, Mapping

from sidecar.config.gateway import Signing
from sidecar.config.route import Route, Upstream
from sidecar.config.yaml_source import Section


def check_gateway(
    section: Section,
    rules: Iterable[tuple[Section, Route]],
    *,
    upstreams: Mapping[str, Upstream],
    signing: Signing | None,
    default_upstream: str | None,
    forward_token: bool,
) -> None:
    """The checks between the parts of the gateway, and with the valid routes."""
    minting = {name for name, upstream in upstreams.items() if upstream.token is not None}
    for rule, route in rules:
        if route.auth == "api_key" and "api_keys" not in section:
            rule.report("needs `api_keys`, with the file of their hashes", "auth")
        if route.auth in ("required", "optional") and "issuers" not in section and "api_keys" in section:
            text = "needs a token, and this file has no issuer; add issuers, or use auth: api_key"
            rule.report(text, *(["auth"] if "auth" in rule else []))
        if route.forward_token and minting and (route.upstream or default_upstream) in minting:
            rule.report(
                "contradicts the `token` of its upstream, which uses the same header; remove one",
                "forward_token",
            )
    if forward_token and minting:
        text = "contradicts the `token` of an upstream, which uses the same header; set it on routes to other upstreams"
        section.report(text, "forward_token")
    if "signing" not in section:
        for name in minting:
            section.report("needs `signing`, with the issuer and the keys that sign", "upstreams", name, "token")
        return
    if signing is None or not signing.could_read("token_endpoint"):
        return
    if signing.token_endpoint is None and not _mentions_token(section.get("upstreams")):
        section.report("signs nothing; add a `token` to an upstream, or add token_endpoint", "signing")
    if signing.token_endpoint is not None and "api_keys" not in section:
        text = "gives tokens to holders of API keys; add `api_keys`, with the file of their hashes"
        section.report(text, "signing", "token_endpoint")


def _mentions_token(upstreams: object) -> bool:
    """Does an upstream have a token, valid or not?"""
    found = upstreams.values() if isinstance(upstreams, Section) else ()
    return any("token" in upstream for upstream in found if isinstance(upstream, Section))
