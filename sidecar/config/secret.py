"""Values of the configuration that are secret: a shared secret comes from a file or a variable, never from the file itself."""

import re
from pathlib import Path
from typing import Annotated

from pydantic import PlainValidator, SecretBytes, ValidationInfo

from sidecar.config.values import STRING, file_path, surroundings

MIN_SECRET_BYTES = 32  # RFC 7518 section 3.2, for HS256

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def shared_secret(content: bytes) -> bytes:
    """The secret that a file or variable holds: all but the line break that editors and `echo` leave at its end.

    Raises ValueError, in words that do not tell the secret.
    """
    secret = re.sub(rb"\r?\n\Z", b"", content)
    if secret.startswith(b"-----BEGIN "):
        raise ValueError("holds a key or certificate in PEM; what others may know cannot be a secret")
    if len(secret) < MIN_SECRET_BYTES:
        raise ValueError(f"holds a secret of {len(secret)} bytes; at least {MIN_SECRET_BYTES} cannot be guessed")
    return secret


def _secret_file(value: object, info: ValidationInfo) -> Path:
    path = file_path(value, info)
    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError:
        content = None
    if content is not None:  # it may be mounted later, as other files of keys; until then nothing is verified with it
        shared_secret(content)
    return path


def _secret_variable(value: object, info: ValidationInfo) -> SecretBytes:
    if not isinstance(value, str) or not _VARIABLE.fullmatch(value):
        raise ValueError("must be the name of an environment variable; a secret itself has no place in this file")
    environ = surroundings(info).environ
    if value not in environ:
        raise ValueError(
            "the environment has no variable of this name"
        )  # nor is it told: it might be the secret itself
    return SecretBytes(shared_secret(environ[value].encode(errors="surrogateescape")))


SecretFile = Annotated[Path, PlainValidator(_secret_file), STRING]
SecretVariable = Annotated[SecretBytes, PlainValidator(_secret_variable), STRING]
