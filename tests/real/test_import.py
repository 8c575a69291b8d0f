"""Configurations of Envoy and their conversion by `jwt-sidecar import`: it accepts no request that Envoy refuses.

One Envoy has the listeners of all configurations, each at a socket in the file system; each result is a sidecar in this process.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import pytest_asyncio
import yaml

from benchmarks.peers import Peer, envoy
from benchmarks.proxies import Proxy, started
from benchmarks.setting import Setting
from sidecar.app.server import build
from sidecar.cli.convert.command import imported
from sidecar.config import parse
from tests.conftest import Need
from tests.peers import patience
from tests.peers.backend import RawBackend
from tests.peers.issuer import ScriptedIssuer
from tests.peers.raw import RawClient, fetch
from tests.peers.tls import authority
from tests.peers.tokens import AUDIENCE
from tests.peers.wire import READ_LIMIT, Truncated, request
from tests.real.conftest import SETTINGS

pytestmark = pytest.mark.asyncio(loop_scope="module")

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


def named_alike(theirs: Json) -> None:
    """Providers with names that become the same word."""
    found = jwt_authn(theirs)["providers"]
    found["a b"], found["a/b"] = found.pop("a"), found.pop("b")
    either = [{"provider_name": "a b"}, {"provider_name": "a/b"}]
    rules({"match": EVERYTHING, "requires": {"requires_any": {"requirements": either}}})(theirs)


def tokens_elsewhere(theirs: Json) -> None:
    for name in ("a", "b"):
        provider(name, from_headers=[{"name": "x-token"}], from_cookies=["c"])(theirs)


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


def listener(theirs: Json) -> Json:
    found: Json = theirs["static_resources"]["listeners"][0]
    return found


def client_certificate(theirs: Json) -> None:
    own = authority().issue_cert("envoy.test")
    chain, key = own.cert_chain_pems[0].bytes().decode(), own.private_key_pem.bytes().decode()
    context = {
        "@type": envoy._type("transport_sockets.tls.v3.DownstreamTlsContext"),
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [
                {"certificate_chain": {"inline_string": chain}, "private_key": {"inline_string": key}}
            ],
            "validation_context": {"trusted_ca": {"inline_string": authority().cert_pem.bytes().decode()}},
        },
    }
    listener(theirs)["filter_chains"][0]["transport_socket"] = {"name": "tls", "typed_config": context}


def tls_to_the_backend(theirs: Json) -> None:
    context = {"@type": envoy._type("transport_sockets.tls.v3.UpstreamTlsContext")}
    theirs["static_resources"]["clusters"][0]["transport_socket"] = {"name": "tls", "typed_config": context}


def ext_authz(theirs: Json) -> None:
    """A filter that asks a missing service, and therefore refuses."""
    server = {"uri": "http://127.0.0.1:1", "cluster": "nowhere", "timeout": "1s"}
    filter_before_the_router("ext_authz.v3.ExtAuthz", {"http_service": {"server_uri": server}})(theirs)
    theirs["static_resources"]["clusters"].append(envoy._cluster("nowhere", 1))


NOBODY: Json = {"rules": {"policies": {}}}
LUA = "function envoy_on_request(handle) handle:respond({[':status'] = '403'}, '') end"

EQUIVALENT: dict[str, Callable[[Json], None]] = {
    "a token of either for everything": rules(HOME),
    "one provider": only_a,
    "one provider, preflights let through": lambda theirs: only_a(theirs, bypass_cors_preflight=True),
    "names that become the same word": named_alike,
    "rules that add nothing": rules({"match": {"path": "/open"}, "requires": EITHER}, HOME),
    "tokens elsewhere": tokens_elsewhere,
}
CLOSED: dict[str, Callable[[Json], None]] = {
    "no rules": rules(),
    "a token that may be missing": rules({"match": EVERYTHING, "requires": {"allow_missing": {}}}),
    "a token that may be bad": rules({"match": EVERYTHING, "requires": {"allow_missing_or_failed": {}}}),
    "a token of one, or none": rules(
        {"match": EVERYTHING, "requires": {"requires_any": {"requirements": [A, {"allow_missing": {}}]}}}
    ),
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
    "a pattern": rules({"match": {"safe_regex": {"regex": "/open/.*"}}}, HOME),
    "a template": rules({"match": {"path_separated_prefix": "/open"}}, HOME),
    "a client certificate": client_certificate,
    "TLS to the backend": tls_to_the_backend,
    "ext_authz": ext_authz,
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


class Shape(NamedTuple):
    """One imported configuration. `asked` has for each request whether the sidecar and, if tried, Envoy accept it."""

    equivalent: bool
    config: Json
    asked: dict[str, tuple[bool, bool | None]]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def shapes(need: Need, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[dict[str, Shape]]:
    need(str(envoy.BINARY), "python -c 'from benchmarks.peers import envoy; envoy.version()' installs it")
    directory = tmp_path_factory.mktemp("import")
    async with ScriptedIssuer(path="/a") as a, ScriptedIssuer(path="/b") as b, RawBackend() as backend:
        all_of_theirs = {}
        for name, change in (EQUIVALENT | CLOSED).items():
            all_of_theirs[name] = configuration(8080, backend, {"a": a, "b": b})
            change(all_of_theirs[name])
        setting = Setting(directory, backend.address[1], ())

        def command(_setting: Setting, _port: int, directory: Path) -> list[str]:
            (directory / "envoy.json").write_text(json.dumps(together(all_of_theirs, directory)))
            return [str(envoy.BINARY), "-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "error"]

        with started(Peer("theirs", "", "envoy.json", envoy.version, command), setting) as proxy:
            found = {}
            for number, (name, theirs) in enumerate(all_of_theirs.items()):
                file = directory / f"{number}.json"
                file.write_text(json.dumps(theirs))
                result = imported("envoy", str(file))
                socket = str(directory / "theirs" / str(number))
                await listening(proxy, socket)
                config = yaml.safe_load(result.text(str(file)))
                asked = await both(config, socket, backend, a, b, every=result.equivalent)
                found[name] = Shape(result.equivalent, config, asked)
            yield found


def together(all_of_theirs: dict[str, Json], directory: Path) -> Json:
    """One configuration with all listeners, each with its own clusters."""
    listeners, clusters = [], []
    for number, theirs in enumerate(all_of_theirs.values()):
        text = json.dumps(theirs["static_resources"])
        for cluster in theirs["static_resources"]["clusters"]:
            for key in ("name", "cluster_name", "cluster"):
                text = text.replace(f'"{key}": "{cluster["name"]}"', f'"{key}": "{cluster["name"]}-{number}"')
        resources = json.loads(text)
        resources["listeners"][0] |= {"name": str(number), "address": {"pipe": {"path": str(directory / str(number))}}}
        listeners += resources["listeners"]
        clusters += resources["clusters"]
    return {"static_resources": {"listeners": listeners, "clusters": clusters}}


def requests(a: ScriptedIssuer, b: ScriptedIssuer) -> Iterator[tuple[str, bytes]]:
    paths = ("/open", "/open/x", "/")
    yield from ((f"none {path}", request("GET", path)) for path in paths)
    yield "preflight", request("OPTIONS", "/", headers=PREFLIGHT)
    tokens = {
        "a": a.token(),
        "b": b.token(),
        "x": a.token(aud=[AUDIENCE, "x"]),
        "no exp": a.token(exp=None),
        "other audience": a.token(aud="y"),
        "bad": a.token()[:-9],
    }
    for kind, token in tokens.items():
        yield from ((f"{kind} {path}", request("GET", path, token=token)) for path in paths)
        yield f"{kind} in the query", request("GET", f"/open?access_token={token}")
        yield f"{kind} in a header", request("GET", "/open", headers=[("X-Token", token)])
        yield f"{kind} in a cookie", request("GET", "/open", headers=[("Cookie", f"c={token}")])


async def both(
    config: Json, socket: str, backend: RawBackend, a: ScriptedIssuer, b: ScriptedIssuer, *, every: bool
) -> dict[str, tuple[bool, bool | None]]:
    """Whether each request is accepted by the sidecar, and by Envoy (tried if the sidecar accepts it, or with `every`)."""
    ours = config | SETTINGS | {"upstream": backend.url, "access_log": "off"}  # a made-up upstream is replaced by hand
    sidecar = build(parse(json.dumps(ours)))
    try:
        await sidecar.start()
        asked: dict[str, tuple[bool, bool | None]] = {}
        for what, wire in requests(a, b):
            here = (await fetch(sidecar.proxy_address[:2], wire)).status == 200
            asked[what] = here, await gets_in(socket, wire) if here or every else None
        return asked
    finally:
        await sidecar.stop()


async def gets_in(socket: str, wire: bytes) -> bool:
    async with RawClient(*await asyncio.open_unix_connection(socket, limit=READ_LIMIT)) as client:
        try:
            return (await client.request(wire)).status == 200
        except (Truncated, ConnectionError):
            return False


@pytest.mark.parametrize("name", EQUIVALENT)
async def test_the_sidecar_accepts_the_same_requests_as_an_equivalent_envoy(
    name: str, shapes: dict[str, Shape]
) -> None:
    shape = shapes[name]
    assert shape.equivalent
    assert shape.config["listen"] == "127.0.0.1:8080"
    assert {what: gets_in for what, gets_in in shape.asked.items() if gets_in[0] != gets_in[1]} == {}
    assert any(here for here, _ in shape.asked.values())


@pytest.mark.parametrize("name", CLOSED)
async def test_the_sidecar_accepts_no_request_that_envoy_refuses(name: str, shapes: dict[str, Shape]) -> None:
    shape = shapes[name]
    assert not shape.equivalent
    assert {what for what, (here, there) in shape.asked.items() if here and not there} == set()


async def listening(proxy: Proxy, socket: str) -> None:
    async with patience("Envoy to listen"):
        while proxy.process.alive():
            try:
                _, writer = await asyncio.open_unix_connection(socket)
            except (ConnectionRefusedError, FileNotFoundError):
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return
    pytest.fail(proxy.process.output.read_text()[-1000:])


def configuration(port: int, backend: RawBackend, issuers: dict[str, ScriptedIssuer]) -> Json:
    """Envoy's configuration with these issuers as providers, and a rule for a token of either."""
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
    listener_ = {
        "address": envoy._address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "static_resources": {
            "listeners": [listener_],
            "clusters": [envoy._cluster(name, port) for name, port in clusters.items()],
        }
    }
