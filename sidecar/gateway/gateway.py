"""The parts of the gateway half: accepted API keys, mints, and the sidecar's own issuer."""

from collections.abc import Mapping
from typing import Any

from sidecar.common.watched_file import WatchedFile
from sidecar.gateway.api_keys import ApiKeys
from sidecar.gateway.issuer_metadata import OwnIssuer
from sidecar.gateway.key_ring import KeyRing
from sidecar.gateway.token_minter import Mint


class Gateway:
    """Parts that are not configured are None or empty. `mints` are by the names of upstreams."""

    def __init__(
        self,
        api_keys: ApiKeys | None = None,
        key_ring: WatchedFile[KeyRing] | None = None,
        mints: Mapping[str, Mint] | None = None,
        issuer: OwnIssuer | None = None,
    ) -> None:
        self.api_keys = api_keys
        self.key_ring = key_ring
        self.mints = mints or {}
        self.issuer = issuer

    @property
    def files(self) -> list[WatchedFile[Any]]:
        """The files of keys that are read again when they change."""
        files = (None if self.api_keys is None else self.api_keys.file, self.key_ring)
        return [file for file in files if file is not None]
