"""Files of keys for the tests of the gateway half, and settings that use them.

keys = Keys(tmp_path)
alice = keys.new("alice", "read write", tenant="acme")      # the key itself
async with running(issuers=None, **keys.settings()) as gateway: ...
"""

import json
from pathlib import Path
from typing import Any

from sidecar.gateway.api_keys import NEVER, ApiKey
from sidecar.gateway.key_ring import TimedKey
from sidecar.gateway.signing_key import SigningKey

ISSUER = "https://gateway.test/__gw/issuer"
AUDIENCE = "orders"


class Keys:
    """The two files in a directory: `api_keys`, and `signing`, which begins with one key that signs EdDSA."""

    def __init__(self, directory: Path) -> None:
        self.api_keys = directory / "api-keys.json"
        self.signing = directory / "signing-keys.json"
        self.entries: list[ApiKey] = []
        self.write()
        self.sign_with(TimedKey(SigningKey.generate("EdDSA")))

    def new(self, name: str, scopes: str = "", expires: float = NEVER, enabled: bool = True, **claims: Any) -> str:
        """Add an API key; return the key itself."""
        entry, key = ApiKey.new(name, tuple(scopes.split()), claims, expires)
        self.entries.append(entry._replace(enabled=enabled))
        self.write()
        return key

    def change(self, key: str, **members: Any) -> None:
        """Change the members of a key's entry."""
        number = key.split("_")[1]
        self.entries = [entry._replace(**members) if entry.id == number else entry for entry in self.entries]
        self.write()

    def write(self) -> None:
        """Write the API keys."""
        self._replace(self.api_keys, [entry.document() for entry in self.entries])

    def sign_with(self, *keys: TimedKey) -> None:
        """Write other signing keys."""
        self.keys = keys
        self._replace(self.signing, [timed.document() for timed in keys])

    def settings(self, backend: str = "", **more: Any) -> dict[str, Any]:
        """Every path needs an API key; with a `backend` it is sent a minted token. `more` adds or replaces."""
        settings: dict[str, Any] = {
            "api_keys": {"file": str(self.api_keys)},
            "routes": [{"path": "/*", "auth": "api_key"}],
        }
        if backend:
            settings |= {
                "signing": {"issuer": ISSUER, "keys_file": str(self.signing)},
                "upstream": None,
                "upstreams": {"main": {"url": backend, "token": {"audience": AUDIENCE}}},
            }
        return settings | more

    @staticmethod
    def _replace(file: Path, keys: list[dict[str, Any]]) -> None:
        beside = file.with_suffix(".new")
        beside.touch(0o600)
        beside.write_text(json.dumps({"keys": keys}))
        beside.replace(file)
