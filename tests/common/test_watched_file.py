"""A file that is read again when it changes: bad content replaces nothing and ends nothing."""

import errno
import os
from pathlib import Path

import pytest

from sidecar.common.errors import Unusable
from sidecar.common.watched_file import WatchedFile, unread


def read(content: bytes, _before: str | None) -> str:
    if content == b"bug":
        raise OverflowError("secret")
    return content.decode()


def test_a_bug_in_reading_a_file_keeps_its_previous_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("good")
    file = WatchedFile.of(path, read)
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
        WatchedFile.of(tmp_path / "file", read)


def test_a_file_without_permission_is_reported_with_its_mode_and_owner_and_the_process(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    path.chmod(0o640)
    owner, us = path.stat(), f"the sidecar has uid {os.geteuid()} and gid {os.getegid()}"
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    assert unread(path, denied) == (
        f"{path}: cannot be read: Permission denied "
        f"({us}; the file has mode 0640, uid {owner.st_uid} and gid {owner.st_gid})"
    )
    below = path / "below"
    assert unread(below, denied).endswith(f"Permission denied ({us}; it may not enter a folder of this path)")
    missing = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    assert unread(below, missing) == f"{below}: cannot be read: No such file or directory"
