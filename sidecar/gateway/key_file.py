"""The common form of files of API keys and of signing keys: `{"keys": [...]}`, and times as text."""

from datetime import UTC, datetime

from sidecar.jwt.compact_jws import strict_json_object


def members(content: bytes) -> list[object]:
    """The members of `keys` in a file. Raises ValueError with a text that may be logged."""
    try:
        found = strict_json_object(content).get("keys")
    except ValueError:
        raise ValueError("is not a JSON object, or has a name twice") from None
    if not isinstance(found, list):
        raise ValueError('has no list `keys`; write {"keys": []} for an empty file')
    return found


def moment(value: object) -> float:
    """RFC 3339 text as a Unix time. Raises ValueError."""
    try:
        found = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise ValueError("a time must be written like 2026-12-31T23:59:59Z")
    return found.timestamp()


def rfc3339(moment: float) -> str:
    """A Unix time as RFC 3339 text, to the second."""
    return datetime.fromtimestamp(int(moment), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
