"""Builds issuers, policies and routes from the rules of the configuration."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from sidecar import config as settings
from sidecar.app.builder.key_sources import all_algorithms
from sidecar.config import Config
from sidecar.config.claims import Require
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.claims import Path
from sidecar.jwt.issuer import Issuer
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.subjects import Subjects
from sidecar.policy.access_policy import Policy
from sidecar.policy.path_normalization import Ignored
from sidecar.policy.routes import Auth, Route, Routes


def iss_names(config: Config) -> dict[str, str]:
    """Every `iss` or template of the configuration -> the name of its issuer."""
    return {iss: issuer.name for issuer in config.issuers.values() for iss in (issuer.issuer, *issuer.issuer_aliases)}


def trusted(issuer: settings.Issuer, source: JwksSource) -> Issuer:
    """The rules for an issuer's tokens."""
    subjects = issuer.subjects
    rules = ClaimRules(
        issuer.audiences,
        all_audiences=issuer.audience_match == "all",
        audience_claims=issuer.audience_claims,
        clock_skew_s=issuer.clock_skew_s,
        require_exp=issuer.require_exp,
        max_lifetime_s=issuer.max_token_lifetime_s,
        required=issuer.required_claims,
        rejected=issuer.reject_claims,
        subjects=None if subjects is None else Subjects(subjects.exact, subjects.prefix, subjects.glob),
        reject_bound=issuer.reject_bound_tokens,
        lenient=issuer.lenient_claims,
    )
    return Issuer(
        issuer.name,
        issuer.issuer,
        all_algorithms(issuer),
        rules,
        source,
        issuer.accepted_typ,
        issuer.issuer_aliases,
        allow_padding=issuer.allow_padding,
        assumed=issuer.assume_issuer,
        signer=issuer.signer,
        policy=_policy_of(issuer),
    )


def _policy_of(issuer: settings.Issuer) -> Policy | None:
    """The rules for all tokens of an issuer, from its preset and the file."""
    if not issuer.all_claims and issuer.require is None:
        return None
    require = (issuer.require or Require()).model_copy(update={"claims": issuer.all_claims})
    return policy(require, role_claims={issuer.name: issuer.role_claims})


def policy(
    require: Require | None,
    issuers: Sequence[str] | None = None,
    role_claims: Mapping[str, Sequence[Path] | None] = MappingProxyType({}),
) -> Policy:
    """The rules of a route or an issuer for verified claims; `role_claims` are by the names of issuers."""
    if require is None:
        return Policy(issuers)
    return Policy(
        issuers,
        require.scopes.all,
        any_scope=require.scopes.any,
        roles=require.roles.all,
        any_role=require.roles.any,
        claims={path: condition.operators() for path, condition in require.claims.items()},
        role_claims={name: paths for name, paths in role_claims.items() if paths is not None},
    )


def routes(config: Config) -> Routes:
    """The rules in order, and the default rule: a valid token, the default upstream."""
    role_claims = {name: issuer.role_claims for name, issuer in config.issuers.items()}
    listed = [
        Route(
            route.path or "",
            regex=route.path_regex,
            hosts=route.hosts,
            methods=route.methods,
            auth=Auth(route.auth),
            policy=policy(route.require, route.issuers, role_claims),
            preflight=route.preflight == "forward",
            report=config.reports(route),
            upstream=route.upstream or config.default_upstream,
            strip_prefix=route.strip_prefix or "",
            preserve_host=route.host == "preserve",
            max_body=route.max_body_bytes,
            upgrades=route.upgrades,
            encoded_slashes=route.encoded_slashes == "pass",
            forward_token=config.sends_token(route),
        )
        for route in config.routes
    ]
    otherwise = Route(
        "/*",
        report=config.reports(),
        upstream=config.default_upstream,
        forward_token=config.sends_token(),
        name="(default)",
    )
    return Routes(listed, otherwise, Ignored(*config.backend_ignores))
