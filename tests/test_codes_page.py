"""docs/reference/codes.md has one section for each code, with the status and the sentence of its answers."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.common.errors import Reason
from sidecar.config import json_schema

PAGE = (Path(__file__).parent.parent / "docs" / "reference" / "codes.md").read_text()
SECTIONS = dict(re.findall(r"^### `([a-z_]+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))
SERVED = Path(__file__).parent.parent / "sidecar" / "app" / "admin" / "static" / "codes.json"
KEYS = set(re.findall(r'"([a-z_]+)": \{', json.dumps(json_schema())))


def test_every_code_has_exactly_one_section() -> None:
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert sorted(headings) == sorted(f"`{reason.code}`" for reason in Reason)


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.code)
def test_a_section_has_status_sentence_cause_and_remedies(reason: Reason) -> None:
    first, *points = re.split(r"^- ", SECTIONS[reason.code].strip(), flags=re.MULTILINE)
    sentence = f": {reason.details}" if reason.details else ""
    assert first.strip() == f"{reason.status} {reason.error}{sentence}"
    words = [re.fullmatch(r"\*\*(\w+):\*\* \S.*", point, re.DOTALL) for point in points]
    assert [match and match[1] for match in words] == ["Cause", "Client", "Operator"]


def test_the_configuration_keys_on_the_page_exist() -> None:
    named = {word for key in re.findall(r"`([a-z_.]+_[a-z_.]+)(?:: [^`]*)?`", PAGE) for word in key.split(".")}
    others = {reason.code for reason in Reason} | {"request_id", "client_id", "large_client_header_buffers"}
    assert {word for word in named - others if not word.startswith("jwt_sidecar_")} <= KEYS


def for_the_admin_page() -> str:
    """The texts of each code on the admin page, as JSON."""
    told = {}
    for reason in Reason:
        about: dict[str, Any] = {"status": reason.status, "error": reason.error, "details": reason.details or None}
        _, *points = re.split(r"^- ", SECTIONS[reason.code].strip(), flags=re.MULTILINE)
        for point in points:
            text = " ".join(re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", point).split())
            named = re.fullmatch(r"\*\*(\w+):\*\* (.*)", text)
            assert named, text
            about[named[1].lower()] = named[2]
        told[reason.code] = about
    return json.dumps(told, indent=1, sort_keys=True) + "\n"


def test_the_admin_page_has_the_same_texts() -> None:
    assert SERVED.read_text() == for_the_admin_page(), "write it anew: python -m tests.test_codes_page"


if __name__ == "__main__":
    SERVED.write_text(for_the_admin_page())
