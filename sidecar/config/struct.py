"""The base of all structs: turns a mapping into a struct, reports all problems in plain words, and makes the JSON Schema."""

import re
from collections.abc import Callable
from types import FunctionType
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetPydanticSchema,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import (
    CoreSchema,
    NullableSchema,
    PlainValidatorFunctionSchema,
    WithDefaultSchema,
    nullable_schema,
    with_info_plain_validator_function,
)

from sidecar.config.addresses import Address
from sidecar.config.values import Size, nearest
from sidecar.config.yaml_source import Section

_MISSING = {
    "endpoint": "write it, such as http://127.0.0.1:4318/v1/traces",
    "original": "x-forwarded for Traefik and Caddy, x-original for nginx, path for Envoy",
    "audience": "write the `aud` that the backend expects, such as my-backend",
    "audiences": "list the `aud` values that mean this backend, or write `audiences: any` to switch the check off",
    "issuer": "write the exact `iss` of the tokens, such as https://idp.example/",
    "issuers": "name at least one issuer whose tokens are accepted",
    "origins": "list the origins of the pages that may read refusals, such as https://app.example.com",
    "path": "write it, such as /health",
    "secret_file": "write it, such as /run/secrets/signature",
    "url": "write it, such as http://127.0.0.1:9292",
}


def key(description: str, default: Any = ..., name: str | None = None) -> Any:
    """A field of a struct: its description, its default (none: the key is required), its key if that is not the field's name."""
    return Field(default, alias=name, description=description)


Check = TypeVar("Check", bound=Callable[[Any, Section], None])


def check(*fields: str) -> Callable[[Check], Check]:
    """Marks a method that reports problems between keys. It runs if all of these fields of its struct are valid."""

    def mark(method: Check) -> Check:
        method.looks_at = fields  # type: ignore[attr-defined]
        return method

    return mark


class Struct(BaseModel):
    """A mapping of the file. Read from a Section it reports its problems there instead of raising them.

    A field that could not be read is None, whatever its type says. No check looks at it, and no file with one is used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)
    checks: ClassVar[tuple[Callable[[Any, Section], None], ...]] = ()
    _unread: frozenset[str] = PrivateAttr(frozenset())

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        members = (member for base in reversed(cls.__mro__) for member in vars(base).values())
        cls.checks = tuple(
            member for member in members if isinstance(member, FunctionType) and hasattr(member, "looks_at")
        )

    @classmethod
    def keys(cls) -> set[str]:
        """The keys that the file may have here, without the struct's own attributes such as its line."""
        return {field.alias or name for name, field in cls.model_fields.items()} - {"name", "line", "digest", "written"}

    def could_read(self, *fields: str) -> bool:
        """Could all of these fields be read?"""
        return self._unread.isdisjoint(fields)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """The schema whose fields all take None, which stands for a value that was reported.

        A wrapped validator of all fields would do the same, but calls Python for each field and makes the start 5 ms longer.
        """
        schema = handler(source)
        fields: Any = handler.resolve_ref_schema(schema)
        while fields["type"] != "model-fields":
            fields = fields["schema"]
        for field in fields["fields"].values():
            place = field["schema"] if field["schema"]["type"] == "default" else field
            if place["schema"]["type"] != "nullable":
                place["schema"] = nullable_schema(place["schema"])
        return schema

    @model_validator(mode="wrap")
    @classmethod
    def _report(cls, section: object, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Validate without the invalid keys, so that the checks between the others still run."""
        if not isinstance(section, Section):
            return handler(section)
        keys = cls.keys()
        for unknown in section.keys() - keys:
            choice = nearest(unknown, keys) or f"; one of: {', '.join(sorted(keys))}"
            section.report(f"unknown key{choice}", unknown, at_key=True)
        values = {known: value for known, value in section.items() if known in keys}
        if "name" in cls.model_fields:
            values["name"] = section.path[-1]
        if "line" in cls.model_fields:
            values["line"] = section.line()
        try:
            struct = handler(values)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                _report(section, details)
                wrong = str(details["loc"][0])
                values[wrong] = (
                    _sections(values[wrong]) if details["type"] == "model_type" and len(details["loc"]) > 1 else None
                )
            struct = handler(values)
        names = {field.alias or name: name for name, field in cls.model_fields.items()}
        struct._unread = frozenset(names[known] for known, value in values.items() if value is None)
        for run in cls.checks:
            if struct.could_read(*run.looks_at):  # type: ignore[attr-defined]
                run(struct, section)
        return struct


class _Reader:
    """Reads a struct; pydantic builds its validator at the first use."""

    def __init__(self, struct: type[Struct]) -> None:
        self.struct = struct

    def __call__(self, value: object, info: ValidationInfo) -> Struct:
        return self.struct.model_validate(value, context=info.context)


Some = TypeVar("Some", bound=Struct)
Later = Annotated[Some, GetPydanticSchema(lambda struct, _: with_info_plain_validator_function(_Reader(struct)))]
"""A struct that most files lack, so that their start does not wait for its validator."""


def _report(section: Section, error: ErrorDetails) -> None:
    """Report one of pydantic's errors in plain words."""
    path, value = error["loc"], error["input"]
    if value is None:
        return  # reported where it was read
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            text = f"is missing; {_MISSING.get(str(path[-1]), 'it has no default')}"
        case "value_error":
            text = str(context["error"])
        case "literal_error":
            choices = re.findall("'([^']*)'", context["expected"])
            # All choices are listed and none is suggested: a suggestion could weaken the protection.
            text = f"{{input}} is not one of: {', '.join(choices)}"
        case "string_type":
            text = (
                "must be text; put {input} in quotes" if isinstance(value, int | float) else "must be text, not {input}"
            )
        case "bool_type":
            text = "must be true or false, not {input}"
        case "int_type":
            text = "must be a whole number, not {input}"
        case "greater_than_equal":
            text = f"must be at least {context['ge']}, not {{input}}"
        case "tuple_type":
            text = "must be a list, not {input}"
        case "too_short" if value:
            return  # its items were wrong, and are reported
        case "too_short":
            text = "is empty, which could mean all or none; add at least one"
        case _:  # model_type and dict_type
            text = "must be a mapping of keys, not {input}"
    at_key = path[-1] == "[key]"
    section.report(text, *(path[:-1] if at_key else path), at_key=at_key)


def _sections(value: object) -> object:
    """The valid structs of a list or mapping; None if none is left."""
    if isinstance(value, list):
        return [item for item in value if isinstance(item, Section)] or None
    if isinstance(value, dict):
        return {name: item for name, item in value.items() if isinstance(item, Section)} or None
    return None


class FileSchema(GenerateJsonSchema):
    """The schema of the file: durations and addresses are text, and there is no null."""

    def encode_default(self, dft: Any) -> Any:
        """A default in the form of the file. All floats of the configuration are durations."""
        if isinstance(dft, float):
            return f"{dft:g}s"
        if isinstance(dft, Address | Size):
            return str(dft)
        if isinstance(dft, tuple) and dft and isinstance(dft[0], Address):
            return str(dft[0])
        if isinstance(dft, dict):
            return {header: ".".join(claim) for header, claim in dft.items()}
        if isinstance(dft, tuple) and dft and isinstance(dft[0], Struct):
            return [struct.model_dump(by_alias=True, exclude_defaults=True) for struct in dft]
        return super().encode_default(dft)

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        """Leave out defaults that the file cannot have: None, and whole structs, whose keys have their own."""
        default = schema.get("default")
        if default is None or isinstance(default, BaseModel):
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)

    def function_plain_schema(self, schema: PlainValidatorFunctionSchema) -> JsonSchemaValue:
        """The schema of a struct that is read later."""
        reader: Any = schema["function"]["function"]
        if not isinstance(reader, _Reader):
            return super().function_plain_schema(schema)
        reader.struct.model_rebuild()
        return self.generate_inner(reader.struct.__pydantic_core_schema__)

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        """Without null: None means that the file leaves the key out."""
        return self.generate_inner(schema["schema"])

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        """Without titles."""
        return False
