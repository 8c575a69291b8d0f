"""Reads the file: text -> Config, or every problem in one error."""

import errno
import os
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from sidecar.common.watched_file import unread
from sidecar.config.file import Config
from sidecar.config.struct import FileSchema
from sidecar.config.values import Surroundings
from sidecar.config.yaml_source import Problem, Section, Source

MOST_BYTES = 4 * 1024 * 1024  # 20,000 routes
DIGEST = 16  # characters of the digest: enough to distinguish files


class ConfigError(Exception):
    """The file cannot be used. `problems` holds every problem in the order of lines; str() has a line for each.

    `text` is the text of the file, as far as it could be read.
    """

    def __init__(self, problems: Iterable[Problem], text: str = "") -> None:
        self.problems = sorted(problems)
        self.text = text
        super().__init__("\n".join(map(str, self.problems)))


def load(path: str | Path, environ: Mapping[str, str] = os.environ) -> Config:
    """Read a file. Raises ConfigError."""
    try:
        content = _bytes(Path(path))
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, "", unread(Path(path), error))]) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise ConfigError([Problem(str(path), line, column, "", "this byte is not UTF-8 text")]) from None
    try:
        return parse(text, str(path), environ, Path(path).parent)
    except ConfigError:
        raise
    except Exception as error:  # a bug; it must not end a process that serves requests
        fault = f"cannot be read: the sidecar has a bug here ({type(error).__name__}); undo the last change and report the bug"
        raise ConfigError([Problem(str(path), 1, 1, "", fault)]) from error


def _bytes(path: Path) -> bytes:
    """The bytes of a configuration. Its parser takes seconds for each MiB. Raises OSError."""
    with path.open("rb") as file:
        found = file.read(MOST_BYTES + 1)
    if len(found) > MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES // 1024**2} MiB")
    return found


def parse(
    text: str, source: str = "config.yaml", environ: Mapping[str, str] = os.environ, base: Path | None = None
) -> Config:
    """Parse YAML text. `source` is its name in problems, `base` the directory of relative paths. Raises ConfigError."""
    read = Source(text, source, environ)
    if not isinstance(read.root, Section):
        if not read.problems:
            read.report("must be a mapping of keys; the smallest file has `issuers` and `upstream`", ())
        raise ConfigError(read.problems, text)
    config = Config.model_validate(read.root, context=Surroundings(base or Path.cwd(), environ))
    if read.problems:
        raise ConfigError(read.problems, text)
    return config.model_copy(update={"digest": sha256(text.encode()).hexdigest()[:DIGEST], "written": text})


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file, with descriptions and defaults in the form of the file."""
    return {"$schema": FileSchema.schema_dialect, **Config.model_json_schema(schema_generator=FileSchema)}
