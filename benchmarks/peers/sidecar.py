"""jwt-sidecar with all default features, except where the setting says otherwise."""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.certificate import CERTIFICATE, KEY
from benchmarks.issuer import AUDIENCE
from benchmarks.peers import Missing, Peer
from benchmarks.peers.installed import first_line
from benchmarks.setting import CLAIM_HEADERS, CLAIMS_HEADER, Setting

_PROGRAM = Path(sys.executable).with_name("jwt-sidecar")


def version() -> str:
    """The one installed beside this interpreter."""
    if not _PROGRAM.exists():
        raise Missing(f"{_PROGRAM.name} is not installed beside {os.path.basename(sys.executable)}: make install")
    return first_line(str(_PROGRAM), "--version")


def command(workers: int, setting: Setting, port: int, directory: Path) -> list[str]:
    """The configuration is JSON, which is YAML."""
    config: dict[str, Any] = {
        "listen": f"127.0.0.1:{port}",
        "health": {"listen": "127.0.0.1:0"},
        "admin": {"listen": "127.0.0.1:0"},
        "issuers": {
            issuer.name: {"issuer": issuer.iss, "jwks_uri": issuer.jwks_uri, "audiences": [AUDIENCE]}
            for issuer in setting.issuers
        },
        "upstream": f"http://127.0.0.1:{setting.origin}",
        "identity_headers": CLAIM_HEADERS,
        "claims_header": CLAIMS_HEADER if setting.claims_header else "off",
        "access_log": "json" if setting.access_log else "off",
        "workers": workers,
        "routes": [{"path": f"{prefix}*", "issuers": [issuer.name]} for prefix, issuer in setting.routes],
    }
    if not setting.routes:
        del config["routes"]
    if setting.tls:
        config["tls"] = {"cert_file": CERTIFICATE, "key_file": KEY}
    (directory / "sidecar.yaml").write_text(json.dumps(config, indent=2))
    return [str(_PROGRAM), "run", "-c", "sidecar.yaml"]


PEER = Peer("jwt-sidecar", "jwt-sidecar, one worker", "sidecar.yaml", version, functools.partial(command, 1))
TWO_WORKERS = Peer("2 workers", "jwt-sidecar, two workers", "sidecar.yaml", version, functools.partial(command, 2))
