"""The scopes and roles that a token grants, from the claims that different issuers use. An empty claim counts as absent."""

from collections.abc import Mapping, Sequence
from typing import Any

from sidecar.jwt.claims import Path, find

SCOPE_CLAIMS = ("scope", "scp", "scopes")  # RFC 8693 section 4.2, and the names that other issuers use
ROLE_CLAIMS: Sequence[Path] = (
    ("roles",),  # RFC 9068 section 2.2.3.1
    ("realm_access", "roles"),  # Keycloak
    ("groups",),
    ("cognito:groups",),
    ("role",),  # IdentityServer
    ("urn:zitadel:iam:org:project:roles",),
)


def scope_claim(claims: Mapping[str, Any]) -> Any:
    """The value of the first claim in SCOPE_CLAIMS that is not empty, or None."""
    for name in SCOPE_CLAIMS:
        value = claims.get(name)
        if value is not None and value not in ("", []):
            return value
    return None


def granted_scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """The scopes of a token, from a string of words or a list of strings."""
    value = scope_claim(claims)
    if isinstance(value, str):
        return frozenset(value.split(" "))
    return _strings(value) if isinstance(value, list) else frozenset()


def scopes_in_one_form(claims: Mapping[str, Any]) -> Any:
    """The scopes of a token as a text of words (RFC 8693), also if the issuer writes a list. Other values are returned unchanged.

    A space within an item becomes %20, so that one scope is not read as two.
    """
    value = scope_claim(claims)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return " ".join(item.replace(" ", "%20") for item in value)
    return value


def granted_roles(claims: Mapping[str, Any], role_claims: Sequence[Path] | None = None) -> frozenset[str]:
    """The roles of a token: all of those in `role_claims`, or without it those in the first of ROLE_CLAIMS that the token has.

    A claim may be a list of strings, one string (a role may hold spaces), or an object whose keys are the roles.
    """
    if role_claims is not None:
        return frozenset().union(*(_roles(find(claims, path)) for path in role_claims))
    return next((roles for path in ROLE_CLAIMS if (roles := _roles(find(claims, path)))), frozenset())


def _roles(value: Any) -> frozenset[str]:
    if isinstance(value, str):
        return frozenset((value,)) if value else frozenset()
    if isinstance(value, dict):
        return frozenset(name for name, held in value.items() if held)
    return _strings(value) if isinstance(value, list) else frozenset()


def _strings(items: list[Any]) -> frozenset[str]:
    return frozenset(item for item in items if isinstance(item, str))
