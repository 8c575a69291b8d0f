"""The keys of an issuer that are inputs of presets."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from sidecar.config.struct import Struct, key
from sidecar.config.values import NonEmpty

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@*-]*")


def _word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError("{input} is not a name or id; use only letters, digits and ._:/@-")
    return value


def _tenant(value: object) -> str | tuple[str, ...]:
    tenants = value if isinstance(value, list) else [value]
    if not tenants or not all(isinstance(tenant, str) for tenant in tenants):
        raise ValueError("must be the tenant's ID (a GUID), a list of them, or any")
    return tuple(map(_word, tenants)) if isinstance(value, list) else _word(str(value))


def _form(pattern: str, text: str) -> AfterValidator:
    """A type for words of this form; another form would make a wrong URL, or a rule that no token meets."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, _word(value)):
            raise ValueError(f"{{input}} is not {text}")
        return value

    return AfterValidator(check)


Word = Annotated[str, AfterValidator(_word)]
Arn = Annotated[
    str,
    _form(
        r"arn:aws[a-z-]*:elasticloadbalancing:[a-z0-9-]+:[0-9]{12}:loadbalancer/app/[^/:]+/[^/:]+",
        "the ARN of an application load balancer, arn:aws:elasticloadbalancing:REGION:ACCOUNT:loadbalancer/app/NAME/ID",
    ),
]
Domain = Annotated[str, _form(r"[A-Za-z0-9.-]+", "a domain, such as example.com")]
Project = Annotated[str, _form(r"[\w.-]+(?:/[\w.-]+)*", "the name or id of a project; it is no URL")]
Repository = Annotated[str, _form(r"[^/*]+/(?:[^/*]+|\*)", "OWNER/NAME, or OWNER/* for all of an owner")]
TrustDomain = Annotated[str, _form(r"[a-z0-9._-]+", "a trust domain, such as example.org")]
UserPool = Annotated[
    str, _form(r"[a-z]+(?:-[a-z]+)+-[0-9]+_[A-Za-z0-9]+", "a user pool's ID, such as eu-west-1_AbCdEfGhI")
]
_TEXT = {"type": "string", "minLength": 1}
Tenants = Annotated[
    str | tuple[str, ...],
    PlainValidator(_tenant),
    WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "minItems": 1, "items": _TEXT}]}),
]


class PresetKeys(Struct):
    """The inputs of presets."""

    arn: Arn | None = key("For preset aws_alb: the load balancer's ARN.", None)
    client: Word | None = key("For presets keycloak (its client roles count too) and workos: the client's ID.", None)
    domain: Domain | None = key("For preset google: the Workspace domain (hd) whose users are accepted.", None)
    policies: NonEmpty[Word] | None = key("For preset entra_b2c: the policies (user flows).", None)
    project: Project | None = key("For presets firebase, firebase_session, gitlab and supabase: the project.", None)
    region: Word | None = key(
        "For presets aws_alb and cognito: the AWS region. Left out: the region in the ARN or the user pool's ID.", None
    )
    repository: Repository | None = key("For preset github_actions: OWNER/NAME, or OWNER/* for all of an owner.", None)
    tenant: Tenants | None = key("For preset entra: the tenant's ID, a list of them, or any.", None)
    token_use: Literal["access", "id"] | None = key("For preset cognito: the kind of tokens. Left out: access.", None)
    trust_domain: TrustDomain | None = key("For preset spiffe: the trust domain.", None)
    user_pool: UserPool | None = key("For preset cognito: the user pool's ID, such as eu-west-1_AbCdEfGhI.", None)
