"""A file of our own that is read again when it changes: what cannot be used replaces nothing, and ends nothing."""

from pathlib import Path

import pytest

from sidecar.common.errors import Unusable
from sidecar.common.watched_file import FollowedFile


def read(content: bytes, _before: str | None) -> str:
    if content == b"bug":
        raise OverflowError("secret")
    return content.decode()


def test_a_file_that_meets_a_bug_leaves_what_was_read_before(tmp_path: Path) -> None:
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


def test_a_file_that_meets_a_bug_at_the_start_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("bug")
    with pytest.raises(Unusable, match=r"/file: cannot be used: the sidecar has a bug here \(OverflowError\)"):
        FollowedFile(tmp_path / "file", read)
