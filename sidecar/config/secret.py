"""Shared secrets of the configuration. They come from a file or a variable, never from the configuration itself."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator, SecretBytes, ValidationInfo

from sidecar.common.file_content import content
from sidecar.config.values import STRING, file_path, surroundings

MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2, for HS256

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def shared_secret(written: bytes) -> bytes:
    """The secret in a file or variable, without a line break at its end.

    Raises ValueError with a text that does not hold the secret.
    """
    secret = re.sub(rb"\r?\n\Z", b"", written)
    if secret.startswith(b"-----BEGIN "):
        raise ValueError(
            "holds a key or certificate in PEM, which is not a secret; use public_key_file for a public key"
        )
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"holds a secret of {len(secret)} bytes; use at least {MIN_SECRET_BYTES}")
    return secret


def _secret_file(value: object, info: ValidationInfo) -> Path:
    path = file_path(value, info)
    try:
        written = content(path)
    except OSError:  # the file may be mounted later; until then its issuer has no keys
        return path
    shared_secret(written)
    return path


def _secret_variable(value: object, info: ValidationInfo) -> SecretBytes:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable, not the secret itself")
    environ = surroundings(info).environ
    if value not in environ:
        raise ValueError(
            "the environment has no variable of this name"
        )  # the name is not shown: it might be the secret itself
    return SecretBytes(shared_secret(environ[value].encode(errors="surrogateescape")))


SecretFile = Annotated[Path, PlainValidator(_secret_file), STRING]
SecretVariable = Annotated[SecretBytes, PlainValidator(_secret_variable), STRING]
