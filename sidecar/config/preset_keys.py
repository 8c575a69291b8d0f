"""The keys of an issuer that presets are given: what only the user knows."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from sidecar.config.struct import Struct, key
from sidecar.config.values import NonEmpty

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@*-]*")


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError("{input} is no name or id: letters, digits and ._:/@- only")
    return value


def _tenant(value: object) -> str | tuple[str, ...]:
    tenants = value if isinstance(value, list) else [value]
    if not tenants or not all(isinstance(tenant, str) for tenant in tenants):
        raise ValueError("must be the tenant's ID (a GUID), a list of them, or any")
    return tuple(map(_word, tenants)) if isinstance(value, list) else _word(str(value))


Word = Annotated[str, AfterValidator(_word)]
_TEXT = {"type": "string", "minLength": 1}
Tenants = Annotated[
    str | tuple[str, ...],
    PlainValidator(_tenant),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}),
]


class PresetKeys(Struct):
    """What presets are given."""

    arn: Word | None = key("For preset aws_alb: the load balancer.", None)
    client: Word | None = key("For presets keycloak (whose roles count, too) and workos: the client's ID.", None)
    domain: Word | None = key("For preset google: the Workspace domain (hd) whose users are accepted.", None)
    policies: NonEmpty[Word] | None = key("For preset entra_b2c: the policies (user flows).", None)
    project: Word | None = key("For presets firebase, firebase_session, gitlab and supabase.", None)
    region: Word | None = key(
        "For presets aws_alb and cognito. Left out: that of the ARN, or of the user pool's ID.", None
    )
    repository: Word | None = key("For preset github_actions: OWNER/NAME, or OWNER/* for all of an owner.", None)
    tenant: Tenants | None = key("For preset entra: the tenant's ID, a list of them, or any.", None)
    token_use: Literal["access", "id"] | None = key("For preset cognito: which tokens. Left out: access.", None)
    trust_domain: Word | None = key("For preset spiffe.", None)
    user_pool: Word | None = key("For preset cognito: the user pool's ID, such as eu-west-1_AbCdEfGhI.", None)
