"""Types of addresses in the configuration: listeners, URLs, hosts and networks. See `values`."""

import ipaddress
import re
from ipaddress import IPv4Network, IPv6Network
from typing import Annotated, NamedTuple
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)

from sidecar.common.encoding import host_and_port
from sidecar.config.values import STRING, matching

MAX_SOCKET_PATH = 107  # bytes: sun_path of unix(7), less its final NUL
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # Python raises UnicodeError for an empty or a longer one
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESS = re.compile(rf"(?:\[([0-9A-Fa-f:.]+)\]|({_HOST.pattern}\.?)):([0-9]{{1,5}})")
_URL = re.compile(r"[!-\[\]-~]+")  # printable ASCII without space and backslash
_SOCKET = re.compile(r"unix:///[^\s%?#\\]*[^\s%?#\\/]")


class Address(NamedTuple):
    """An address to listen on. Port 0: a free port."""

    host: str
    port: int

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)

    def clashes(self, other: "Address") -> bool:
        """Would the system refuse to bind both? `::` takes the port on every address, `0.0.0.0` on every IPv4 address."""
        if self.port != other.port or self.port == 0:
            return False
        hosts = {self.host, other.host}
        return len(hosts) == 1 or "::" in hosts or ("0.0.0.0" in hosts and not any(":" in host for host in hosts))  # noqa: S104


def _address(value: object) -> Address:
    match = _ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise ValueError(
            "{input} is not host:port; write 127.0.0.1:8080, '[::1]:8080', or 0.0.0.0:8080 for all interfaces"
        )
    host, port = match[1] or match[2], int(match[3])
    if match[1] or re.fullmatch("[0-9.]+", host):
        host = _ip_address(host)
    if port > 65535:
        raise ValueError("{input} ends in a port above 65535; use 1 to 65535, or 0 for a free port")
    return Address(host, port)


def _addresses(value: object, handler: ValidatorFunctionWrapHandler) -> object:
    return handler(value) if isinstance(value, list) else (_address(value),)


def _ip_address(host: str) -> str:
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ValueError("{input} begins with an IP address that does not exist") from None


def _split(url: str, shape: str) -> SplitResult:
    """Split an http or https URL that every program reads in the same way."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
        good = ipaddress.ip_address(host).version == 6 if ":" in host else _HOST.fullmatch(host)
    except ValueError:
        raise ValueError(f"must be {shape}") from None
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password: URLs are shown in logs")
    if (
        not good
        or port == 0
        or parts.netloc.endswith(":")
        or not _URL.fullmatch(url)
        or parts.scheme not in ("http", "https")
    ):
        raise ValueError(f"must be {shape}")
    return parts


def web_url(url: str) -> SplitResult:
    """Split a URL of a key set or a discovery document."""
    parts = _split(url, "a whole URL such as https://idp.example/keys")
    if "#" in url:
        raise ValueError("must not have a fragment (#); clients never send it")
    return parts


def _resource_url(url: str) -> str:
    _split(url, "a whole URL such as https://api.example")
    if {"?", "#", '"', "\\"} & set(url):
        raise ValueError(
            "{input} must not have a query, a fragment, quotes or backslashes: it goes into WWW-Authenticate"
        )
    return url


def _web_url(url: str) -> str:
    web_url(url)
    return url


def _upstream_url(url: str) -> str:
    if url.startswith("unix:"):
        if not _SOCKET.fullmatch(url) or len(url.removeprefix("unix://").encode()) > MAX_SOCKET_PATH:
            raise ValueError(
                f"must be unix:///path/of.sock with a path of at most {MAX_SOCKET_PATH} bytes, without escapes"
            )
        return url
    parts = _split(url, "http://host:port, https://host:port or unix:///path/of.sock")
    if parts.path not in ("", "/") or "?" in url or "#" in url:
        raise ValueError("must end after the host and port; the path and query come from each request")
    return url


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        raise ValueError("{input} is not a network; write 10.0.0.0/8 (not 10.1.2.3/8) or fd00::/8") from None


ListenAddress = Annotated[Address, PlainValidator(_address), STRING]
ListenAddresses = Annotated[
    tuple[ListenAddress, ...],
    Field(min_length=1),
    WrapValidator(_addresses),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": {"type": "string"}}]}),
]
ResourceUrl = Annotated[str, AfterValidator(_resource_url)]
WebUrl = Annotated[str, AfterValidator(_web_url)]
ServerName = Annotated[str, matching(_HOST, "{input} is not the name of a host")]
UpstreamUrl = Annotated[str, AfterValidator(_upstream_url)]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(_network), STRING]
