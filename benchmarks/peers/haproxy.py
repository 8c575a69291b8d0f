"""HAProxy with `jwt_verify` and the documented `jwt_payload_query` for each claim. Takes one issuer, one key."""

from pathlib import Path

from benchmarks.issuer import AUDIENCE
from benchmarks.peers import Peer
from benchmarks.peers.installed import find, first_line
from benchmarks.setting import CLAIM_HEADERS, CLOCK_SKEW_S, Setting

_CONFIG = """\
global
    nbthread 1
    maxconn 4096
    %(log_global)s
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout server 1h
    %(log_defaults)s
frontend proxy
    bind 127.0.0.1:%(port)d
    http-request set-var(txn.token) http_auth_bearer
    http-request set-var(txn.alg) var(txn.token),jwt_header_query('$.alg')
    http-request set-var(txn.iss) var(txn.token),jwt_payload_query('$.iss')
    http-request set-var(txn.aud) var(txn.token),jwt_payload_query('$.aud')
    http-request set-var(txn.exp) var(txn.token),jwt_payload_query('$.exp','int')
    http-request set-var(txn.now) date()
    http-request deny deny_status 401 unless { var(txn.alg) -m str %(algorithm)s }
    http-request deny deny_status 401 unless { var(txn.token),jwt_verify(txn.alg,"key.pem") 1 }
    http-request deny deny_status 401 unless { var(txn.iss) -m str %(issuer)s }
    http-request deny deny_status 401 unless { var(txn.aud) -m str %(audience)s }
    http-request deny deny_status 401 unless { var(txn.exp),add(%(skew)d),sub(txn.now) -m int ge 0 }
%(headers)s
    http-request del-header Authorization
    default_backend origin
backend origin
    server origin 127.0.0.1:%(origin)d
"""


def version() -> str:
    """From the machine's own packages."""
    words = first_line(find("haproxy"), "-v").split()
    return f"HAProxy {words[2]}"


def command(setting: Setting, port: int, directory: Path) -> list[str]:
    """One thread."""
    (issuer,) = setting.issuers
    (directory / "key.pem").write_text(issuer.public_pem)
    headers = [
        f"    http-request set-header {header} %[var(txn.token),jwt_payload_query('$.{claim}')]"
        for header, claim in CLAIM_HEADERS.items()
    ]
    (directory / "haproxy.cfg").write_text(
        _CONFIG
        % {
            "port": port,
            "origin": setting.origin,
            "algorithm": issuer.algorithm,
            "issuer": issuer.iss,
            "audience": AUDIENCE,
            "skew": CLOCK_SKEW_S,
            "headers": "\n".join(headers),
            "log_global": "log stdout format raw daemon info" if setting.access_log else "# no log",
            "log_defaults": "log global\n    option httplog" if setting.access_log else "# no log",
        }
    )
    return [find("haproxy"), "-db", "-f", "haproxy.cfg"]


PEER = Peer("haproxy", "HAProxy, jwt_verify", "haproxy.cfg", version, command)
