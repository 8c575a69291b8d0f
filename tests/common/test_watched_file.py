"""A file that is read again when it changes: bad content replaces nothing and ends nothing."""

from pathlib import Path

import pytest

from sidecar.common.errors import Unusable
from sidecar.common.watched_file import FollowedFile


def read(content: bytes, _before: str | None) -> str:
    if content == b"bug":
        raise OverflowError("secret")
    return content.decode()


def test_a_bug_in_reading_a_file_keeps_its_previous_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("good")
    file = FollowedFile(path, read)
    path.write_text("bug")
    assert not file.look()
    fault = "cannot be used: the sidecar has a bug here (OverflowError); undo the last change and report the bug"
    assert (file.value, file.problem) == ("good", f"{path}: {fault}")
    path.write_text("better")
    assert file.look()
    assert (file.value, file.problem) == ("better", None)


def test_a_bug_in_reading_a_file_at_the_start_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bug")
    with pytest.raises(Unusable, match=r"/file: cannot be used: the sidecar has a bug here \(OverflowError\)"):
        FollowedFile(tmp_path / "file", read)
