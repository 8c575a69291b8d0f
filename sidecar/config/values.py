"""The types of single values of the configuration, with their JSON Schema.

Each function takes a value from YAML and returns the program's value, or raises ValueError with the problem and the choices.
`{input}` in the text stands for the value as written in the file.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, ValidationInfo, WithJsonSchema

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
ED25519 = "Ed25519"  # RFC 9864: another name of EdDSA with the supported curve
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SIZES = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_SIZE = re.compile(r"([1-9][0-9]{0,8})(KiB|MiB|GiB)")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_PLACE = re.compile(r"https?://[^/?#{}]+/(?:[^?#{}]*/)?\{([A-Za-z0-9_.:-]+)\}(?:/[^?#{}]*)?")  # a segment of a path
_ROUTE = re.compile(r"/[A-Za-z0-9\-._~!$&'()+,=:@/*]*")  # pchar of RFC 3986, and * for patterns
_FOLDED = re.compile(r"//|/\.\.?(?:/|$)")
_SAYABLE = re.compile(
    r"[!#-\[\]-~]+"
)  # a scope (RFC 6749 section 3.3), and what an answer may hold (RFC 6750 section 3)
_QUOTABLE = re.compile(r"[ !#-\[\]-~]+")  # the characters of a quoted-string (RFC 9110) that need no escapes
_PREFIX = re.compile(r"(?:/[A-Za-z0-9\-._~!$&'()+,=:@]+)+")
_REQUEST_PATH = re.compile(r"/[!\"$-~]*")
_CLAIM_PART = re.compile(r"(?:[^\\.]|\\[\\.])+")


class Surroundings(NamedTuple):
    """The surroundings of a file: the directory of its relative paths, and the environment."""

    base: Path
    environ: Mapping[str, str]


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` with the most similar known word, or empty."""
    spelled = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), spelled, 1)
    return f"; did you mean {spelled[close[0]]}?" if close else ""


def matching(pattern: "re.Pattern[str]", text: str) -> AfterValidator:
    """The type of texts of this form; `text` is the problem of any other."""

    def read(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(text)
        return value

    return AfterValidator(read)


def _text(value: str) -> str:
    if not value:
        raise ValueError("is empty")
    return value


def _seconds(value: object) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("{input} is not a duration; write a whole number with its unit: 500ms, 60s, 5m or 1h")
    return int(match[1]) * _UNITS[match[2]]


class Size(int):
    """A number of bytes; its text has a unit, as in the file."""

    def __str__(self) -> str:
        unit = next((unit for unit in reversed(_SIZES) if self % _SIZES[unit] == 0), None)
        return f"{int(self)}" if unit is None else f"{self // _SIZES[unit]}{unit}"


def _bytes(value: object) -> int:
    if type(value) is int and value > 0:  # bool is an int to Python
        return value
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            "{input} is not a size; write a whole number of bytes, or one with its unit: 512KiB, 32MiB or 1GiB"
        )
    return int(match[1]) * _SIZES[match[2]]


def _above_zero(seconds: float) -> float:
    if not seconds:
        raise ValueError("must be more than zero")
    return seconds


def _algorithm(value: str) -> str:
    choices = f"one of: {', '.join(ALGORITHMS)}"
    if value.lower() == "none":
        raise ValueError(f"{{input}} would accept tokens without a signature, which anyone can forge; {choices}")
    known = (*ALGORITHMS, *SECRET_ALGORITHMS)
    if value == ED25519:
        return "EdDSA"
    if value not in known:
        raise ValueError(f"{{input}} is not an algorithm; {choices}{nearest(value, known)}")
    return value


def _audiences(value: object) -> object:
    if value == "any":
        return None
    if not isinstance(value, list):
        raise ValueError("must be a list such as [my-api], or the word any to switch the check off")
    if "any" in value:
        raise ValueError(
            "in a list 'any' is an audience like the others; write `audiences: any` to switch the check off"
        )
    return value


def _issuer(value: str) -> str:
    if not value or re.search(r"[\s\x00-\x1f\x7f]", value):
        raise ValueError("must be the exact `iss` of the tokens, not empty, without white space")
    if "*" in value:
        raise ValueError(
            "{input} is not a pattern, and a host cannot be one; a claim of the token may be in the path, such as {tid}"
        )
    if re.search("[{}]", value):
        _issuer_template(value)
    return value


def _issuer_template(value: str) -> None:
    place = _PLACE.fullmatch(value)
    if place is None:
        raise ValueError(
            "{input} is not a template; write {claim} once, as one whole segment of the path, such as {tid}"
        )
    if place[1] == "tenantid":
        raise ValueError("{input} is the form in Entra's discovery document; write {tid}, the claim (see preset entra)")


def file_path(value: object, info: ValidationInfo) -> Path:
    """The path of a file, relative to the directory of the configuration."""
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a file; a relative path starts at the directory of this configuration")
    return Path(surroundings(info).base, value)


def surroundings(info: ValidationInfo) -> Surroundings:
    """The surroundings of the current file, or of this process for a struct that code makes."""
    return info.context or Surroundings(Path(), os.environ)


def _workers(value: object) -> int:
    if value == "auto":
        return os.cpu_count() or 1
    if not isinstance(value, int) or value is True or value < 1:
        raise ValueError(
            "{input} is not a number of workers; write a whole number from 1, or auto for one for each processor"
        )
    return value


def claim_path(value: object) -> list[str]:
    """The names of a claim path, from a dotted path or a list."""
    if isinstance(value, list):
        return value
    parts = _CLAIM_PART.findall(value) if isinstance(value, str) else []
    if not parts or ".".join(parts) != value:
        raise ValueError(
            "{input} is not a claim or a path such as realm_access.roles; write \\. for a dot in a name, \\\\ for a backslash"
        )
    return [re.sub(r"\\(.)", r"\1", part) for part in parts]


def _route_path(value: str) -> str:
    if not value.startswith("/"):
        raise ValueError("{input} does not begin with /")
    if "**" in value:
        raise ValueError(
            "{input} has a **; write a final /* for everything at and below, a * elsewhere for a part of one segment"
        )
    if not _ROUTE.fullmatch(value):
        raise ValueError(
            "{input} is not a plain path; leave out query, fragment, %-escapes and parameters: A-Z a-z 0-9 / -._~!$&'()+,=:@"
        )
    if _FOLDED.search(value):
        raise ValueError(
            "{input} has an empty, . or .. segment, which programs read in different ways; write the plain path"
        )
    return value


def _method(value: str) -> str:
    if not TOKEN.fullmatch(value) or value != value.upper():
        raise ValueError("{input} is not a method; write it in upper case, such as GET")
    if value in ("CONNECT", "TRACE"):
        raise ValueError("{input} is refused on every path; remove it")
    return value


STRING = WithJsonSchema({"type": "string"})
_DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": f"^{_DURATION.pattern}$"})

Item = TypeVar("Item")
NonEmpty = Annotated[tuple[Item, ...], Field(min_length=1)]
Text = Annotated[str, AfterValidator(_text), WithJsonSchema({"type": "string", "minLength": 1})]
Seconds = Annotated[float, PlainValidator(_seconds), _DURATION_SCHEMA]
PositiveSeconds = Annotated[float, PlainValidator(_seconds), AfterValidator(_above_zero), _DURATION_SCHEMA]
Bytes = Annotated[
    int,
    PlainValidator(_bytes),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "string", "pattern": "^[1-9][0-9]{0,8}(KiB|MiB|GiB)$"}]}
    ),
]
Algorithm = Annotated[
    str, AfterValidator(_algorithm), WithJsonSchema({"enum": [*ALGORITHMS, ED25519, *SECRET_ALGORITHMS]})
]
Audiences = Annotated[
    tuple[Text, ...] | None,
    Field(min_length=1),
    BeforeValidator(_audiences),
    WithJsonSchema(
        {"anyOf": [{"const": "any"}, {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}}]}
    ),
]
IssuerId = Annotated[str, AfterValidator(_issuer)]
ConfigFile = Annotated[Path, PlainValidator(file_path), STRING]
Workers = Annotated[
    int, PlainValidator(_workers), WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]})
]
Realm = Annotated[
    str,
    matching(
        _QUOTABLE, 'must be printable ASCII, not empty, without " and \\: it goes into WWW-Authenticate in quotes'
    ),
]
Name = Annotated[
    str,
    matching(_NAME, "is not a name; use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"),
]
PathPrefix = Annotated[
    str, matching(_PREFIX, "{input} is not a prefix; write a path without a / at its end, such as /api")
]
RequestPath = Annotated[
    str, matching(_REQUEST_PATH, "{input} is not a path for a request; begin it with /, without spaces and #")
]
ClaimName = Annotated[
    str, matching(_SAYABLE, "{input} is not a claim; use printable ASCII without spaces, quotes and backslashes")
]
ClaimPath = Annotated[
    tuple[Text, ...],
    Field(min_length=1),
    BeforeValidator(claim_path),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}),
]
RoutePath = Annotated[str, AfterValidator(_route_path)]
Method = Annotated[str, AfterValidator(_method)]
Scope = Annotated[
    str,
    matching(
        _SAYABLE,
        "{input} is not a scope; write one word of printable ASCII for each item, without quotes and backslashes",
    ),
]
