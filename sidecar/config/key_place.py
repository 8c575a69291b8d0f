"""The places of keys in the configuration."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from sidecar.config.addresses import web_url
from sidecar.config.secret import SecretFile, SecretVariable
from sidecar.config.struct import Struct, check, key
from sidecar.config.values import ConfigFile, Text
from sidecar.config.yaml_source import Section

_BY_KID = re.compile(r"https?://[^/?#{}]+/[^?#{}]*\{kid\}[^?#{}]*")

SOURCES = ("jwks_uri", "jwks_file", "jwks_inline", "public_key_file", "secret_file", "secret_env")
"""The keys that name a place of keys: at most one of them is given."""
SECRET_SOURCES = ("secret_file", "secret_env")


def _key_set(value: dict[str, Any]) -> dict[str, Any]:
    keys = value.get("keys")
    if value and all(isinstance(pem, str) and pem.startswith("-----BEGIN ") for pem in value.values()):
        if any("PRIVATE KEY-----" in pem for pem in value.values()):
            raise ValueError("holds a private key; only public keys and certificates belong here")
        return value
    if not isinstance(keys, list):
        raise ValueError("is not a JWK Set: it has no list `keys`")
    if any(isinstance(member, dict) and member.keys() & {"d", "k"} for member in keys):
        raise ValueError("holds a private key or a secret (d or k); only the public members of a key belong here")
    return value


def _keys_url(url: str) -> str:
    web_url(url.replace("{kid}", "kid"))
    if {"{", "}"} & set(url) and not _BY_KID.fullmatch(url):
        raise ValueError("{input} has braces; only {kid} is allowed, once in the path, if each key has its own URL")
    return url


KeysUrl = Annotated[str, AfterValidator(_keys_url)]


class KeyPlace(Struct):
    """A place of keys."""

    jwks_uri: KeysUrl | None = key(
        "The URL of its key set. Left out: discovery (OpenID Connect, {issuer}/.well-known/jwks.json or RFC 8414).",
        None,
    )
    jwks_file: ConfigFile | None = key("A file with its key set, read again when it changes.", None)
    jwks_inline: Annotated[dict[str, Any], AfterValidator(_key_set)] | None = key("Its key set itself.", None)
    public_key_file: ConfigFile | None = key("A file with its public key (PEM), read again when it changes.", None)
    kid: Text | None = key("The kid of that public key. Left out: tokens may name any kid.", None)
    secret_file: SecretFile | None = key("A file with the shared secret, for HS256 to HS512.", None)
    secret_env: SecretVariable | None = key("The environment variable with the shared secret.", None)

    @property
    def keys_from(self) -> str:
        """The key of the file or preset that names the place of the keys; `discovery` without one."""
        return next((source for source in SOURCES if getattr(self, source) is not None), "discovery")

    @property
    def secret(self) -> bool:
        """Is it a shared secret, not a public key?"""
        return self.keys_from in SECRET_SOURCES

    @property
    def by_kid(self) -> bool:
        """Does each key have its own URL?"""
        return "{kid}" in (self.jwks_uri or "")

    @check()
    def _one_place(self, section: Section) -> None:
        written = [source for source in SOURCES if source in section]
        for other in written[1:]:
            section.report(f"contradicts {written[0]}; keep one of the two", other)
        if "kid" in section and "public_key_file" not in section:
            section.report("needs public_key_file; add it or remove kid", "kid")


class MoreKeys(KeyPlace):
    """A further place of an issuer's keys."""

    @check()
    def _a_place(self, section: Section) -> None:
        if not any(source in section for source in SOURCES):
            section.report(f"names no place of keys; one of: {', '.join(SOURCES)}")
