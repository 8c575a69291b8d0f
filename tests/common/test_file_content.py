"""Operators' files of any kind and size are read or refused, and never waited for."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.common.errors import Unusable
from sidecar.common.file_content import MOST_BYTES, content
from sidecar.common.tls import client_context, server_context
from sidecar.common.watched_file import WatchedFile
from sidecar.config import ConfigError
from sidecar.config.loader import MOST_BYTES as MOST_CONFIG_BYTES
from sidecar.config.loader import load
from sidecar.gateway.signing_key import SigningKey
from sidecar.jwt.jwks.fetcher import FileKeySet
from sidecar.jwt.jwks.key_set import FetchFailed


def odd(kind: str, folder: Path) -> Path:
    path = folder / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    return path


KINDS = {"fifo": "it is not a regular file", "device": "it is not a regular file", "folder": "Is a directory"}
of_each_kind = pytest.mark.parametrize(("kind", "why"), KINDS.items())


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * MOST_BYTES)
    assert content(path) == b"x" * MOST_BYTES
    path.write_bytes(b"x" * (MOST_BYTES + 1))
    with pytest.raises(OSError, match="it is larger than 1 MiB"):
        content(path)


@of_each_kind
def test_anything_but_a_regular_file_is_refused_at_once(kind: str, why: str, tmp_path: Path) -> None:
    path = odd(kind, tmp_path)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match=why):
        content(path)
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda path: WatchedFile([path], lambda *_: None), id="a watched file"),
        pytest.param(lambda path: WatchedFile.of(path, lambda *_: None), id="its bytes"),
        pytest.param(lambda path: SigningKey.load(path, "EdDSA"), id="a signing key"),
        pytest.param(lambda path: client_context(path), id="authorities of servers"),
        pytest.param(lambda path: client_context(None, path), id="a client certificate"),
        pytest.param(lambda path: server_context(path, None, None), id="a certificate"),
    ],
)
@of_each_kind
def test_the_refusal_names_the_file(use: Callable[[Path], object], kind: str, why: str, tmp_path: Path) -> None:
    path = odd(kind, tmp_path)
    with pytest.raises(Unusable, match=re.escape(f"{path}: cannot be read: {why}")):
        use(path)


@of_each_kind
async def test_a_key_set_is_a_regular_file(kind: str, why: str, tmp_path: Path) -> None:
    path = odd(kind, tmp_path)
    with pytest.raises(FetchFailed, match=re.escape(f"{path}: cannot be read: {why}")):
        await FileKeySet(path)()


def test_a_configuration_has_a_limit(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"#" * (MOST_CONFIG_BYTES + 1))
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}: cannot be read: it is larger than 4 MiB"
