"""`jwt-sidecar import envoy|istio FILE`: prints our configuration; what has no equivalent is named above it."""

from pathlib import Path

import yaml

from sidecar.config import ConfigError, parse
from sidecar.importing.envoy import envoy
from sidecar.importing.istio import istio
from sidecar.importing.reading import Imported, NotUnderstood


def imported(program: str, file: str) -> Imported:
    """Our configuration for what a file of `envoy` or `istio` says. Raises NotUnderstood, OSError."""
    try:
        documents = list(yaml.safe_load_all(Path(file).read_bytes()))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where is not None else ""
        raise NotUnderstood(f"it is neither YAML nor JSON{line}") from None
    return istio(documents) if program == "istio" else envoy(documents[0] if documents else None)


def problems_of(text: str) -> list[str]:
    """What is still wrong with the printed configuration: theirs may say what ours cannot."""
    try:
        parse(text, "the printed configuration", environ={})
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []
