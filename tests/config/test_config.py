"""The configuration file: its meaning, and that no text raises anything but ConfigError."""

import hashlib
import json
import os
import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from docs.command_line import command_line
from docs.reference import reference
from sidecar.config import Address, Config, ConfigError, Limits, Timeouts, json_schema, load, parse

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config.yaml"
SCHEMA = ROOT / "docs" / "config.schema.json"

ISSUERS = "issuers: {main: {issuer: https://idp.example/, audiences: [api]}}\n"
UPSTREAM = "upstream: http://127.0.0.1:9292\n"
ALGORITHMS = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"


def file(text: str) -> Config:
    """The smallest file and one more key."""
    return parse(f"{ISSUERS}{UPSTREAM}{text}\n", environ={})


# Accepted files and their meaning.


def test_a_configuration_has_the_digest_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(EXAMPLE.read_bytes())
    digest = load(path, {}).digest
    assert digest == hashlib.sha256(EXAMPLE.read_bytes()).hexdigest()[:16]
    path.write_bytes(EXAMPLE.read_bytes() + b"# a word\n")
    assert load(path, {}).digest != digest


def test_the_smallest_file_has_every_default() -> None:
    config = file("")
    assert (config.listen, config.health.listen) == ((Address("0.0.0.0", 8080),), Address("0.0.0.0", 8081))
    assert config.admin.listen == Address("127.0.0.1", 9901)
    assert config.identity_headers == {"X-JWT-Sub": ("sub",), "X-JWT-Iss": ("iss",), "X-JWT-Scope": ("scope",)}
    assert (config.claims_header, config.forward_token, config.access_log) == ("X-JWT-Claims", False, "json")
    assert (config.workers, config.trusted_proxies, config.realm, config.routes) == (1, (), "jwt-sidecar", ())
    assert (config.timeouts, config.limits) == (Timeouts(), Limits())
    issuer = config.issuers["main"]
    assert (issuer.name, issuer.issuer, issuer.audiences) == ("main", "https://idp.example/", ("api",))
    assert (issuer.jwks_uri, issuer.jwks_file, issuer.allow_http) == (None, None, False)
    assert ", ".join(issuer.algorithms) == ALGORITHMS
    assert (issuer.clock_skew_s, issuer.require_exp, issuer.required) == (60.0, True, None)
    assert (issuer.refresh_interval_s, issuer.max_stale_s) == (600.0, 3600.0)
    timeouts = config.timeouts
    assert (timeouts.connect_s, timeouts.response_headers_s, timeouts.idle_s) == (2.0, 60.0, 300.0)
    assert (timeouts.request_headers_s, timeouts.keep_alive_s) == (10.0, 75.0)
    assert (timeouts.drain_delay_s, timeouts.shutdown_s) == (5.0, 30.0)
    limits = config.limits
    assert (limits.header_bytes, limits.headers, limits.connections) == (32768, 100, 10000)
    assert (limits.in_flight, limits.upstream_connections) == (1000, 1000)
    assert (limits.upstream_header_bytes, limits.upstream_headers, limits.buffered_bytes) == (
        65536,
        128,
        64 * 1024 * 1024,
    )


def test_a_route_has_every_default() -> None:
    (route,) = file("routes: [{path: /a}]").routes
    assert (route.path, route.methods, route.auth, route.issuers) == ("/a", None, "required", None)
    assert (route.require, route.mode, route.upstream, route.forward_token) == (None, None, None, None)


def test_a_route_has_the_values_of_the_file() -> None:
    (route,) = file(
        "routes: [{path: /a/*, methods: [GET, PROPFIND], auth: optional, issuers: [main], mode: report, "
        "require: {scopes: [a, b]}, upstream: default, forward_token: true}]"
    ).routes
    assert (route.path, route.methods, route.auth, route.issuers) == (
        "/a/*",
        ("GET", "PROPFIND"),
        "optional",
        ("main",),
    )
    assert route.require is not None
    assert route.require.scopes.all == ("a", "b")
    assert (route.mode, route.upstream, route.forward_token) == ("report", "default", True)


@pytest.mark.parametrize("path", ["/", "/*", "/a", "/a/", "/a/*", "/a.b/..c/~d/e:f@g,h=i+j!k$l&m'n(o)"])
def test_canonical_paths_are_accepted(path: str) -> None:
    assert file(f'routes: [{{path: "{path}"}}]').routes[0].path == path


@pytest.mark.parametrize(
    ("text", "seconds"), [("0s", 0.0), ("500ms", 0.5), ("60s", 60.0), ("5m", 300.0), ("1h", 3600.0)]
)
def test_durations_are_seconds(text: str, seconds: float) -> None:
    assert file(f"timeouts: {{drain_delay: {text}}}").timeouts.drain_delay_s == seconds


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("512KiB", 524288), ("32MiB", 33554432), ("1GiB", 1 << 30)])
def test_sizes_are_bytes(text: str, size: int) -> None:
    assert file(f"token_cache: {{bytes: {text}}}").token_cache.most_bytes == size


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1", 80)),
        ("localhost:0", Address("localhost", 0)),
        ("localhost.:80", Address("localhost.", 80)),
        ("'[::1]:65535'", Address("::1", 65535)),
    ],
)
def test_listen_is_host_and_port(text: str, address: Address) -> None:
    assert file(f"listen: {text}").listen == (address,)
    assert str(address) == text.strip("'")


def test_listen_accepts_several_addresses_and_normalizes_them() -> None:
    config = file("listen: ['127.0.0.1:80', '[0:0::0]:81']")
    assert [str(address) for address in config.listen] == ["127.0.0.1:80", "[::]:81"]


@pytest.mark.parametrize(
    ("one", "other"), [("127.0.0.1:0", "127.0.0.1:0"), ("127.0.0.1:1", "127.0.0.2:1"), ("0.0.0.0:1", "[::1]:1")]
)
def test_two_listeners_at_different_addresses_are_accepted(one: str, other: str) -> None:
    config = file(f"listen: '{one}'\nadmin: {{listen: '{other}'}}")
    assert (str(config.listen[0]), str(config.admin.listen)) == (one, other)


@pytest.mark.parametrize(
    ("url", "scheme", "host", "port", "path"),
    [
        ("http://127.0.0.1:9292", "http", "127.0.0.1", 9292, ""),
        ("http://a_b.example/", "http", "a_b.example", 80, ""),
        ("https://[::1]", "https", "::1", 443, ""),
        ("unix:///run/app.sock", "unix", "", 0, "/run/app.sock"),
        (f"unix:///{'a' * 106}", "unix", "", 0, f"/{'a' * 106}"),
    ],
)
def test_an_upstream_is_a_host_or_a_socket(url: str, scheme: str, host: str, port: int, path: str) -> None:
    upstream = parse(f"{ISSUERS}upstream: {url}").upstreams["default"]
    assert (upstream.name, upstream.url) == ("default", url)
    assert (upstream.scheme, upstream.host, upstream.port, upstream.path) == (scheme, host, port, path)


@pytest.mark.parametrize(
    ("text", "names", "default"),
    [
        (UPSTREAM, ["default"], "default"),
        ("upstreams: {a: {url: 'http://a'}}", ["a"], "a"),
        ("upstreams: {a: {url: 'http://a'}, default: {url: 'http://b'}}", ["a", "default"], "default"),
        ("upstream: http://a\nupstreams: {b: {url: 'http://b'}}", ["b", "default"], "default"),
    ],
)
def test_one_upstream_is_for_requests_without_a_route(text: str, names: list[str], default: str) -> None:
    config = parse(ISSUERS + text)
    assert sorted(config.upstreams) == names
    assert [upstream.name for upstream in config.upstreams.values()] == list(config.upstreams)
    assert config.default_upstream == default


def test_the_upstreams_of_one_file_do_not_appear_in_the_next() -> None:
    parse(ISSUERS + UPSTREAM)
    assert list(parse(ISSUERS + "upstreams: {a: {url: 'http://a'}}").upstreams) == ["a"]


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1", "127.9.9.9:80", "[::1]:80"])
def test_keys_may_be_fetched_over_plain_http_from_loopback(host: str) -> None:
    text = f"issuers: {{a: {{issuer: x, jwks_uri: 'http://{host}/keys', audiences: any}}}}\n{UPSTREAM}"
    assert parse(text).issuers["a"].jwks_uri == f"http://{host}/keys"


def test_the_url_of_keys_may_have_a_query() -> None:
    text = f"issuers: {{a: {{issuer: x, jwks_uri: 'https://a/keys?b', audiences: any}}}}\n{UPSTREAM}"
    assert parse(text).issuers["a"].jwks_uri == "https://a/keys?b"


def test_keys_may_be_fetched_over_plain_http_with_allow_http() -> None:
    issuer = parse(f"issuers: {{a: {{issuer: http://a/, audiences: any, allow_http: true}}}}\n{UPSTREAM}").issuers["a"]
    assert issuer.allow_http


def test_audiences_any_disables_the_audience_check() -> None:
    assert parse(f"issuers: {{a: {{issuer: https://a/, audiences: any}}}}\n{UPSTREAM}").issuers["a"].audiences is None


def test_a_key_file_is_relative_to_the_directory_of_the_configuration(tmp_path: Path) -> None:
    text = f"issuers: {{a: {{issuer: x, audiences: any, jwks_file: keys.json}}}}\n{UPSTREAM}"
    (tmp_path / "config.yaml").write_text(text)
    assert load(tmp_path / "config.yaml").issuers["a"].jwks_file == tmp_path / "keys.json"
    assert parse(text, base=Path("/etc/x")).issuers["a"].jwks_file == Path("/etc/x/keys.json")
    assert parse(text).issuers["a"].jwks_file == Path.cwd() / "keys.json"
    absolute = text.replace("keys.json", "/run/keys.json")
    assert parse(absolute).issuers["a"].jwks_file == Path("/run/keys.json")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sub", ("sub",)),
        ("realm_access.roles", ("realm_access", "roles")),
        ("kubernetes\\.io.namespace", ("kubernetes.io", "namespace")),
        ("a\\\\.b", ("a\\", "b")),
        ("[kubernetes.io, 'a\\b']", ("kubernetes.io", "a\\b")),
    ],
)
def test_a_claim_path_is_read_as_a_list_of_keys(text: str, path: tuple[str, ...]) -> None:
    assert file(f"identity_headers: {{A: {text}}}").identity_headers == {"A": path}


def test_off_auto_and_networks_are_converted() -> None:
    config = file(
        "claims_header: off\naccess_log: off\nworkers: auto\nidentity_headers: {}\ntrusted_proxies: [10.0.0.0/8, '::1']"
    )
    assert (config.claims_header, config.access_log, config.identity_headers) == (None, "off", {})
    assert config.workers == os.cpu_count()
    assert config.trusted_proxies == (ip_network("10.0.0.0/8"), ip_network("::1/128"))
    assert file("workers: 3\nclaims_header: X-All").workers == 3


@pytest.mark.parametrize(
    "text", ["on", "yes", "no", "1:30", "0123", "1_000", "2026-01-01", ".inf", "1e", "0b1", "=", "<<"]
)
def test_scalars_that_only_yaml_1_1_converts_are_text(text: str) -> None:
    assert file(f"realm: {text}").realm == text


@pytest.mark.parametrize(("text", "number"), [("0x10", 16), ("0o17", 15), ("+5", 5), ("5", 5)])
def test_whole_numbers_are_read_as_in_yaml_1_2(text: str, number: int) -> None:
    assert file(f"limits: {{headers: {text}}}").limits.headers == number


def test_variables_are_replaced_before_a_value_gets_its_type() -> None:
    environ = {"N": "5", "BOOL": "true", "REALM": "a: [b]", "EMPTY": "", "PORT": "81"}
    config = parse(
        f"""{ISSUERS}{UPSTREAM}
limits:
  headers: ${{N}}
  connections: ${{X:-7}}
  in_flight: ${{N:-7}}
forward_token: ${{BOOL}}
realm: ${{REALM}} $$ $${{N}} $x ${{EMPTY:-d}}
listen: "127.0.0.1:${{PORT}}"
""",
        environ=environ,
    )
    assert (config.limits.headers, config.limits.connections, config.limits.in_flight) == (5, 7, 5)
    assert config.forward_token is True
    assert config.realm == "a: [b] $ ${N} $x d"
    assert config.listen[0].port == 81


def test_a_configuration_is_immutable() -> None:
    config = file("")
    with pytest.raises(ValueError, match="frozen"):
        config.realm = "x"  # type: ignore[misc]
    with pytest.raises(ValueError, match="frozen"):
        config.issuers["main"].require_exp = False  # type: ignore[misc]


# The file itself.


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    for path, text in [(tmp_path / "no.yaml", "No such file or directory"), (tmp_path, "Is a directory")]:
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: cannot be read: {text}"


def test_a_bug_in_reading_the_file_is_reported_as_a_problem(tmp_path: Path) -> None:
    class Faulty(dict[str, str]):
        def __contains__(self, _: object) -> bool:
            raise RecursionError("secret")

    path = tmp_path / "config.yaml"
    path.write_text(ISSUERS + "upstream: ${X}\n")
    with pytest.raises(ConfigError) as caught:
        load(path, Faulty())
    assert str(caught.value) == (
        f"{path}:1:1: cannot be read: the sidecar has a bug here (RecursionError); undo the last change and report the bug"
    )


def test_a_file_that_is_not_utf_8_is_a_problem(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value) == f"{path}:2:4: this byte is not UTF-8 text"


def test_a_byte_order_mark_and_windows_line_endings_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + (ISSUERS + UPSTREAM).replace("\n", "\r\n").encode())
    assert load(str(path), environ={}).default_upstream == "default"


def test_problems_have_their_place_and_the_order_of_the_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse(f"zzz: 1\n{ISSUERS}{UPSTREAM}realm: 5\n", source="x/y.yaml")
    assert [(p.source, p.line, p.column, p.path) for p in caught.value.problems] == [
        ("x/y.yaml", 1, 1, "zzz"),
        ("x/y.yaml", 4, 8, "realm"),
    ]


def test_the_published_schema_equals_the_schema_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == json_schema(), "python -m docs.reference"
    assert SCHEMA.read_text() == json.dumps(json_schema(), indent=2) + "\n"


def test_the_reference_is_generated_from_the_schema() -> None:
    page = ROOT / "docs" / "reference" / "configuration.md"
    cure = "python -m docs.reference"
    assert page.read_text() == reference(json_schema()) + "\n", cure
    titles = re.findall(r"^## `(.*)`$", page.read_text(), re.MULTILINE)
    anchors = {re.sub(r"[^a-z0-9_-]", "", title.lower()) for title in titles}
    assert set(re.findall(r"\]\(#(.*?)\)", page.read_text())) <= anchors
    assert len(titles) == len(anchors) == len(json_schema()["$defs"])


def test_the_reference_of_the_command_line_is_generated_from_its_parser() -> None:
    assert (ROOT / "docs" / "reference" / "cli.md").read_text() == command_line(), "python -m docs.reference"


def keys_of_the_schema() -> list[tuple[str, str, dict[str, Any]]]:
    schema = json_schema()
    sections = {"Config": schema, **schema["$defs"]}
    return [(name, key, entry) for name, section in sections.items() for key, entry in section["properties"].items()]


def test_every_key_of_the_schema_is_described_and_none_may_be_null() -> None:
    assert [(name, key) for name, key, entry in keys_of_the_schema() if not entry.get("description")] == []
    assert "null" not in json.dumps(json_schema())


def test_the_example_loads_and_dev_runs_it() -> None:
    config = load(EXAMPLE, environ={})
    assert [str(address) for address in (*config.listen, config.health.listen, config.admin.listen)] == [
        "0.0.0.0:8080", "0.0.0.0:8081", "127.0.0.1:9901",
    ]  # fmt: skip
    assert config.issuers["zuplo"].issuer == "http://127.0.0.1:9400/__zuplo/issuer"
    assert config.issuers["zuplo"].audiences == ("my-api",)
    assert config.upstreams["default"].url == "http://127.0.0.1:9292"
    public, admin = config.routes
    assert (public.path, public.auth) == ("/public/*", "none")
    assert (admin.path, admin.require and admin.require.scopes.all) == ("/admin/*", ("admin",))
    assert EXAMPLE.read_text().startswith(f"# yaml-language-server: $schema={SCHEMA.relative_to(ROOT)}\n")


EXAMPLES = {("Config", "issuers"), ("Config", "routes")}


@pytest.mark.parametrize(
    ("section", "key", "entry"),
    [pytest.param(*found, id=f"{found[0]}.{found[1]}") for found in keys_of_the_schema()],
)
def test_the_example_shows_every_key_with_its_default(section: str, key: str, entry: dict[str, Any]) -> None:
    example = yaml.safe_load(EXAMPLE.read_text())
    places = {
        "Config": example,
        "Health": example["health"],
        "Admin": example["admin"],
        "Timeouts": example["timeouts"],
        "Limits": example["limits"],
        "Issuer": example["issuers"]["zuplo"],
        "Route": example["routes"][0] | example["routes"][1],
        "Require": example["routes"][1]["require"],
        "TokenCache": example["token_cache"],
    }
    place = places.get(section, {})
    if key not in place:
        shown = re.findall(rf"^ *# +(?:- )?{{?{key}:(?: (.*?))?}}?(?:  +#.*)?$", EXAMPLE.read_text(), re.MULTILINE)
        assert shown
        if entry.get("default"):
            assert entry["default"] in [yaml.safe_load(value) for value in shown]
    elif "default" in entry and (section, key) not in EXAMPLES:
        assert place[key] == entry["default"]


# Any text becomes Config or ConfigError.

KEYS = st.sampled_from(sorted({key for _, key, _ in keys_of_the_schema()} | {"default", "zuplo", "X-A"}))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.dates(), st.binary(max_size=4),
    st.sampled_from(
        ["any", "off", "auto", "5s", "/a/*", "/", "http://[", "http://a", "https://\ud800", "unix:///a", "${A}", "$$", "${A:-b}",
         "[::1]:1", "a:99999", "1.1.1.1/33", "none", "GET", "a.b", "\\", "*", "&a", "!a"]
    ),
)  # fmt: skip
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5))


def only_config_errors(text: str) -> None:
    try:
        config = parse(text, environ={"A": "x"})
    except ConfigError as error:
        if not str(error).encode("utf-8"):
            pytest.fail("no problem was reported")
    else:
        assert config.default_upstream in config.upstreams


@given(st.text())
def test_any_text_becomes_a_configuration_or_problems(text: str) -> None:
    only_config_errors(text)


@given(st.dictionaries(KEYS, TREES, max_size=5))
def test_any_yaml_tree_becomes_a_configuration_or_problems(tree: dict[str, object]) -> None:
    only_config_errors(yaml.dump(tree, allow_unicode=True))


@given(st.data())
def test_any_change_of_a_good_file_becomes_a_configuration_or_problems(data: st.DataObject) -> None:
    text = (
        f"{ISSUERS}{UPSTREAM}routes:\n- {{path: /a, auth: none}}\n- path: /b/*\n  require: {{scopes: [x]}}\nworkers: 5"
    )
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 8)))
    only_config_errors(text[:start] + data.draw(st.text("[]{}:,-*&!|>'\"\\%@`#?~ \t\nax0$", max_size=4)) + text[end:])
