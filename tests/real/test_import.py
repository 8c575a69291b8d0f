"""Configurations of Envoy and what `jwt-sidecar import` makes of them: whoever gets in here gets in there, too."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.peers import Peer, envoy
from benchmarks.proxies import Proxy, started
from benchmarks.setting import Setting
from sidecar.cli.convert.command import imported
from tests.conftest import Need
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.raw import fetch
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import request
from tests.real.conftest import StartSidecar

Json = dict[str, Any]
A, B = {"provider_name": "a"}, {"provider_name": "b"}
EITHER = {"requires_any": {"requirements": [A, B]}}
EVERYTHING = {"prefix": "/"}
HOME = {"match": EVERYTHING, "requires": EITHER}
PREFLIGHT = [("Origin", "https://page.example"), ("Access-Control-Request-Method", "GET")]


def manager(theirs: Json) -> Json:
    found: Json = theirs["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    return found


def jwt_authn(theirs: Json) -> Json:
    found: Json = manager(theirs)["http_filters"][0]["typed_config"]
    return found


def rules(*wanted: Json) -> Callable[[Json], None]:
    return lambda theirs: jwt_authn(theirs).update(rules=list(wanted))


def provider(name: str, **more: Any) -> Callable[[Json], None]:
    return lambda theirs: jwt_authn(theirs)["providers"][name].update(more)


def only_a(theirs: Json, **more: Any) -> None:
    del jwt_authn(theirs)["providers"]["b"]
    rules({"match": EVERYTHING, "requires": A})(theirs)
    jwt_authn(theirs).update(more)


def by_name(theirs: Json) -> None:
    jwt_authn(theirs).update(rules=[], requirement_map={"r": A})
    jwt_authn(theirs)["rules"] = [{"match": EVERYTHING, "requirement_name": "r"}]


def by_the_route(theirs: Json) -> None:
    jwt_authn(theirs).update(rules=[], requirement_map={"r": A})
    kind = envoy._type("filters.http.jwt_authn.v3.PerRouteConfig")
    route(theirs)["typed_per_filter_config"] = {"jwt": {"@type": kind, "requirement_name": "r"}}


def filter_before_the_router(name: str, config: Json) -> Callable[[Json], None]:
    entry = {"name": name, "typed_config": {"@type": envoy._type(f"filters.http.{name}"), **config}}
    return lambda theirs: manager(theirs)["http_filters"].insert(1, entry)


def host(theirs: Json) -> Json:
    found: Json = manager(theirs)["route_config"]["virtual_hosts"][0]
    return found


def route(theirs: Json) -> Json:
    found: Json = host(theirs)["routes"][0]
    return found


def answered_directly(theirs: Json) -> None:
    host(theirs)["routes"].insert(0, {"match": {"prefix": "/open"}, "direct_response": {"status": 403}})


NOBODY = {"rules": {"policies": {}}}
LUA = "function envoy_on_request(handle) handle:respond({[':status'] = '403'}, '') end"

EQUIVALENT: dict[str, Callable[[Json], None]] = {
    "a token of either for everything": rules(HOME),
    "one provider": only_a,
    "one provider, and preflights": lambda theirs: only_a(theirs, bypass_cors_preflight=True),
    "rules that add nothing": rules({"match": {"path": "/open"}, "requires": EITHER}, HOME),
    "tokens elsewhere": lambda theirs: (
        [provider(name, from_headers=[{"name": "x-token"}], from_cookies=["c"])(theirs) for name in ("a", "b")] and None
    ),
}
CLOSED: dict[str, Callable[[Json], None]] = {
    "no rules": rules(),
    "open paths": rules({"match": {"path": "/open"}}, HOME),
    "no rule for the rest": rules({"match": {"prefix": "/open"}, "requires": EITHER}),
    "a provider for each path": rules({"match": {"prefix": "/open"}, "requires": A}, {"match": EVERYTHING, "requires": B}),
    "a requirement by its name": by_name,
    "a requirement by the name in a route": by_the_route,
    "audiences of a rule": rules(
        {"match": EVERYTHING, "requires": {"provider_and_audiences": {"provider_name": "a", "audiences": ["x"]}}}
    ),
    "both tokens": rules({"match": EVERYTHING, "requires": {"requires_all": {"requirements": [A, B]}}}),
    "a header": rules({"match": {"prefix": "/", "headers": [{"name": "x-asked"}]}, "requires": A}, HOME),
    "RBAC": filter_before_the_router("rbac.v3.RBAC", NOBODY),
    "Lua": filter_before_the_router("lua.v3.Lua", {"default_source_code": {"inline_string": LUA}}),
    "a direct response": answered_directly,
    "one host": lambda theirs: host(theirs).update(domains=["other.example"]),
    "one path": lambda theirs: route(theirs).update(match={"prefix": "/open"}),
    "another path for the backend": lambda theirs: route(theirs)["route"].update(prefix_rewrite="/other"),
    "subjects": provider("a", subjects={"exact": "nobody"}),
    "a lifetime": provider("a", max_lifetime="1s"),
    "places of one provider": provider("a", from_headers=[{"name": "x-token"}]),
    "headers of one provider": provider("a", claim_to_headers=[{"header_name": "x-user", "claim_name": "sub"}]),
}  # fmt: skip


@pytest.mark.parametrize("name", [*EQUIVALENT, *CLOSED])
async def test_whoever_gets_in_here_gets_in_there(name: str, need: Need, sidecar: StartSidecar, tmp_path: Path) -> None:
    need(str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it")
    async with ScriptedIssuer(path="/a") as a, ScriptedIssuer(path="/b") as b, RawBackend() as backend:
        setting = Setting(tmp_path, backend.address[1], ())

        def command(_setting: Setting, port: int, directory: Path) -> list[str]:
            theirs = configuration(port, backend, {"a": a, "b": b})
            (EQUIVALENT | CLOSED)[name](theirs)
            (directory / "envoy.json").write_text(json.dumps(theirs))
            return [str(envoy.BINARY), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

        with started(Peer("theirs", "", "envoy.json", envoy.version, command), setting) as theirs:
            result = imported("envoy", str(tmp_path / "theirs" / "envoy.json"))
            assert result.equivalent == (name in EQUIVALENT)
            ours = yaml.safe_load(result.text("envoy.json"))
            if result.equivalent:
                assert ours["listen"] == f"127.0.0.1:{theirs.port}"
                assert ours["upstream"] == f"http://127.0.0.1:{backend.address[1]}"
            ours |= {"upstream": f"http://127.0.0.1:{backend.address[1]}"}  # a made-up one is replaced by hand
            ours.pop("listen", None)  # Envoy has it
            await listening(theirs)
            async with sidecar(**ours, access_log="off") as url:
                tokens = {
                    "a": a.token(),
                    "b": b.token(),
                    "x": a.token(aud=[AUDIENCE, "x"]),
                    "no exp": a.token(exp=None),
                    "other audience": a.token(aud="y"),
                    "bad": a.token()[:-9],
                }
                asked = {("none", path): request("GET", path) for path in ("/open", "/open/x", "/")}
                asked["preflight", ""] = request("OPTIONS", "/", headers=PREFLIGHT)
                for kind, token in tokens.items():
                    asked |= {(kind, path): request("GET", path, token=token) for path in ("/open", "/open/x", "/")}
                    asked[kind, "query"] = request("GET", f"/open?access_token={token}")
                    asked[kind, "header"] = request("GET", "/open", headers=[("X-Token", token)])
                    asked[kind, "cookie"] = request("GET", "/open", headers=[("Cookie", f"c={token}")])
                ports = int(url.rpartition(":")[2]), theirs.port
                found = {
                    what: [(await fetch(("127.0.0.1", port), wire)).status == 200 for port in ports]
                    for what, wire in asked.items()
                }
    assert {what: both for what, both in found.items() if both[0] > both[1]} == {}
    if name in EQUIVALENT:
        assert {what: both for what, both in found.items() if both[0] != both[1]} == {}
        assert any(both[0] for both in found.values())


async def listening(proxy: Proxy) -> None:
    while proxy.process.alive():
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        except ConnectionRefusedError:
            await asyncio.sleep(0.01)
        else:
            writer.close()
            return
    pytest.fail(proxy.process.output.read_text()[-1000:])


def configuration(port: int, backend: RawBackend, issuers: dict[str, ScriptedIssuer]) -> Json:
    """Envoy's, with these issuers as providers, and a token of either for everything."""
    clusters = {"backend": backend.address[1]} | {name: issuer.address[1] for name, issuer in issuers.items()}
    providers = {
        name: {
            "issuer": issuer.issuer,
            "audiences": [AUDIENCE],
            "remote_jwks": {"http_uri": {"uri": issuer.jwks_uri, "cluster": name, "timeout": "5s"}},
        }
        for name, issuer in issuers.items()
    }
    jwt_authn = {
        "@type": envoy._type("filters.http.jwt_authn.v3.JwtAuthentication"),
        "providers": providers,
        "rules": [HOME],
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
