"""Converts the rest of Envoy's configuration around `jwt_authn`: the plain form, or comments about work by hand."""

import re
from collections.abc import Iterator
from typing import Any

from sidecar.cli.convert.reading import UPSTREAM, Fields, Imported, camel_case
from sidecar.common.encoding import host_and_port

_READ = object()  # converted elsewhere, or without effect on requests; may be missing
_NAMED = object()  # no equivalent and no effect on access; may be missing
_ADDRESS = {"socket_address": {"protocol": "?TCP", "address": _READ, "port_value": _READ}}
_CLUSTER: dict[str, Any] = {
    "name": _READ,
    "type": "?STATIC|STRICT_DNS|LOGICAL_DNS",
    "connect_timeout": _NAMED,
    "lb_policy": _NAMED,
    "dns_lookup_family": _NAMED,
    "load_assignment": {
        "cluster_name": _READ,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _ADDRESS}}]}],
    },
}


def _plain(jwt_authn: dict[str, Any]) -> dict[str, Any]:
    """The form of a configuration that does nothing besides `jwt_authn`: all requests go unchanged to one backend.

    A text is a pattern; after a ? it may be missing. Lists have the same number of items, and mappings no other keys.
    """
    route = {"match": {"prefix": "/"}, "route": {"cluster": _READ, "timeout": _NAMED}}
    manager = {
        "@type": r".*\.HttpConnectionManager",
        "stat_prefix": _READ,
        "codec_type": "?AUTO|auto|HTTP1|http1",
        "access_log": _NAMED,
        "route_config": {
            "name": _READ,
            "virtual_hosts": [{"name": _READ, "domains": [r"\*"], "routes": [route]}],
        },
        "http_filters": [
            {"name": _READ, "typed_config": jwt_authn},
            {"name": _READ, "typed_config": {"@type": r".*\.http\.router\..*"}},
        ],
    }
    filters = [{"name": _READ, "typed_config": manager}]
    listener = {"name": _READ, "address": _ADDRESS, "filter_chains": [{"name": _READ, "filters": filters}]}
    return {
        "admin": _NAMED,
        "node": _NAMED,
        "static_resources": {"listeners": [listener], "clusters": _READ},
    }


def mappings(document: object) -> Iterator[dict[str, Any]]:
    """Every mapping in the document."""
    if isinstance(document, dict):
        yield document
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from mappings(item)


def surroundings(documents: list[object], filters: list[dict[str, Any]], imported: Imported) -> None:
    """Convert Envoy's listener and its one route, if it does nothing else."""
    for further in filters[1:]:
        imported.close("http_filters", f"{len(filters)} jwt_authn filters, each for different requests")
        imported.quote({"rules": further.get("rules")})
    if len(documents) > 1:
        imported.close("the file", f"holds {len(documents)} documents; Envoy reads one")
    if len(documents) == 1 and _unwrapped(documents[0]) is filters[0]:
        imported.remark("the file", "holds only the filter; Envoy may refuse or change requests by other settings")
        imported.remark("upstream", f"the filter does not name the backend; replace {UPSTREAM}")
        return
    beyond = list(_beyond(documents[0], _plain(filters[0]), "", imported))
    for place in beyond:
        imported.close(place)
    if beyond:
        imported.remark("upstream", f"replace {UPSTREAM}, and check listen: neither is in the file")
        return
    resources = Fields(documents[0], "").fields("static_resources")
    (listener,) = resources.items("listeners")
    listening = list(addresses(listener.take("address")))
    if len(listening) == 1:
        imported.config["listen"] = listening[0]
    else:
        imported.close("static_resources.listeners.0.address", "does not name the address for clients")
    manager = listener.items("filter_chains")[0].items("filters")[0].fields("typed_config")
    host = manager.fields("route_config").items("virtual_hosts")[0]
    wanted = host.items("routes")[0].fields("route").text("cluster")
    backends = []
    for cluster in _list_of_mappings(resources.take("clusters")):
        if cluster.get("name") == wanted:
            backends.append(cluster)
        else:
            imported.remark(
                f"clusters.{cluster.get('name')}", "is not needed; keys are fetched from the host of their URI"
            )
    for place in [place for one in backends for place in _beyond(one, _CLUSTER, f"clusters.{wanted}", imported)]:
        imported.close(place)
    found = [address for one in backends for address in addresses(one)]
    if len(backends) == 1 and len(found) == 1:
        imported.config["upstream"] = f"http://{found[0]}"
    else:
        imported.close(f"clusters.{wanted}", f"has no address, or several; replace {UPSTREAM}")


def _unwrapped(document: object) -> object:
    """The content of an item of `http_filters`, alone or in a list; else the document."""
    if isinstance(document, list) and len(document) == 1:
        document = document[0]
    if isinstance(document, dict) and document.keys() <= {"name", "typed_config", "typedConfig"}:
        return document.get("typed_config", document.get("typedConfig"))
    return document


def _list_of_mappings(value: object) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _beyond(found: object, plain: object, where: str, imported: Imported) -> Iterator[str]:
    """The places where a configuration differs from the plain one."""
    if found is plain or plain is _READ:
        return
    if plain is _NAMED:
        imported.remark(where, "is not imported; it has no effect on access")
    elif isinstance(plain, dict) and isinstance(found, dict):
        names = {spelled: name for name in plain for spelled in (name, camel_case(name))}
        for key, value in found.items():
            if key in names and not (names[key] != key and names[key] in found):
                yield from _beyond(value, plain[names[key]], f"{where}.{key}".lstrip("."), imported)
            else:
                yield f"{where}.{key}".lstrip(".")
        for name, value in plain.items():
            optional = not isinstance(value, dict | list | str) or str(value).startswith("?")
            if not optional and name not in found and camel_case(name) not in found:
                yield f"{where}.{name}".lstrip(".")
    elif isinstance(plain, list) and isinstance(found, list) and len(plain) == len(found):
        for number, (item, wanted) in enumerate(zip(found, plain, strict=True)):
            yield from _beyond(item, wanted, f"{where}.{number}", imported)
    elif isinstance(found, list) and (
        names_of := [str(one["name"]) for one in _list_of_mappings(found) if "name" in one]
    ):
        yield f"{where} ({', '.join(names_of)})"
    elif not (isinstance(plain, str) and isinstance(found, str) and re.fullmatch(plain.removeprefix("?"), found)):
        yield where or "the file"


def addresses(document: object) -> Iterator[str]:
    """The host:port of every address below."""
    for one in mappings(document):
        host, port = one.get("address"), one.get("port_value", one.get("portValue"))
        if isinstance(host, str) and isinstance(port, str):
            yield host_and_port(host, port)
