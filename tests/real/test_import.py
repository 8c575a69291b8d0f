"""A configuration of Envoy and what `jwt-sidecar import` makes of it: the same requests, the same answers."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.peers import Peer, envoy
from benchmarks.proxies import await_accepted, started
from benchmarks.setting import Setting
from sidecar.importing.command import imported
from tests.conftest import Need
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.raw import fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.real.conftest import StartSidecar

GET = {"name": ":method", "string_match": {"exact": "GET"}}
RULES: list[dict[str, Any]] = [
    {"match": {"path": "/exact"}, "requires": {"provider_name": "a"}},
    {
        "match": {"path": "/either"},
        "requires": {"requires_any": {"requirements": [_a := {"provider_name": "a"}, {"provider_name": "b"}]}},
    },
    {"match": {"path": "/maybe"}, "requires": {"requires_any": {"requirements": [_a, {"allow_missing": {}}]}}},
    {"match": {"prefix": "/folder/"}, "requires": {"provider_name": "b"}},
    {"match": {"prefix": "/begin"}, "requires": {"provider_name": "a"}},
    {"match": {"path_separated_prefix": "/below"}, "requires": {"provider_name": "a"}},
    {"match": {"safe_regex": {"regex": "/v[0-9]+/items"}}, "requires": {"provider_name": "a"}},
    {"match": {"path": "/got", "headers": [GET]}, "requires": {"provider_name": "a"}},
    {"match": {"path": "/narrow"}, "requires": {"provider_and_audiences": {"provider_name": "a", "audiences": ["x"]}}},
    {"match": {"path": "/open"}},
    {"match": {"prefix": "/open/"}},
]
PATHS = [
    "/exact", "/exact/x", "/either", "/maybe", "/folder/", "/folder/x", "/begin", "/beginning", "/begin/x", "/below", "/below/x",
    "/belowx", "/v1/items", "/v1/items/2", "/got", "/narrow", "/open", "/open/x", "/", "/other",
]  # fmt: skip


@pytest.mark.parametrize("everything", [True, False], ids=["a rule for the rest", "none for the rest"])
async def test_both_let_the_same_requests_pass(
    everything: bool, need: Need, sidecar: StartSidecar, tmp_path: Path
) -> None:
    need(str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it")
    async with ScriptedIssuer(path="/a") as a, ScriptedIssuer(path="/b") as b, RawBackend() as backend:
        setting = Setting(tmp_path, backend.address[1], ())
        rules = [*RULES, {"match": {"prefix": "/"}, "requires": {"provider_name": "a"}}] if everything else RULES

        def command(_setting: Setting, port: int, directory: Path) -> list[str]:
            (directory / "envoy.json").write_text(json.dumps(configuration(port, backend, {"a": a, "b": b}, rules)))
            return [str(envoy.BINARY), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

        with started(Peer("theirs", "", "envoy.json", envoy.version, command), setting) as theirs:
            ours = yaml.safe_load(imported("envoy", str(tmp_path / "theirs" / "envoy.json")).text("envoy.json"))
            del ours["listen"]  # Envoy has it
            await asyncio.to_thread(await_accepted, theirs, a.token())
            async with sidecar(**ours, access_log="off") as url:
                ports = int(url.rpartition(":")[2]), theirs.port
                tokens = {
                    "none": None,
                    "a": a.token(),
                    "b": b.token(),
                    "x": a.token(aud=[AUDIENCE, "x"]),
                    "bad": a.token()[:-9],
                }
                found = {
                    (method, path, token): [
                        (await fetch(("127.0.0.1", port), request(method, path, token=tokens[token]))).status
                        for port in ports
                    ]
                    for method in ("GET", "POST")
                    for path in PATHS
                    for token in tokens
                }
    assert {status for both in found.values() for status in both} >= {200, 401}
    different = {asked: both for asked, both in found.items() if (both[0] == 200) != (both[1] == 200)}
    assert different == {}


def configuration(
    port: int, backend: RawBackend, issuers: dict[str, ScriptedIssuer], rules: list[dict[str, Any]]
) -> dict[str, Any]:
    """Envoy's, with these issuers as providers and these rules."""
    clusters = {"backend": backend.address[1]} | {name: issuer.address[1] for name, issuer in issuers.items()}
    providers = {
        name: {
            "issuer": issuer.issuer,
            "audiences": [AUDIENCE],
            "require_expiration": True,
            "remote_jwks": {"http_uri": {"uri": issuer.jwks_uri, "cluster": name, "timeout": "5s"}},
        }
        for name, issuer in issuers.items()
    }
    jwt_authn = {
        "@type": envoy._type("filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": providers,
        "rules": rules,
    }
    manager = {
        "@type": envoy._type("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "x",
        "route_config": {
            "virtual_hosts": [
                {"name": "x", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend"}}]}
            ]
        },
        "http_filters": [
            {"name": "jwt", "typed_config": jwt_authn},
            {"name": "router", "typed_config": {"@type": envoy._type("filters.http.router.v3.Router")}},
        ],
    }
    listener = {
        "address": envoy._address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [envoy._cluster(name, port) for name, port in clusters.items()],
        }
    }
