"""Builds the package with the modules on a request's way compiled by mypyc: `python deploy/compiled.py bdist_wheel`.

Run it where pyproject.toml is, which says everything else about the package.
"""

import asyncio
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup

COMPILED = (
    "common/deadlines", "common/histogram", "common/masking",
    "http/chunked", "http/forwarded", "http/framing", "http/grammar", "http/head_cache", "http/header_policy",
    "http/message_reader", "http/request_head", "http/response_head", "http/responses", "http/websocket_frames",
    "jwt/claim_checks", "jwt/claim_rules", "jwt/claims", "jwt/compact_jws", "jwt/examination", "jwt/issuer", "jwt/subjects",
    "jwt/token_cache", "jwt/token_checks",
    "jwt/token_extractor", "jwt/token_places", "jwt/verifier",
    "policy/access_policy", "policy/granted", "policy/identity_headers", "policy/routes",
    "gateway/api_keys", "gateway/assertion", "gateway/token_minter",
    "observability/access_lines", "observability/access_log", "observability/counters", "observability/record",
    "observability/rejection_log", "observability/telemetry",
    "proxy/authentication", "proxy/body_limit", "proxy/client_connection", "proxy/client_limits", "proxy/connection",
    "proxy/exchange", "proxy/forward_auth", "proxy/handler", "proxy/lingering_close", "proxy/local_answers",
    "proxy/request_id", "proxy/request_relay", "proxy/resources", "proxy/response_relay", "proxy/retry", "proxy/serving",
    "proxy/tunnel", "proxy/upgrade", "proxy/upstream_connection", "proxy/upstream_pool",
)  # fmt: skip

# A compiled class is laid out after its base. That is safe only if the base has no fields.
assert asyncio.BufferedProtocol.__basicsize__ == object.__basicsize__

paths = [str(Path("sidecar", f"{name}.py")) for name in COMPILED]
extensions = mypycify(paths, opt_level="3", debug_level="0", group_name="jwt_sidecar")
for extension in extensions:
    extension.extra_compile_args += ["-fvisibility=hidden", "-fno-plt"]  # so that calls take no detour
setup(ext_modules=extensions)
