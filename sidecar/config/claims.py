"""The rules for claims in the configuration: of an issuer for all of its tokens, and of a route."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    StrictBool,
    TypeAdapter,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from sidecar.config.struct import Later, Struct, check, key
from sidecar.config.values import (
    STRING,
    Audiences,
    ClaimName,
    ClaimPath,
    NonEmpty,
    PositiveSeconds,
    Scope,
    Seconds,
    Text,
    claim_path,
)
from sidecar.config.yaml_source import Section


def _glob(pattern: str) -> str:
    if "*" not in pattern:
        raise ValueError("{input} has no *; put it under exact")
    if not pattern.strip("*"):
        raise ValueError("{input} matches every subject; leave subjects out")
    return pattern


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ValueError("must be text, a number, true or false, not {input}")
    return value


def _claim_key(value: str) -> tuple[str, ...]:
    try:
        return tuple(claim_path(value))
    except ValueError as error:  # for a key there is no input to show
        raise ValueError(str(error).removeprefix("{input} ")) from None


Glob = Annotated[str, AfterValidator(_glob)]
Scalar = Annotated[
    str | int | float | bool, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
ClaimKey = Annotated[tuple[str, ...], PlainValidator(_claim_key), STRING]


class SomeKeys(Struct):
    """A mapping with at least one of its keys."""

    @check()
    def _some(self, section: Section) -> None:
        if not section:
            keys = ", ".join(sorted(self.keys()))
            section.report(f"is empty, which could mean all or none; add at least one of: {keys}")


class Subjects(SomeKeys):
    """The `sub` values that the issuer may use: those that match one of these lists."""

    exact: NonEmpty[Text] = key("These.", ())
    prefix: NonEmpty[Text] = key("Every sub that begins with one of these.", ())
    glob: NonEmpty[Glob] = key("Every sub that matches one of these; * stands for any characters.", ())


class Scopes(SomeKeys):
    """The scopes that a token must have. A plain list means all of them."""

    any: NonEmpty[Scope] = key("At least one of these.", ())
    all: NonEmpty[Scope] = key("Every one of these.", ())


class Roles(SomeKeys):
    """The roles that a token must have. A plain list means all of them."""

    any: NonEmpty[Text] = key("At least one of these.", ())
    all: NonEmpty[Text] = key("Every one of these.", ())


class Condition(SomeKeys):
    """The conditions for a claim. Each given operator must hold; a claim of another type is a mismatch."""

    equals: Scalar | None = key("This text, number or boolean.", None)
    in_: NonEmpty[Scalar] | None = key("One of these.", None, "in")
    prefix: Text | None = key("A text that begins with this.", None)
    contains: Scalar | None = key("A list that contains this.", None)
    any: NonEmpty[Scalar] | None = key("A list that contains at least one of these.", None)
    all: NonEmpty[Scalar] | None = key("A list that contains all of these.", None)
    exists: StrictBool | None = key("true: the claim exists and has a value. false: it does not.", None)
    not_: "Condition | None" = key("The claim exists, and this condition is false.", None, "not")

    @check("exists")
    def _exists_alone(self, section: Section) -> None:
        if self.exists is False and len(section) > 1:
            section.report("contradicts the other operators, which need the claim; remove one of the two", "exists")

    def operators(self) -> dict[str, Any]:
        """Operator -> operand, with the names of the file."""
        return self.model_dump(by_alias=True, exclude_none=True)


def _list_means_all(words: Any) -> tuple[WrapValidator, WithJsonSchema]:
    items = TypeAdapter(NonEmpty[words])

    def read(value: object, handler: ValidatorFunctionWrapHandler) -> object:
        if isinstance(value, list):
            return handler({"all": items.validate_python(value)})
        if not isinstance(value, Section):
            raise ValueError("must be a list such as [admin], or a mapping with any and all, not {input}")
        return handler(value)

    list_schema = {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}
    mapping = {"type": "object", "properties": {"any": list_schema, "all": list_schema}, "additionalProperties": False}
    return WrapValidator(read), WithJsonSchema({"anyOf": [list_schema, {**mapping, "minProperties": 1}]})


class Require(SomeKeys):
    """The rules for verified claims. Each given rule must hold."""

    scopes: Annotated[Scopes, *_list_means_all(Scope)] = key(
        "The token must have all of these; {any: [...], all: [...]} asks for one of several.", Scopes()
    )
    roles: Annotated[Roles, *_list_means_all(Text)] = key("The same for roles, from the issuer's role_claims.", Roles())
    claims: Annotated[Mapping[ClaimKey, Condition], Field(min_length=1)] = key("Claim: its conditions.", {})


class TokenRules(Struct):
    """The rules for every token of an issuer."""

    audiences: Audiences = key("A token must name one of these; the word any accepts tokens for other services.")
    audience_match: Literal["any", "all"] = key(
        "any: one of the audiences is enough. all: the token must name every one.", "any"
    )
    audience_claims: NonEmpty[ClaimName] = key(
        "The claims with the audience; the first one with a value counts.", ("aud",)
    )
    clock_skew_s: Seconds = key("The tolerance for exp, nbf and iat, as clocks differ.", 60.0, "clock_skew")
    require_exp: StrictBool = key("Refuse tokens without exp.", True)
    max_token_lifetime_s: PositiveSeconds | None = key(
        "Refuse tokens with a longer lifetime. Left out: no limit.", None, "max_token_lifetime"
    )
    required_claims: tuple[ClaimPath, ...] = key("Claims that a token must have.", ())
    reject_claims: tuple[ClaimPath, ...] = key("Claims that a token must not have, such as nonce of ID tokens.", ())
    subjects: Later[Subjects] | None = key("The sub values that the issuer may use. Left out: all.", None)
    accepted_typ: NonEmpty[Text] = key(
        "The accepted values of the header's typ; absent accepts tokens without one.", ("JWT", "at+jwt", "absent")
    )
    reject_bound_tokens: StrictBool = key(
        "Refuse tokens that are bound to a key of the client (DPoP, mutual TLS).", True
    )
    role_claims: NonEmpty[ClaimPath] | None = key(
        "The claims with roles; all of them count. Left out: the first that a token has of "
        "roles, realm_access.roles, groups, cognito:groups, role and urn:zitadel:iam:org:project:roles.",
        None,
    )
    require: Later[Require] | None = key("The rules for all of its tokens, as on a route.", None)
    lenient_claims: tuple[Literal["sub", "jti"], ...] = key(
        "The claims, sub or jti, that may be a whole number. The number becomes text.", ()
    )
    allow_padding: StrictBool = key(
        "Accept tokens whose parts are padded with =, which AWS load balancers write.", False
    )

    @check()
    def _audiences_are_looked_at(self, section: Section) -> None:
        if section.get("audiences") == "any":
            for asked in ("audience_match", "audience_claims"):
                if asked in section:
                    section.report("contradicts audiences: any, which checks no audience; remove one of the two", asked)

    @check("require_exp")
    def _tokens_have_a_lifetime(self, section: Section) -> None:
        if not self.require_exp and "max_token_lifetime" in section:
            text = "contradicts require_exp: false: a token without exp has no lifetime; remove one of the two"
            section.report(text, "max_token_lifetime")
