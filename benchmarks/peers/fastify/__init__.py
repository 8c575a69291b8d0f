"""fastify with @fastify/http-proxy and fast-jwt (its cache on), from npm. Takes one issuer, one key."""

import json
import shutil
import subprocess
from pathlib import Path

from benchmarks.issuer import AUDIENCE
from benchmarks.peers import Missing, Peer
from benchmarks.peers.installed import find, first_line
from benchmarks.setting import CLAIM_HEADERS, CLOCK_SKEW_S, Setting

_HERE = Path(__file__).parent


def version() -> str:
    """Installs the packages of the lock file on the first use."""
    node = find("node")
    if not (_HERE / "node_modules" / "fastify").exists():
        install = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
        if shutil.which("npm") is None or subprocess.run(install, cwd=_HERE, check=False).returncode:
            raise Missing("npm cannot install benchmarks/peers/fastify")
    packages = json.loads((_HERE / "package.json").read_text())["dependencies"]
    return ", ".join([f"node {first_line(node, '--version')}", *(f"{name} {at}" for name, at in packages.items())])


def command(setting: Setting, port: int, directory: Path) -> list[str]:
    """One process; its settings are a JSON file beside server.mjs."""
    (issuer,) = setting.issuers
    config = {
        "port": port,
        "upstream": f"http://127.0.0.1:{setting.origin}",
        "issuer": issuer.iss,
        "jwksUri": issuer.jwks_uri,
        "audience": AUDIENCE,
        "algorithm": issuer.algorithm,
        "clockSkewMs": CLOCK_SKEW_S * 1000,
        "claimHeaders": {header.lower(): claim for header, claim in CLAIM_HEADERS.items()},
        "accessLog": setting.access_log,
    }
    (directory / "fastify.json").write_text(json.dumps(config, indent=2))
    return [find("node"), str(_HERE / "server.mjs"), "fastify.json"]


PEER = Peer("fastify", "fastify, @fastify/http-proxy, fast-jwt with cache", "fastify.json", version, command)
