"""Fills in the keys of an issuer from its preset.

A preset fills in only keys that the file leaves out. Its rules for claims hold in addition to the file's rules for other claims.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from sidecar.config.addresses import web_url
from sidecar.config.key_place import SECRET_SOURCES, SOURCES
from sidecar.config.preset_keys import PresetKeys
from sidecar.config.presets import PRESETS, Keys, Preset
from sidecar.config.values import SECRET_ALGORITHMS
from sidecar.config.yaml_source import Section

_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def filled_in(written: Keys) -> dict[str, Any]:
    """An issuer's keys, completed by its preset and its kind of keys.

    The preset's rules for claims are under `preset_require`.
    """
    values: dict[str, Any] = {}
    name = written.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is not None:
        values = _filled(preset, _more(str(name), preset, written), written)
        # The credentials of a preset are only for its own place of keys.
        if any(source in written for source in SOURCES) or not _is_web_url(values.get("jwks_uri")):
            values = {key: value for key, value in values.items() if key not in ("jwks_uri", "more_keys")}
        else:
            values |= preset.fetch
        if "require" in values:
            values["preset_require"] = values.pop("require")
    if any(source in written for source in SECRET_SOURCES):
        values["algorithms"] = list(SECRET_ALGORITHMS)
    return {**values, **written}


def check_preset(section: Section) -> None:
    """Check the keys of a preset: missing ones, and those of another preset."""
    name = section.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    used = set() if preset is None else preset.used
    for key in section.keys() & PresetKeys.model_fields.keys() - used:
        users = ", ".join(name for name, one in PRESETS.items() if key in one.used)
        section.report(f"is for another preset; one of: {users}", key, at_key=True)
    if preset is None:
        return
    for key in preset.asks:
        if key not in section:
            section.report(f"is missing; preset {name} needs {_ASKED[key]}", key)
    tenants = section.get("tenant")
    for tenant in tenants if isinstance(tenants, list) else [tenants]:
        if isinstance(tenant, str) and tenant != "any" and not _GUID.fullmatch(tenant):
            section.report("must be IDs of tenants (GUIDs), or any: tokens do not have the tenant's domain", "tenant")


_ASKED = {
    "tenant": "the directory (tenant) ID, a list of them, or any",
    "policies": "the names of the policies (user flows), such as [B2C_1_signin]",
    "project": "the name or id of the project",
    "user_pool": "the user pool's ID, such as eu-west-1_AbCdEfGhI",
    "arn": "the load balancer's ARN",
    "repository": "OWNER/NAME, or OWNER/* for all of an owner",
    "trust_domain": "the trust domain, such as example.org",
    "client": "the client's ID",
}


def _more(name: str, preset: Preset, written: Keys) -> Keys:
    """The keys of a preset that depend on the form of other values."""
    keys = _DERIVED[name](written) if name in _DERIVED else {}
    return {
        **keys,
        **{key: value for asked, more in preset.given.items() if written.get(asked) for key, value in more.items()},
    }


def _aws_alb(written: Keys) -> Keys:
    """The region is in the ARN, arn:aws:elasticloadbalancing:REGION:...; GovCloud has its keys elsewhere."""
    region = written.get("region") or f"{written.get('arn')}:::".split(":")[3]
    elsewhere = f"https://s3-{region}.amazonaws.com/aws-elb-public-keys-prod-{region}/{{kid}}"
    usual = f"https://public-keys.auth.elb.{region}.amazonaws.com/{{kid}}"
    return {"jwks_uri": elsewhere if str(region).startswith("us-gov-") else usual}


def _cognito(written: Keys) -> Keys:
    use = written.get("token_use") or "access"
    return {
        "audience_claims": ["aud" if use == "id" else "client_id"],
        "require": {"claims": {"token_use": {"equals": use}}},
    }


def _entra(written: Keys) -> Keys:
    """One tenant has its own URLs; several tenants share a template."""
    tenants = written.get("tenant")
    if isinstance(tenants, str) and tenants != "any":
        return {}
    shared = {
        "issuer": "https://login.microsoftonline.com/{tid}/v2.0",
        "issuer_aliases": ["https://sts.windows.net/{tid}/"],
        "jwks_uri": "https://login.microsoftonline.com/common/discovery/v2.0/keys",
    }
    listed = {"require": {"claims": {"tid": {"in": tenants}}}} if tenants and tenants != "any" else {}
    return {**shared, **listed}


def _entra_b2c(written: Keys) -> Keys:
    """`https://HOST/TENANT/v2.0/` -> one key set for each policy (user flow)."""
    base = _url_of(written.get("issuer")).removesuffix("/v2.0")
    policies = written.get("policies")
    listed = policies if isinstance(policies, list) else []
    first, *others = [f"{base}/{policy}/discovery/v2.0/keys" for policy in listed] or [""]
    return {"jwks_uri": first, "more_keys": [{"jwks_uri": uri} for uri in others]}


def _github_actions(written: Keys) -> Keys:
    """`OWNER/NAME`, or `OWNER/*` for all of an owner."""
    repository = str(written.get("repository"))
    owner, _, name = repository.partition("/")
    claim, value = ("repository_owner", owner) if name == "*" else ("repository", f"{owner}/{name}")
    return {"require": {"claims": {claim: {"equals": value}}}}


def _okta(written: Keys) -> Keys:
    """The URL names a custom authorization server, but not the organisation's own one."""
    url = _url_of(written.get("issuer"))
    return {"jwks_uri": f"{url}/v1/keys" if "/oauth2/" in url else f"{url}/oauth2/v1/keys"}


_DERIVED: Mapping[str, Callable[[Keys], Keys]] = {
    "aws_alb": _aws_alb,
    "cognito": _cognito,
    "entra": _entra,
    "entra_b2c": _entra_b2c,
    "github_actions": _github_actions,
    "okta": _okta,
}


def _url_of(issuer: object) -> str:
    text = issuer.rstrip("/") if isinstance(issuer, str) else ""
    return text if "://" in text else f"https://{text}"


def _filled(preset: Preset, more: Keys, written: Keys) -> dict[str, Any]:
    keys = {**preset.keys, **more}
    texts = {name: text for name in PresetKeys.model_fields if isinstance(text := written.get(name), str)}
    texts |= {name: "missing" for name in preset.asks if name not in texts}  # is reported
    texts.setdefault("region", texts.get("user_pool", "").partition("_")[0])
    issuer = written.get("issuer") or keys.get("issuer")
    texts |= {"issuer": issuer if isinstance(issuer, str) else "", "url": _url_of(issuer)}
    filled = {key: _with(texts, value) for key, value in keys.items()}
    other = other_spelling(preset, issuer)
    return filled if other is None else {**filled, "issuer_aliases": [*filled.get("issuer_aliases", []), other]}


def other_spelling(preset: Preset, issuer: object) -> str | None:
    """The `iss` of its tokens, if the file has it with a wrong slash at the end."""
    if not isinstance(issuer, str) or preset.slash is None or issuer.endswith("/") is preset.slash:
        return None
    return f"{issuer.rstrip('/')}/" if preset.slash else issuer.rstrip("/")


def _with(texts: Mapping[str, str], value: Any) -> Any:
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda place: texts.get(place[1], place[0]), value)
    if isinstance(value, list):
        return [_with(texts, item) for item in value]
    if isinstance(value, Mapping):
        return {key: _with(texts, item) for key, item in value.items()}
    return value


def _is_web_url(text: object) -> bool:
    try:
        web_url(str(text).replace("{kid}", "kid"))
    except ValueError:
        return False
    return True
