"""The configuration: YAML -> frozen structs, with every problem of the file in one error.

`file` is the whole file; the other modules are its parts, by their names. `struct` is the base of all structs, `values` has the
types of single values, `yaml_source` the text with its lines and columns. `python -m docs.reference` writes the JSON Schema and
the reference page.
"""

from sidecar.config.addresses import Address
from sidecar.config.file import Config
from sidecar.config.gateway import ApiKeys, MintedToken, Signing
from sidecar.config.identity import TokenSource
from sidecar.config.issuer import Issuer
from sidecar.config.limits import Limits, Timeouts
from sidecar.config.listeners import Admin, Health, ResourceMetadata
from sidecar.config.loader import ConfigError, json_schema, load, parse
from sidecar.config.route import Route, Upstream
from sidecar.config.tls import ClientTls, ListenerTls
from sidecar.config.yaml_source import Problem

__all__ = [
    "Address",
    "Admin",
    "ApiKeys",
    "ClientTls",
    "Config",
    "ConfigError",
    "Health",
    "Issuer",
    "Limits",
    "ListenerTls",
    "MintedToken",
    "Problem",
    "ResourceMetadata",
    "Route",
    "Signing",
    "Timeouts",
    "TokenSource",
    "Upstream",
    "json_schema",
    "load",
    "parse",
]  # fmt: skip
