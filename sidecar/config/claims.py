"""What the claims of a token must be, in the configuration: for each of an issuer's tokens, and for a route."""

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

from sidecar.config.struct import Struct, check, key
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
        raise ValueError("{input} has no *, which stands for any characters; put it under exact")
    if not pattern.strip("*"):
        raise ValueError("{input} is every subject; leave subjects out")
    return pattern


def _scalar(value: object) -> object:
    if not isinstance(value, str | int | float):
        raise ValueError("must be text, a number, true or false, not {input}")
    return value


def _claim_key(value: str) -> tuple[str, ...]:
    try:
        return tuple(claim_path(value))
    except ValueError as error:  # at a key there is no input to show
        raise ValueError(str(error).removeprefix("{input} ")) from None


Glob = Annotated[str, AfterValidator(_glob)]
Scalar = Annotated[
    str | int | float | bool, PlainValidator(_scalar), WithJsonSchema({"type": ["string", "number", "boolean"]})
]
ClaimKey = Annotated[tuple[str, ...], PlainValidator(_claim_key), STRING]


class Subjects(Struct):
    """Which `sub` an issuer is believed for: what one of these lists names."""

    exact: NonEmpty[Text] = key("These.", ())
    prefix: NonEmpty[Text] = key("Those that begin so.", ())
    glob: NonEmpty[Glob] = key("Those that fit; * stands for any characters.", ())

    @check()
    def _some(self, section: Section) -> None:
        _not_empty(section, "exact, prefix, glob")


class Scopes(Struct):
    """Which scopes a token must have. A list in its place means all."""

    any: NonEmpty[Scope] = key("At least one of these.", ())
    all: NonEmpty[Scope] = key("Every one of these.", ())

    @check()
    def _some(self, section: Section) -> None:
        _not_empty(section, "any, all")


class Roles(Struct):
    """Which roles a token must have. A list in its place means all."""

    any: NonEmpty[Text] = key("At least one of these.", ())
    all: NonEmpty[Text] = key("Every one of these.", ())

    @check()
    def _some(self, section: Section) -> None:
        _not_empty(section, "any, all")


class Condition(Struct):
    """What a claim must be. Each operator that is given must hold; a claim of another type is a mismatch."""

    equals: Scalar | None = key("This text, number or truth value.", None)
    in_: NonEmpty[Scalar] | None = key("One of these.", None, "in")
    prefix: Text | None = key("A text that begins so.", None)
    contains: Scalar | None = key("A list that holds this.", None)
    any: NonEmpty[Scalar] | None = key("A list that holds at least one of these.", None)
    all: NonEmpty[Scalar] | None = key("A list that holds every one of these.", None)
    exists: StrictBool | None = key("true: it is there, with a value. false: it is not.", None)
    not_: "Condition | None" = key("It is there, and this is false of it.", None, "not")

    @check()
    def _some(self, section: Section) -> None:
        _not_empty(section, "all, any, contains, equals, exists, in, not, prefix")

    @check("exists")
    def _exists_alone(self, section: Section) -> None:
        if self.exists is False and len(section) > 1:
            section.report("contradicts the other operators, which need a claim; keep one of the two", "exists")

    def operators(self) -> dict[str, Any]:
        """Operator -> operand, as the file has them."""
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


class Require(Struct):
    """What verified claims must hold. All that is given must."""

    scopes: Annotated[Scopes, *_list_means_all(Scope)] = key(
        "The token must have all of these; {any: [...], all: [...]} asks for one of several.", Scopes()
    )
    roles: Annotated[Roles, *_list_means_all(Text)] = key(
        "The same for roles, from where the issuer has them (its role_claims).", Roles()
    )
    claims: Annotated[Mapping[ClaimKey, Condition], Field(min_length=1)] = key("Claim: what it must be.", {})

    @check()
    def _some(self, section: Section) -> None:
        _not_empty(section, "scopes, roles, claims")


class TokenRules(Struct):
    """What every token of an issuer must be."""

    audiences: Audiences = key("A token must be for one of these; the word any accepts tokens for other services.")
    audience_match: Literal["any", "all"] = key("any: one of the audiences is enough. all: every one of them.", "any")
    audience_claims: NonEmpty[ClaimName] = key("Where audiences are: the first of these that a token has.", ("aud",))
    clock_skew_s: Seconds = key("How far clocks may differ, for exp, nbf and iat.", 60.0, "clock_skew")
    require_exp: StrictBool = key("Refuse tokens that never expire.", True)
    max_token_lifetime_s: PositiveSeconds | None = key(
        "Refuse tokens that are good for longer than this. Left out: for however long.", None, "max_token_lifetime"
    )
    required_claims: tuple[ClaimPath, ...] = key("Claims that a token must have.", ())
    reject_claims: tuple[ClaimPath, ...] = key("Claims that a token must not have, such as nonce of ID tokens.", ())
    subjects: Subjects | None = key("Which sub it is believed for. Left out: every one.", None)
    accepted_typ: NonEmpty[Text] = key(
        "The kinds of token (typ) that are accepted; absent stands for none given.", ("JWT", "at+jwt", "absent")
    )
    reject_bound_tokens: StrictBool = key(
        "Refuse tokens that only the holder of a key may use (DPoP, mutual TLS).", True
    )
    role_claims: NonEmpty[ClaimPath] | None = key(
        "Where roles are: all of these together. Left out: the first that a token has of "
        "roles, realm_access.roles, groups, cognito:groups, role and urn:zitadel:iam:org:project:roles.",
        None,
    )
    require: Require | None = key("What all of its tokens must hold, as on a route.", None)
    lenient_claims: tuple[Literal["sub", "jti"], ...] = key(
        "Which of sub and jti may be a whole number, which then counts as text.", ()
    )
    allow_padding: StrictBool = key(
        "Accept tokens whose parts are padded with =, as those of AWS load balancers are.", False
    )

    @check()
    def _audiences_are_looked_at(self, section: Section) -> None:
        if section.get("audiences") == "any":
            for asked in ("audience_match", "audience_claims"):
                if asked in section:
                    section.report(
                        "contradicts audiences: any, which looks at no audience; remove one of the two", asked
                    )

    @check("require_exp")
    def _tokens_have_a_lifetime(self, section: Section) -> None:
        if not self.require_exp and "max_token_lifetime" in section:
            text = "contradicts require_exp: false: a token without exp has no lifetime; remove one of the two"
            section.report(text, "max_token_lifetime")


def _not_empty(section: Section, keys: str) -> None:
    if not section:
        section.report(f"is empty, which could mean all or none; give at least one of: {keys}")
