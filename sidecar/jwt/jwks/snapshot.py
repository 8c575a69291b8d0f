"""Saves the last good keys of an issuer to disk, for a restart during its outage. Only public keys are written."""

import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from sidecar.common.replaced_file import replace

MAX_BYTES = 4 * 1024 * 1024  # of the file; the largest key set takes a quarter, its removed keys another one


class SnapshotUnusable(Exception):
    """The file exists but cannot be trusted; the text says why and may be logged."""


class Saved(NamedTuple):
    """The content of a snapshot: a JWK Set, and the Unix time of its fetch."""

    key_set: object
    fetched_at: float


class Snapshot:
    """One issuer's file in `jwks_snapshot_dir`.

    A user who can write the file can forge tokens, so a file that other users own or may write is not trusted. The file is
    bound to the issuer and to all places of its keys: after a change of one, its keys are not used.
    """

    def __init__(self, path: Path, issuer: str, keys_from: str) -> None:
        self._path = path
        self._issuer = issuer
        self._keys_from = keys_from

    def read(self) -> Saved | None:
        """The saved keys; None without a file. Raises SnapshotUnusable."""
        try:
            content = self._content()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise SnapshotUnusable(f"{self._path}: {error.strerror}") from error
        try:
            saved = json.loads(content)
        except (ValueError, RecursionError):
            raise SnapshotUnusable(f"{self._path}: not JSON") from None
        match saved:
            case {"issuer": self._issuer, "keys_from": self._keys_from, "fetched_at": float(at), "keys": list(keys)}:
                return Saved({"keys": keys}, at)
        raise SnapshotUnusable(f"{self._path}: belongs to another issuer or another jwks_uri")

    def write(self, keys: list[dict[str, str]], fetched_at: float) -> None:
        """Replace the file atomically. Raises OSError."""
        saved = {"issuer": self._issuer, "keys_from": self._keys_from, "fetched_at": fetched_at, "keys": keys}
        replace(self._path, json.dumps(saved).encode(), precious=False)

    def _content(self) -> bytes:
        with open(os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o022:
                raise SnapshotUnusable(f"{self._path}: not a file that only this user may write")
            if status.st_size > MAX_BYTES:
                raise SnapshotUnusable(f"{self._path}: larger than {MAX_BYTES // 1024} KiB")
            return file.read()
