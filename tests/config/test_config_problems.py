"""Each refused setting of the configuration file, with its place and its sentence."""

from typing import Any

import pytest

from sidecar.config import Config, ConfigError, Issuer, parse
from sidecar.config.route import Route, check_hidden
from sidecar.config.yaml_source import Section
from tests.peers.cpu import least_cpu_s

ISSUERS = "issuers: {main: {issuer: https://idp.example/, audiences: [api]}}\n"
UPSTREAM = "upstream: http://127.0.0.1:9292\n"
ALGORITHMS = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, ES512, EdDSA"
ISSUER_KEYS = ", ".join(sorted(Issuer.keys()))
ROOT_KEYS = ", ".join(sorted(Config.keys()))


def problems(text: str, environ: dict[str, str] | None = None) -> list[str]:
    """The problems of a file, a line each, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        parse(text, environ=environ or {})
    lines = str(caught.value).split("\n")
    assert all(line.startswith("config.yaml:") for line in lines)
    return [line.removeprefix("config.yaml:") for line in lines]


def case(name: str, text: str, *expected: str) -> Any:
    """A file, or a part of one, and all its problems."""
    return pytest.param(text, list(expected), id=name)


# Problems by place. Each of these files has one problem, unless the list is longer.

# fmt: off
NOT_YAML = [
    case("empty", "", "1:1: must be a mapping of keys; the smallest file has `issuers` and `upstream`"),
    case("list", "- a", "1:1: must be a mapping of keys; the smallest file has `issuers` and `upstream`"),
    case("key without colon", "a: 1\nb", "2:1: a key needs a ':' after it; write `key: value`"),
    case("colon in value", "a: b: c",
         "1:5: a ':' is not allowed here; indent the keys of a block alike, quote a value with ': '"),
    case("tab", "a:\n\tb: 1", "2:1: a tab cannot indent in YAML; use spaces"),
    case("reserved character", "a: @b", "1:4: a value cannot begin with this character; put it in quotes"),
    case("item in line", "a: - b", "1:4: a '-' is not allowed here; begin each item of a list on a line of its own"),
    case("unquoted IPv6", "listen: [::1]:80", "1:10: a value is missing here; put one with any of : [ ] { } , in quotes"),
    case("text after mapping", "{a: b} c", "1:8: this does not match the lines above; indent the keys of a block alike"),
    case("text after list", "a: [b]c",
         "1:7: this does not match the lines above; indent the keys of a block alike, quote values like [a]b"),
    case("open bracket", "a: [b", "1:6: a ',' or the closing bracket is missing before this; in brackets ${VAR} needs quotes"),
    case("open quote", "a: 1\nb: 'c\nd", "2:4: this quoted text is not closed"),
    case("escape", 'a: "\\q"', "1:6: this escape does not exist in double quotes; use single quotes for a plain backslash"),
    case("escape beyond Unicode", 'a: "\\UFFFFFFFF"',
         "1:7: this escape does not exist in double quotes; use single quotes for a plain backslash"),
    case("star", "a: *.b", "1:5: a value that begins with * or & must be in quotes"),
    case("control character", "a: 1\nb: \0",
         "2:4: a control character is not allowed here; write it as an escape in double quotes"),
    case("YAML 2", "%YAML 2.0\n---\na: 1", "1:1: this is not valid YAML"),
    case("depth", "[" * 30, "1:22: nested more than 20 levels deep"),
]

STRICTER_THAN_YAML = [
    case("duplicate key", "listen: a:0\nlisten: :1", "4:1: listen: given twice; remove one (the first is on line 3)"),
    case("duplicate key below", "limits: {headers: 1, headers: [{}, a]}",
         "3:22: limits.headers: given twice; remove one (the first is on line 3)"),
    case("number as key", "1: a", "3:1: the key '1' is not text; put it in quotes"),
    case("boolean as key", "true: a", "3:1: the key 'true' is not text; put it in quotes"),
    case("no key", "? \n: a", "3:2: a key is missing before the ':'"),
    case("list as key", "? [a, {b: c}]\n: d", "3:3: a key must be plain text, without tag, anchor or alias"),
    case("anchor on key", "&a realm: b", "3:1: a key must be plain text, without tag, anchor or alias"),
    case("tag on key", "!a realm: b", "3:1: a key must be plain text, without tag, anchor or alias"),
    case("anchor", "realm: &a b", "3:8: realm: anchors are not allowed; quote the value if it begins with an &"),
    case("alias", "realm: *a", "3:8: realm: aliases are not allowed; write the value out, or quote it if it begins with a *"),
    case("tag", "realm: !a b", "3:8: realm: tags are not allowed; quote the value if it begins with a !"),
    case("tag on mapping", "limits: !!python/object:os.system {}",
         "3:1: limits: tags are not allowed; quote the value if it begins with a !"),
    case("two documents", "---\na: 1", "3:1: a second document begins here; the file may hold only one"),
    case("no value", "realm:", "3:7: realm: has no value; give it one, or leave the key out"),
    case("null", "realm: ~", "3:8: realm: has no value; give it one, or leave the key out"),
    case("no item", "routes: [null]", "3:10: routes.0: has no value; give it one, or leave the key out"),
    case("surrogate", 'realm: "\\uD800"', "3:8: realm: is not Unicode text: it holds half of a surrogate pair; remove it"),
    case("unknown variable", "realm: ${NAME}",
         "3:8: realm: the environment has no variable NAME; set it, or give a default: ${NAME:-...}"),
    case("other variable syntax", "realm: ${NAME:?no}",
         "3:8: realm: '${' begins a variable; write ${NAME} or ${NAME:-default}, or $${ for the characters themselves"),
]

ADDRESS = "is not host:port; write 127.0.0.1:8080, '[::1]:8080', or 0.0.0.0:8080 for all interfaces"
SIZE = "not a size; write a whole number of bytes, or one with its unit: 512KiB, 32MiB or 1GiB"
DURATION = "is not a duration; write a whole number with its unit: 500ms, 60s, 5m or 1h"
RESERVED = "is reserved: the proxy or the backend uses this header; choose another name"
CLAIM = "is not a claim or a path such as realm_access.roles; write \\. for a dot in a name, \\\\ for a backslash"
READ_ALIKE = "to backends that read _ and . as -; choose another name"
EMPTY = "is empty, which could mean all or none; add at least one"
NETWORK = "is not a network; write 10.0.0.0/8 (not 10.1.2.3/8) or fd00::/8"
WORKERS = "is not a number of workers; write a whole number from 1, or auto for one for each processor"

IN_THE_FILE = [
    case("misspelt key", "relm: a", "3:1: relm: unknown key; did you mean realm?"),
    case("unknown key", "qqq: a", f"3:1: qqq: unknown key; one of: {ROOT_KEYS}"),
    case("key of another section", "clock_skew: 1s", f"3:1: clock_skew: unknown key; one of: {ROOT_KEYS}"),
    case("name of the attribute", "timeouts: {idle_s: 1s}", "3:12: timeouts.idle_s: unknown key; did you mean idle?"),
    case("key with a line break", '"a\\nb": c', f"3:1: 'a\\nb': unknown key; one of: {ROOT_KEYS}"),
    case("port alone", "listen: 8080", f"3:9: listen: 8080 {ADDRESS}"),
    case("no host", "listen: :8080", f"3:9: listen: ':8080' {ADDRESS}"),
    case("star as host", "listen: '*:8080'", f"3:9: listen: '*:8080' {ADDRESS}"),
    case("IPv6 without brackets", "listen: ::1:8080", f"3:9: listen: '::1:8080' {ADDRESS}"),
    case("host with an empty part", "listen: a..b:1", f"3:9: listen: 'a..b:1' {ADDRESS}"),
    case("host with blank", "listen: a b:1", f"3:9: listen: 'a b:1' {ADDRESS}"),
    case("no IPv4 address", "listen: 1.2.3.400:1", "3:9: listen: '1.2.3.400:1' begins with an IP address that does not exist"),
    case("no IPv6 address", "listen: '[::g]:1'", f"3:9: listen: '[::g]:1' {ADDRESS}"),
    case("short IPv6 address", "listen: '[1:2]:1'", "3:9: listen: '[1:2]:1' begins with an IP address that does not exist"),
    case("port too high", "listen: localhost:65536",
         "3:9: listen: 'localhost:65536' ends in a port above 65535; use 1 to 65535, or 0 for a free port"),
    case("port of a default", "listen: 0.0.0.0:8081",
         "3:9: listen: has the port of health.listen; choose another, or 0 for a free port"),
    case("same address twice", "listen: a:1\nadmin: {listen: 'a:1'}",
         "4:17: admin.listen: has the port of listen; choose another, or 0 for a free port"),
    case("port on every address", "health: {listen: '127.0.0.1:1'}\nadmin: {listen: '0.0.0.0:1'}",
         "4:17: admin.listen: has the port of health.listen; choose another, or 0 for a free port"),
    case("port of IPv4 too", "health: {listen: '[::]:1'}\nadmin: {listen: '127.0.0.1:1'}",
         "4:17: admin.listen: has the port of health.listen; choose another, or 0 for a free port"),
    case("one address of a list", "listen: ['127.0.0.1:1', '8080']", f"3:25: listen.1: '8080' {ADDRESS}"),
    case("no address", "listen: []", "3:1: listen: is empty, which could mean all or none; add at least one"),
    case("one port in both kinds", "listen: ['[::]:1', '0.0.0.0:1']",
         "3:20: listen.1: has the port of listen.0; choose another, or 0 for a free port"),
    case("port on every IPv6 address", "health: {listen: '[::]:1'}\nadmin: {listen: '[::1]:1'}",
         "4:17: admin.listen: has the port of health.listen; choose another, or 0 for a free port"),
    case("text for keys", "health: 0.0.0.0:1", "3:9: health: must be a mapping of keys, not '0.0.0.0:1'"),
    case("forward-auth without a form", "trusted_proxies: [10.0.0.0/8]\nforward_auth: {}",
         "4:1: forward_auth.original: is missing; x-forwarded for Traefik and Caddy, x-original for nginx, path for Envoy"),
    case("forward-auth for nobody", "forward_auth: {original: path}",
         "3:1: forward_auth: needs trusted_proxies, since only those may ask; add the addresses of the front proxy"),
    case("forward-auth at a pattern", "trusted_proxies: [10.0.0.0/8]\nforward_auth: {original: path, path: /a/*}",
         "4:38: forward_auth.path: '/a/*' is not a prefix; write a path without a / at its end, such as /api"),
    case("metadata of no URL", "resource_metadata: {resource: api}",
         "3:31: resource_metadata.resource: must be a whole URL such as https://api.example"),
    case("metadata with query", "resource_metadata: {resource: 'https://api.test/?a'}",
         "3:31: resource_metadata.resource: 'https://api.test/?a' must not have a query, a fragment, quotes or "
         "backslashes: it goes into WWW-Authenticate"),
    case("traces without a collector", "tracing: {}",
         "3:1: tracing.endpoint: is missing; write it, such as http://127.0.0.1:4318/v1/traces"),
    case("probe without path", "health: {probes: {a: {}}}", "3:19: health.probes.a.path: is missing; write it, such as /health"),
    case("probe of a name", "health: {probes: {a: {path: x}}}",
         "3:29: health.probes.a.path: 'x' is not a path for a request; begin it with /, without spaces and #"),
    case("probe with fragment", "health: {probes: {a: {path: '/x#y'}}}",
         "3:29: health.probes.a.path: '/x#y' is not a path for a request; begin it with /, without spaces and #"),
    case("probe with line break", 'health: {probes: {a: {path: "/x\\n"}}}',
         "3:29: health.probes.a.path: '/x\\n' is not a path for a request; begin it with /, without spaces and #"),
    case("probe of an unknown upstream", "health: {probes: {a: {path: /, upstream: x}}}",
         "3:42: health.probes.a.upstream: 'x' is not an upstream of this file; one of: default"),
    case("readiness of an unknown probe", "health: {probes: {ab: {path: /}}, ready_probes: [a]}",
         "3:50: health.ready_probes.0: 'a' is not among the probes; one of: ab; did you mean ab?"),
    case("readiness without probes", "health: {ready_probes: [a]}",
         "3:25: health.ready_probes.0: 'a' is not among the probes; there are none"),
    case("list for keys", "identity_headers: [a]", "3:1: identity_headers: must be a mapping of keys, not a list"),
    case("list for upstreams", "upstreams: [a]", "3:1: upstreams: must be a mapping of keys, not a list"),
    case("number for keys", "admin: 5", "3:8: admin: must be a mapping of keys, not 5"),
    case("mapping for list", "routes: {a: b}", "3:1: routes: must be a list, not a mapping"),
    case("yes", "forward_token: yes", "3:16: forward_token: must be true or false, not 'yes'"),
    case("telling everybody", "error_detail: full",
         "3:15: error_detail: tells clients about the configuration, so it needs a listener on loopback; "
         "use minimal or code"),
    case("quoted true", "forward_token: 'true'", "3:16: forward_token: must be true or false, not 'true'"),
    case("1 for true", "forward_token: 1", "3:16: forward_token: must be true or false, not 1"),
    case("number for text", "realm: 0x1F", "3:8: realm: must be text; put 0x1F in quotes"),
    case("boolean for text", "realm: true", "3:8: realm: must be text; put true in quotes"),
    case("list for text", "realm: []", "3:1: realm: must be text, not a list"),
    case("empty realm", "realm: ''",
         '3:8: realm: must be printable ASCII, not empty, without " and \\: it goes into WWW-Authenticate in quotes'),
    case("quote in realm", 'realm: a"b',
         '3:8: realm: must be printable ASCII, not empty, without " and \\: it goes into WWW-Authenticate in quotes'),
    case("unknown choice", "access_log: jsn",
         "3:13: access_log: 'jsn' is not one of: json, ecs, combined, off"),
    case("false for off", "access_log: false", "3:13: access_log: false is not one of: json, ecs, combined, off"),
    case("no worker", "workers: 0", f"3:10: workers: 0 {WORKERS}"),
    case("workers true", "workers: true", f"3:10: workers: true {WORKERS}"),
    case("workers in words", "workers: all", f"3:10: workers: 'all' {WORKERS}"),
    case("half a worker", "workers: 1.5", f"3:10: workers: 1.5 {WORKERS}"),
    case("limit of 0", "limits: {headers: 0}", "3:19: limits.headers: must be at least 1, not 0"),
    case("quoted number", "limits: {headers: '5'}", "3:19: limits.headers: must be a whole number, not '5'"),
    case("number true", "limits: {headers: true}", "3:19: limits.headers: must be a whole number, not true"),
    case("fraction", "limits: {headers: 1.0}", "3:19: limits.headers: must be a whole number, not 1.0"),
    case("leading zero", "limits: {headers: 0123}", "3:19: limits.headers: must be a whole number, not '0123'"),
    case("size without unit", "token_cache: {bytes: 32 MB}",
         f"3:22: token_cache.bytes: '32 MB' is {SIZE}"),
    case("no size", "token_cache: {bytes: 0}",
         f"3:22: token_cache.bytes: 0 is {SIZE}"),
    case("duration without unit", "timeouts: {idle: 60}", f"3:18: timeouts.idle: 60 {DURATION}"),
    case("sexagesimal", "timeouts: {idle: 1:30}", f"3:18: timeouts.idle: '1:30' {DURATION}"),
    case("negative duration", "timeouts: {idle: -1s}", f"3:18: timeouts.idle: '-1s' {DURATION}"),
    case("half a second", "timeouts: {idle: 1.5s}", f"3:18: timeouts.idle: '1.5s' {DURATION}"),
    case("timeout of zero", "timeouts: {idle: 0s}", "3:18: timeouts.idle: must be more than zero"),
    case("host bits", "trusted_proxies: [10.0.0.1/8]", f"3:19: trusted_proxies.0: '10.0.0.1/8' {NETWORK}"),
    case("name for network", "trusted_proxies: [lb]", f"3:19: trusted_proxies.0: 'lb' {NETWORK}"),
    case("number for network", "trusted_proxies: [10]", f"3:19: trusted_proxies.0: 10 {NETWORK}"),
    case("false header", "claims_header: false", "3:16: claims_header: must be the name of a header, or the word off"),
    case("reserved claims header", "claims_header: Host", f"3:16: claims_header: {RESERVED}"),
    case("blank in claims header", "claims_header: x jwt",
         "3:16: claims_header: is not a header name: letters, digits and !#$%&'*+-.^_`|~ only"),
    case("claims header is an identity header", "claims_header: X-JWT-Sub",
         f"3:16: claims_header: is the identity header X-JWT-Sub {READ_ALIKE}"),
]

REFUSED_HEADERS = [
    "Connection", "Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Transfer-Encoding", "Upgrade", "Host",
    "Content-Length", "content_type", "Authorization", "Cookie", "X-Forwarded-For", "x.forwarded.user", "Forwarded",
    "X-Request-Id", "X-JWT-Status", "X-JWT-Sidecar", "X-Real-IP",
]  # fmt: skip

IDENTITY_HEADERS = [
    *[case(name, f"{name}: sub", f"3:20: identity_headers.{name}: {RESERVED}") for name in REFUSED_HEADERS],
    case("blank", "X User: sub",
         "3:20: identity_headers.X User: is not a header name: letters, digits and !#$%&'*+-.^_`|~ only"),
    case("empty name", "'': sub", "3:20: identity_headers.'': is not a header name: letters, digits and !#$%&'*+-.^_`|~ only"),
    case("same when folded", "X-A: sub, x_a: iss",
         f"3:30: identity_headers.x_a: is X-A {READ_ALIKE}"),
    case("the claims header", "X.JWT.Claims: sub",
         f"1:1: claims_header: is the identity header X.JWT.Claims {READ_ALIKE}"),
    case("no claim", "A: ''", f"3:23: identity_headers.A: '' {CLAIM}"),
    case("empty part", "A: a..b", f"3:23: identity_headers.A: 'a..b' {CLAIM}"),
    case("dot at the end", "A: a.", f"3:23: identity_headers.A: 'a.' {CLAIM}"),
    case("other escape", "A: a\\b", f"3:23: identity_headers.A: 'a\\\\b' {CLAIM}"),
    case("empty list", "A: []", f"3:20: identity_headers.A: {EMPTY}"),
    case("empty item", "A: [a, '']", "3:27: identity_headers.A.1: is empty"),
    case("number as claim", "A: [1]", "3:24: identity_headers.A.0: must be text; put 1 in quotes"),
    case("wrong mapping", "A: {a: b}", "3:20: identity_headers.A: names neither a claim nor a value",
         "3:24: identity_headers.A.a: unknown key; one of: claim, on_oversize, value"),
    case("number as path", "A: 1", f"3:23: identity_headers.A: 1 {CLAIM}"),
]

WHOLE_URL = "must be a whole URL such as https://idp.example/keys"
PLAIN_HTTP = "an attacker on the way can replace keys over plain http; use https, or set allow_http: true"
NO_DISCOVERY = "is not an http(s) URL, so keys cannot be discovered; add jwks_uri or jwks_file"
ISS = "must be the exact `iss` of the tokens, not empty, without white space"
FILE = "must be the path of a file; a relative path starts at the directory of this configuration"
AUDIENCES = "must be a list such as [my-api], or the word any to switch the check off"

IN_AN_ISSUER = [
    case("no audiences", "issuer: https://a/",
         "2:2: issuers.a.audiences: is missing; list the `aud` values that mean this backend, "
         "or write `audiences: any` to switch the check off"),
    case("no issuer", "audiences: any",
         "2:2: issuers.a.issuer: is missing; write the exact `iss` of the tokens, such as https://idp.example/"),
    case("empty audiences", "issuer: https://a/\n  audiences: []", f"4:3: issuers.a.audiences: {EMPTY}"),
    case("audience as text", "issuer: https://a/\n  audiences: api", f"4:14: issuers.a.audiences: {AUDIENCES}"),
    case("audience mapping", "issuer: https://a/\n  audiences: {}", f"4:3: issuers.a.audiences: {AUDIENCES}"),
    case("any in a list", "issuer: https://a/\n  audiences: [any]",
         "4:3: issuers.a.audiences: in a list 'any' is an audience like the others; "
         "write `audiences: any` to switch the check off"),
    case("empty audience", "issuer: https://a/\n  audiences: ['']", "4:15: issuers.a.audiences.0: is empty"),
    case("number as audience", "issuer: https://a/\n  audiences: [1]",
         "4:15: issuers.a.audiences.0: must be text; put 1 in quotes"),
    case("empty issuer", "issuer: ''\n  audiences: any", f"3:11: issuers.a.issuer: {ISS}"),
    case("blank in issuer", "issuer: https://a b\n  audiences: any", f"3:11: issuers.a.issuer: {ISS}"),
    case("no place for discovery", "issuer: idp\n  audiences: any", f"3:11: issuers.a.issuer: {NO_DISCOVERY}"),
    case("query in discovery", "issuer: https://a/?b\n  audiences: any", f"3:11: issuers.a.issuer: {NO_DISCOVERY}"),
    case("fragment in discovery", "issuer: https://a/#b\n  audiences: any", f"3:11: issuers.a.issuer: {NO_DISCOVERY}"),
    case("discovery over http", "issuer: http://a/\n  audiences: any", f"3:11: issuers.a.issuer: {PLAIN_HTTP}"),
]

KEYS_OF_AN_ISSUER = [
    case("no algorithm", "algorithms: []", f"5:3: issuers.a.algorithms: {EMPTY}"),
    case("unknown algorithm", "algorithms: [RS25]",
         f"5:16: issuers.a.algorithms.0: 'RS25' is not an algorithm; one of: {ALGORITHMS}; did you mean RS256?"),
    case("algorithm in lower case", "algorithms: [eddsa]",
         f"5:16: issuers.a.algorithms.0: 'eddsa' is not an algorithm; one of: {ALGORITHMS}; did you mean EdDSA?"),
    case("HS256", "algorithms: [RS256, HS256]",
         "5:23: issuers.a.algorithms.1: 'HS256' needs a shared secret, and a key set holds no secrets; "
         f"one of: {ALGORITHMS}"),
    case("none", "algorithms: [None]",
         "5:16: issuers.a.algorithms.0: 'None' would accept tokens without a signature, which anyone can forge; "
         f"one of: {ALGORITHMS}"),
    case("relative jwks_uri", "jwks_uri: keys", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("file as jwks_uri", "jwks_uri: file:///keys", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("ftp", "jwks_uri: ftp://a/keys", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("port 0", "jwks_uri: https://a:0/", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("empty port", "jwks_uri: https://a:/", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("port too high", "jwks_uri: https://a:99999/", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("no IPv6", "jwks_uri: https://[::g]/", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("not ASCII", "jwks_uri: https://a/ö", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("escape in host", "jwks_uri: https://a%41/", f"5:13: issuers.a.jwks_uri: {WHOLE_URL}"),
    case("password in jwks_uri", "jwks_uri: https://secret@a/",
         "5:13: issuers.a.jwks_uri: must not hold a user name or password: URLs are shown in logs"),
    case("fragment in jwks_uri", "jwks_uri: https://a/#b",
         "5:13: issuers.a.jwks_uri: must not have a fragment (#); clients never send it"),
    case("plain http", "jwks_uri: http://a/", f"5:13: issuers.a.jwks_uri: {PLAIN_HTTP}"),
    case("like loopback", "jwks_uri: http://127.0.0.1.a/", f"5:13: issuers.a.jwks_uri: {PLAIN_HTTP}"),
    case("HTTP in upper case", "jwks_uri: HTTP://a/", f"5:13: issuers.a.jwks_uri: {PLAIN_HTTP}"),
    case("other address", "jwks_uri: http://10.0.0.1/", f"5:13: issuers.a.jwks_uri: {PLAIN_HTTP}"),
    case("empty file name", "jwks_file: ''", f"5:14: issuers.a.jwks_file: {FILE}"),
    case("NUL in file name", 'jwks_file: "\\0"', f"5:14: issuers.a.jwks_file: {FILE}"),
    case("list of files", "jwks_file: [a]", f"5:3: issuers.a.jwks_file: {FILE}"),
    case("two places for keys", "jwks_uri: https://a/\n  jwks_file: b",
         "6:14: issuers.a.jwks_file: contradicts jwks_uri; keep one of the two"),
    case("no", "require_exp: no", "5:16: issuers.a.require_exp: must be true or false, not 'no'"),
    case("skew without unit", "clock_skew: 60", f"5:15: issuers.a.clock_skew: 60 {DURATION}"),
    case("refresh all the time", "refresh_interval: 0s", "5:21: issuers.a.refresh_interval: must be more than zero"),
    case("name", "name: b", f"5:3: issuers.a.name: unknown key; one of: {ISSUER_KEYS}"),
]

UPSTREAM_URL = "must be http://host:port, https://host:port or unix:///path/of.sock"
SOCKET = "must be unix:///path/of.sock with a path of at most 107 bytes, without escapes"
MORE_THAN_HOST = "must end after the host and port; the path and query come from each request"
NAME = "is not a name; use 1 to 63 letters, digits, '.', '_' and '-', beginning with a letter or digit"

ISSUERS_AND_UPSTREAMS = [
    case("no issuers", UPSTREAM, "1:1: issuers: is missing; add at least one issuer whose tokens are accepted, or api_keys"),
    case("empty issuers", f"{UPSTREAM}issuers: {{}}", f"2:1: issuers: {EMPTY}"),
    case("same issuer twice", f"{ISSUERS[:-2]}, b: {{issuer: https://idp.example/, audiences: any}}}}\n{UPSTREAM}",
         "1:79: issuers.b.issuer: is also an iss of main (line 1); remove one of the two"),
    case("name", UPSTREAM + "issuers: {a b: {issuer: https://a/, audiences: any}}", f"2:11: issuers.a b: {NAME}"),
    case("number for an issuer", f"{UPSTREAM}issuers: {{a: 5}}", "2:14: issuers.a: must be a mapping of keys, not 5"),
    case("number for an issuer with a wrong name", f"{UPSTREAM}issuers: {{a b: 5}}",
         f"2:11: issuers.a b: {NAME}", "2:16: issuers.a b: must be a mapping of keys, not 5"),
    case("two wrong issuers", f"{UPSTREAM}issuers: {{a: {{issuer: '', audiences: any}}, b: {{issuer: '', audiences: any}}}}",
         f"2:23: issuers.a.issuer: {ISS}", f"2:56: issuers.b.issuer: {ISS}"),
    case("no upstream", ISSUERS, "1:1: upstream: is missing; write http://127.0.0.1:9292, or several under `upstreams`"),
    case("other scheme", ISSUERS + "upstream: ftp://a", f"2:11: upstream: {UPSTREAM_URL}"),
    case("no scheme", ISSUERS + "upstream: 127.0.0.1:80", f"2:11: upstream: {UPSTREAM_URL}"),
    case("no host", ISSUERS + "upstream: http://:80", f"2:11: upstream: {UPSTREAM_URL}"),
    case("blank in URL", ISSUERS + "upstream: http://a b", f"2:11: upstream: {UPSTREAM_URL}"),
    case("backslash in URL", ISSUERS + "upstream: http://a\\b", f"2:11: upstream: {UPSTREAM_URL}"),
    case("empty part of a host", ISSUERS + "upstream: http://a..b", f"2:11: upstream: {UPSTREAM_URL}"),
    case("64 characters without a dot", ISSUERS + f"upstream: http://a.{'b' * 64}", f"2:11: upstream: {UPSTREAM_URL}"),
    case("path", ISSUERS + "upstream: http://a/b", f"2:11: upstream: {MORE_THAN_HOST}"),
    case("query", ISSUERS + "upstream: http://a?b", f"2:11: upstream: {MORE_THAN_HOST}"),
    case("fragment", ISSUERS + "upstream: http://a#b", f"2:11: upstream: {MORE_THAN_HOST}"),
    case("password", ISSUERS + "upstream: http://u:secret@a",
         "2:11: upstream: must not hold a user name or password: URLs are shown in logs"),
    case("relative socket", ISSUERS + "upstream: unix://run/a", f"2:11: upstream: {SOCKET}"),
    case("directory as socket", ISSUERS + "upstream: unix:///run/", f"2:11: upstream: {SOCKET}"),
    case("escape in socket", ISSUERS + "upstream: unix:///a%20b", f"2:11: upstream: {SOCKET}"),
    case("long socket", ISSUERS + f"upstream: unix:///{'a' * 107}", f"2:11: upstream: {SOCKET}"),
    case("upstream twice", f"{ISSUERS}{UPSTREAM}upstreams: {{default: {{url: 'http://a'}}}}",
         "3:13: upstreams.default: `upstream` on line 2 is this upstream too; remove one of the two"),
    case("no default upstream", ISSUERS + "upstreams: {a: {url: 'http://a'}, b: {url: 'http://b'}}",
         "2:1: upstreams: none is for requests without an upstream; name one `default`, or add `upstream: URL`"),
    case("empty upstreams", ISSUERS + "upstreams: {}",
         "2:1: upstreams: none is for requests without an upstream; name one `default`, or add `upstream: URL`"),
    case("upstream without url", ISSUERS + "upstreams: {a: {}}",
         "2:13: upstreams.a.url: is missing; write it, such as http://127.0.0.1:9292"),
    case("name of upstream", ISSUERS + "upstreams: {-: {url: 'http://a'}}", f"2:13: upstreams.-: {NAME}"),
]

MORE_THAN_A_PATH = (
    "is not a plain path; leave out query, fragment, %-escapes and parameters: A-Z a-z 0-9 / -._~!$&'()+,=:@"
)
FOLDED = "has an empty, . or .. segment, which programs read in different ways; write the plain path"
PATTERN = "has a **; write a final /* for everything at and below, a * elsewhere for a part of one segment"
CONTRADICTION = "which checks no token; remove one of the two"

ROUTES = [
    case("no path", "{}", "4:3: routes.0.path: needs exactly one of path and path_regex; such as path: /public/*"),
    case("path twice", "{path: /a, path_regex: /a}",
         "4:10: routes.0.path: needs exactly one of path and path_regex; such as path: /public/*"),
    case("no regex", "{path_regex: '/a('}",
         "4:16: routes.0.path_regex: '/a(' is not a regular expression of RE2: missing ): /a("),
    case("regex of too many", "{path_regex: '/id/[0-9]{99999999999}'}",
         "4:16: routes.0.path_regex: '/id/[0-9]{99999999999}' is not a regular expression of RE2: "
         "the { at character 9 is no repetition; write {1,5} for a repetition or \\{ for a brace"),
    case("regex of nothing to some", "{path_regex: '/a{,5}'}",
         "4:16: routes.0.path_regex: '/a{,5}' is not a regular expression of RE2: "
         "the { at character 2 is no repetition; write {1,5} for a repetition or \\{ for a brace"),
    case("regex of too many steps", "{path_regex: '/([^/]{1,200}){1,5}'}",
         "4:16: routes.0.path_regex: '/([^/]{1,200}){1,5}' is not a regular expression of RE2: "
         "it repeats too much: it compiles to 9004 steps, and the limit is 4000"),
    case("regex that looks back", "{path_regex: '/(a+)\\1'}",
         r"4:16: routes.0.path_regex: '/(a+)\\1' is not a regular expression of RE2: invalid escape sequence: \1"),
    case("regex that looks ahead", "{path_regex: '/(?!a)b'}",
         "4:16: routes.0.path_regex: '/(?!a)b' is not a regular expression of RE2: invalid perl operator: (?!"),
    case("long regex", "{path_regex: " + "a" * 257 + "}",
         "4:16: routes.0.path_regex: is longer than 256 characters; split it into several rules"),
    case("same regex twice", "{path_regex: /a+}\n- {path_regex: /a+}",
         "5:16: routes.1.path_regex: is never reached: routes.0 (line 4) matches all of its requests first; "
         "move it up or remove it"),
    case("host with port", "{path: /a, hosts: ['a:80']}",
         "4:22: routes.0.hosts.0: 'a:80' is not a host: a lower-case name without port, or *.example.com for every name "
         "below it"),
    case("h2c", "{path: /a, upgrades: [h2c]}",
         "4:25: routes.0.upgrades.0: 'h2c' would carry requests without verification; remove it"),
    case("no protocol", "{path: /a, upgrades: ['a b']}",
         "4:25: routes.0.upgrades.0: 'a b' is not a protocol's name in lower case, such as websocket"),
    case("prefix with a slash", "{path: /a/*, strip_prefix: /a/}",
         "4:30: routes.0.strip_prefix: '/a/' is not a prefix; write a path without a / at its end, such as /api"),
    case("other prefix", "{path: /a/*, strip_prefix: /b}",
         "4:30: routes.0.strip_prefix: is not a prefix of /a/*; write the beginning of the path"),
    case("relative path", "{path: a}", "4:10: routes.0.path: 'a' does not begin with /"),
    *[
        case(path, f"{{path: '{path}'}}", f"4:10: routes.0.path: {path!r} {text}")
        for path, text in [
            ("/a?b", MORE_THAN_A_PATH),
            ("/a#b", MORE_THAN_A_PATH),
            ("/a;b", MORE_THAN_A_PATH),
            ("/a%20b", MORE_THAN_A_PATH),
            ("/a b", MORE_THAN_A_PATH),
            ("/ä", MORE_THAN_A_PATH),
            ("/a\\b", MORE_THAN_A_PATH),
            ("//a", FOLDED),
            ("/a//*", FOLDED),
            ("/a/./b", FOLDED),
            ("/a/..", FOLDED),
            ("/../*", FOLDED),
            ("/**", PATTERN),
            ("/a**/b", PATTERN),
        ]
    ],
    case("no methods", "{path: /a, methods: []}", f"4:14: routes.0.methods: {EMPTY}"),
    case("method in lower case", "{path: /a, methods: [get]}",
         "4:24: routes.0.methods.0: 'get' is not a method; write it in upper case, such as GET"),
    case("blank in method", "{path: /a, methods: ['A B']}",
         "4:24: routes.0.methods.0: 'A B' is not a method; write it in upper case, such as GET"),
    case("TRACE", "{path: /a, methods: [TRACE]}",
         "4:24: routes.0.methods.0: 'TRACE' is refused on every path; remove it"),
    case("auth that is nearly the word that opens", "{path: /a, auth: nope}",
         "4:20: routes.0.auth: 'nope' is not one of: required, optional, api_key, none, deny"),
    case("unknown auth", "{path: /a, auth: off}",
         "4:20: routes.0.auth: 'off' is not one of: required, optional, api_key, none, deny"),
    case("unknown mode", "{path: /a, mode: reports}",
         "4:20: routes.0.mode: 'reports' is not one of: enforce, report"),
    case("no issuers", "{path: /a, issuers: []}", f"4:14: routes.0.issuers: {EMPTY}"),
    case("unknown issuer", "{path: /a, issuers: [man]}",
         "4:24: routes.0.issuers.0: 'man' is not an issuer of this file; one of: main; did you mean main?"),
    case("unknown upstream", "{path: /a, upstream: x}",
         "4:24: routes.0.upstream: 'x' is not an upstream of this file; one of: default"),
    case("empty require", "{path: /a, require: {}}",
         "4:14: routes.0.require: is empty, which could mean all or none; add at least one of: claims, roles, scopes"),
    case("no scopes", "{path: /a, require: {scopes: []}}", f"4:24: routes.0.require.scopes: {EMPTY}"),
    case("two scopes in one", "{path: /a, require: {scopes: [a b]}}",
         "4:33: routes.0.require.scopes.0: 'a b' is not a scope; "
         "write one word of printable ASCII for each item, without quotes and backslashes"),
    case("none requires", "{path: /a, auth: none, require: {scopes: [a]}}",
         f"4:26: routes.0.require: contradicts auth: none, {CONTRADICTION}"),
    case("deny with issuers", "{path: /a, auth: deny, issuers: [main]}",
         f"4:26: routes.0.issuers: contradicts auth: deny, {CONTRADICTION}"),
    case("none reports", "{path: /a, auth: none, mode: report}",
         "4:32: routes.0.mode: contradicts auth: none, which refuses nothing; remove one of the two"),
]

# fmt: on

HIDDEN = [
    pytest.param([("/a", "GET"), ("/a/*", "PUT"), ("/a", "PUT")], "routes.1 (line 5)", id="same path and method"),
    pytest.param([("/a",), ("/a",)], "routes.0 (line 4)", id="same path"),
    pytest.param([("/a/*",), ("/a",)], "routes.0 (line 4)", id="the prefix without its last slash"),
    pytest.param([("/a/*",), ("/a/b/*",)], "routes.0 (line 4)", id="a prefix below the prefix"),
    pytest.param([("/*",), ("/",)], "routes.0 (line 4)", id="everything"),
    pytest.param([("/*",), ("/*",)], "routes.0 (line 4)", id="everything twice"),
    pytest.param([("/a", "GET", "PUT"), ("/a", "GET")], "routes.0 (line 4)", id="one of the earlier methods"),
    pytest.param([("/a",), ("/a", "GET")], "routes.0 (line 4)", id="a rule for all methods before one method"),
    pytest.param([("/a", "GET"), ("/a", "HEAD")], "routes.0 (line 4)", id="GET covers HEAD"),
    pytest.param(
        [("/a", "HEAD"), ("/a", "POST"), ("/a", "GET", "POST"), ("/a", "GET")],
        "routes.0 (line 4) or routes.2 (line 6)",
        id="HEAD and POST covered, then GET by a later rule",
    ),
    pytest.param([("/b*",), ("/b*",)], "routes.0 (line 4)", id="the same pattern twice"),
    pytest.param([("/a/*",), ("/a/b*/c",)], "routes.0 (line 4)", id="a pattern below the prefix"),
    pytest.param(
        [("/a/*", "GET"), ("/a", "PUT"), ("/a", "PUT", "GET")],
        "routes.0 (line 4) or routes.1 (line 5)",
        id="two rules cover it together",
    ),
]

SEEN = [
    pytest.param([("/a",), ("/a/*",)], id="a prefix after one of its paths"),
    pytest.param([("/a/*",), ("/ab",)], id="another path with the same beginning"),
    pytest.param([("/a/*",), ("/*",)], id="a wider prefix"),
    pytest.param([("/a", "GET"), ("/a",)], id="all methods after one"),
    pytest.param([("/a", "HEAD"), ("/a", "GET")], id="HEAD does not cover GET"),
    pytest.param([("/a*/*",), ("/ab/c",)], id="a path that an earlier pattern covers: patterns are not compared"),
    pytest.param([("/a", "GET"), ("/a", "GET", "PUT")], id="a further method"),
    pytest.param([("/a", "GET"), ("/b", "PUT"), ("/a", "GET", "PUT")], id="the further method was of another path"),
]


def routes(rules: list[tuple[str, ...]]) -> str:
    lines = [
        f"- {{path: {path}{', methods: [' + ', '.join(methods) + ']' if methods else ''}}}" for path, *methods in rules
    ]
    return "\n".join(["routes:", *lines])


@pytest.mark.parametrize(("text", "expected"), NOT_YAML)
def test_invalid_yaml_is_one_problem_at_its_place(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(("text", "expected"), [*STRICTER_THAN_YAML, *IN_THE_FILE])
def test_an_invalid_setting_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}{text}\n") == expected


@pytest.mark.parametrize(("text", "expected"), IDENTITY_HEADERS)
def test_an_invalid_identity_header_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}identity_headers: {{{text}}}") == expected


@pytest.mark.parametrize(("text", "expected"), IN_AN_ISSUER)
def test_an_invalid_issuer_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"issuers:\n a:\n  {text}\n{UPSTREAM}") == expected


@pytest.mark.parametrize(("text", "expected"), KEYS_OF_AN_ISSUER)
def test_an_invalid_key_of_an_issuer_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"issuers:\n a:\n  issuer: https://a/\n  audiences: any\n  {text}\n{UPSTREAM}") == expected


@pytest.mark.parametrize(("text", "expected"), ISSUERS_AND_UPSTREAMS)
def test_an_invalid_set_of_issuers_or_upstreams_is_reported(text: str, expected: list[str]) -> None:
    assert problems(text) == expected


@pytest.mark.parametrize(("text", "expected"), ROUTES)
def test_an_invalid_route_is_reported(text: str, expected: list[str]) -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}routes:\n- {text}") == expected


@pytest.mark.parametrize(("rules", "hiding"), HIDDEN)
def test_a_route_hidden_by_earlier_routes_is_refused(rules: list[tuple[str, ...]], hiding: str) -> None:
    number = len(rules) - 1
    text = f"is never reached: {hiding} matches all of its requests first; move it up or remove it"
    assert problems(f"{ISSUERS}{UPSTREAM}{routes(rules)}") == [f"{number + 4}:10: routes.{number}.path: {text}"]


@pytest.mark.parametrize("rules", SEEN)
def test_a_route_that_some_request_reaches_is_accepted(rules: list[tuple[str, ...]]) -> None:
    assert len(parse(ISSUERS + UPSTREAM + routes(rules)).routes) == len(rules)


@pytest.mark.parametrize(
    ("hosts", "hidden"),
    [
        ([None, ["a"]], True), ([["a", "b"], ["b"]], True), ([["b", "a"], ["a", "b"]], True), ([["a"], ["a", "b"]], False),
        ([["a"], ["b"]], False), ([["a"], None], False),
    ],
)  # fmt: skip
def test_a_rule_is_hidden_by_an_earlier_rule_for_all_of_its_hosts(hosts: list[list[str] | None], hidden: bool) -> None:
    rules = [f"- {{path: /x{', hosts: ' + str(names) if names else ''}}}" for names in hosts]
    text = ISSUERS + UPSTREAM + "\n".join(["routes:", *rules])
    if hidden:
        assert "is never reached" in problems(text)[0]
    else:
        assert len(parse(text).routes) == 2


def test_the_search_for_hidden_rules_takes_linear_time() -> None:
    def fastest(number: int) -> float:
        no_file: Any = None
        made = [(Section(no_file, ("routes", one)), Route(path=f"/a/b{one}/*")) for one in range(number)]
        return least_cpu_s(lambda: check_hidden(made), number=1, repeat=5)

    assert fastest(4000) < 12 * fastest(1000)


def test_all_problems_are_reported_together() -> None:
    text = """\
issuers:
  a:
    issuer: https://a/
    audiences: [x]
    clock_skew: 5
    jwks_uri: https://a/keys
    jwks_file: keys
  b: {issuer: https://a/, audience: [y], algorithms: [RS256, x]}
  d: 5
listen: 127.0.0.1:9901
listen: a
upstream: http://a/b
upstreams: {default: {url: 'http://a'}}
identity_headers: {Host: sub, X_JWT_Claims: a..b}
unknown: *x
routes:
  - {path: /a/*, forward_token: x}
  - {path: /a/b, methods: [get], issuers: [c]}
  - {path: /a/c, mode: y, auth: none, require: {scopes: []}}
  - {path: a, methods: [GET]}
  - /a
  - {path: /b, upstream: c}
  - {path: /b}
"""
    assert [problem.split(": ")[0] + " " + problem.split(": ")[1] for problem in problems(text)] == [
        "1:1 claims_header",
        "5:17 issuers.a.clock_skew",
        "7:16 issuers.a.jwks_file",
        "8:3 issuers.b.audiences",
        "8:15 issuers.b.issuer",
        "8:27 issuers.b.audience",
        "8:62 issuers.b.algorithms.1",
        "9:6 issuers.d",
        "10:9 listen",
        "11:1 listen",
        "12:11 upstream",
        "13:13 upstreams.default",
        "14:20 identity_headers.Host",
        "14:45 identity_headers.X_JWT_Claims",
        "15:1 unknown",
        "15:10 unknown",
        "17:33 routes.0.forward_token",
        "18:28 routes.1.methods.0",
        "18:44 routes.1.issuers.0",
        "19:12 routes.2.path",
        "19:24 routes.2.mode",
        "19:39 routes.2.require",
        "19:49 routes.2.require.scopes",
        "20:12 routes.3.path",
        "21:5 routes.4",
        "22:26 routes.5.upstream",
        "23:12 routes.6.path",
    ]


def test_an_invalid_key_causes_no_further_problem() -> None:
    text = f"{ISSUERS}upstreams: [a]\nclaims_header: [a]\nhealth: a\nadmin: {{listen: a}}\nroutes:\n"
    text += (
        "- {path: /a, methods: [get]}\n- {path: /a, auth: x, require: {scopes: [a]}, issuers: [main], upstream: b}\n"
    )
    assert [problem.split(": ")[1] for problem in problems(text)] == [
        "upstreams", "claims_header", "health", "admin.listen", "routes.0.methods.0", "routes.1.auth",
    ]  # fmt: skip


def test_unreadable_issuers_and_upstreams_cause_no_problem_of_their_users() -> None:
    text = "issuers: 5\nupstreams: 6\nroutes: [{path: /a, issuers: [b], upstream: c}]"
    assert [problem.split(": ")[1] for problem in problems(text)] == ["issuers", "upstreams"]


def test_the_content_of_a_variable_is_not_shown() -> None:
    text = f"{ISSUERS}{UPSTREAM}access_log: ${{A}}\nlisten: '${{A}}:${{B:-x}}'\nworkers: ${{N}}"
    assert problems(text, {"A": "hunter2", "N": "0"}) == [
        "3:13: access_log: '${A}' is not one of: json, ecs, combined, off",
        f"4:9: listen: '${{A}}:${{B:-x}}' {ADDRESS}",
        f"5:10: workers: ${{N}} {WORKERS}",
    ]


def test_a_quoted_variable_is_text_and_an_empty_variable_is_no_value() -> None:
    environ = {"BOOL": "true", "EMPTY": ""}
    assert problems(f"{ISSUERS}{UPSTREAM}forward_token: '${{BOOL}}'\nrealm: ${{EMPTY}}", environ) == [
        "3:16: forward_token: must be true or false, not '${BOOL}'",
        "4:8: realm: has no value; give it one, or leave the key out",
    ]


def test_long_values_are_cut_in_problems() -> None:
    assert problems(f"{ISSUERS}{UPSTREAM}access_log: {'a' * 99}") == [
        f"3:13: access_log: '{'a' * 40}...' is not one of: json, ecs, combined, off"
    ]
