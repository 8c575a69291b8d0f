"""OAuth 2.0 Protected Resource Metadata (RFC 9728): tells a refused client which issuers' tokens are accepted."""

from collections.abc import Collection
from typing import Any
from urllib.parse import urlsplit

from sidecar.gateway.local_endpoints import Page, Reply, Request, cacheable
from sidecar.http.cors import could_be_preflight
from sidecar.policy.routes import Auth, Route

WELL_KNOWN = "/.well-known/oauth-protected-resource"
# Pages of any origin may read it; with their own headers they send a preflight first.
CORS = {"Access-Control-Allow-Origin": "*"}
PREFLIGHT = {**CORS, "Access-Control-Allow-Methods": "GET", "Access-Control-Allow-Headers": "*"}


def metadata_url(resource: str) -> str:
    """The URL of a resource's metadata: the resource's path follows the well-known path (section 3.1)."""
    parts = urlsplit(resource)
    return parts._replace(path=WELL_KNOWN + ("" if parts.path == "/" else parts.path)).geturl()


class ResourceMetadata:
    """The metadata page; `issuers` are the `iss` values of the accepted issuers."""

    def __init__(
        self, resource: str, issuers: Collection[str], *, in_query: bool, scopes: Collection[str], name: str | None
    ) -> None:
        self._document: dict[str, Any] = {
            "resource": resource,
            "authorization_servers": [issuer for issuer in issuers if issuer.startswith(("https://", "http://"))],
            "bearer_methods_supported": ["header", "query"] if in_query else ["header"],
        }
        if scopes:
            self._document["scopes_supported"] = list(scopes)
        if name is not None:
            self._document["resource_name"] = name
        path = urlsplit(metadata_url(resource)).path
        self.pages = {path: Page(Route(path, auth=Auth.NONE, name="(metadata)"), self._answer, "metadata")}

    def _answer(self, request: Request, _body: bytes) -> Reply:
        head = request.head
        if head.method == "OPTIONS" and could_be_preflight(head, head.target):
            return Reply(204, PREFLIGHT, b"")
        reply = cacheable(head, self._document)
        return reply._replace(headers={**reply.headers, **CORS})
