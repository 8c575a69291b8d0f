"""What is known of some issuers: where their keys are, how they sign, and which header brings their tokens.

A preset only fills in what the file leaves out, so whatever is written there wins. `{issuer}` stands for the issuer's URL.
"""

from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, WithJsonSchema

from sidecar.config.addresses import web_url
from sidecar.config.key_place import SECRET_SOURCES, SOURCES
from sidecar.config.values import SECRET_ALGORITHMS, nearest

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a cluster puts a pod's own credentials


class Preset(NamedTuple):
    """The keys of one issuer as the file would have them; `fetch` are those that belong to its own `jwks_uri`."""

    jwks_uri: str
    algorithms: tuple[str, ...]
    token_header: str | None = None
    fetch: Mapping[str, object] = {}


PRESETS = {
    # https://zuplo.com/docs/programmable-api/jwt-service-plugin
    "zuplo": Preset("{issuer}/.well-known/jwks.json", ("EdDSA", "RS256")),
    # https://developers.cloudflare.com/cloudflare-one/access-controls/applications/http-apps/authorization-cookie/validating-json/
    "cloudflare_access": Preset("{issuer}/cdn-cgi/access/certs", ("RS256",), "Cf-Access-Jwt-Assertion"),
    # https://www.pomerium.com/docs/capabilities/getting-users-identity; its `iss` is a bare host unless jwt_issuer_format is uri
    "pomerium": Preset("{issuer}/.well-known/pomerium/jwks.json", ("ES256",), "X-Pomerium-Jwt-Assertion"),
    # https://cloud.google.com/iap/docs/signed-headers-howto
    "google_iap": Preset("https://www.gstatic.com/iap/verify/public_key-jwk", ("ES256",), "X-Goog-Iap-Jwt-Assertion"),
    # https://auth0.com/docs/get-started/applications/signing-algorithms; its third one, HS256, is not for key sets
    "auth0": Preset("{issuer}/.well-known/jwks.json", ("RS256", "PS256")),
    # https://www.keycloak.org/securing-apps/oidc-layers; RS256 is what a new realm signs with
    "keycloak": Preset("{issuer}/protocol/openid-connect/certs", ("RS256",)),
    # https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    "kubernetes": Preset(
        "https://kubernetes.default.svc/openid/v1/jwks",
        ("RS256", "ES256", "ES384", "ES512"),
        fetch={"jwks_bearer_token_file": f"{_ACCOUNT}/token", "jwks_tls": {"ca_file": f"{_ACCOUNT}/ca.crt"}},
    ),
}


def filled_in(written: Mapping[str, object]) -> dict[str, object]:
    """An issuer's keys with those that its preset or its kind of key decides, where the file does not have them."""
    values: dict[str, object] = {}
    name = written.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is not None:
        values["algorithms"] = list(preset.algorithms)
        # The credentials of a preset are for its own place of keys, and for nobody else's.
        if not any(source in written for source in SOURCES):
            jwks_uri = preset.jwks_uri.replace("{issuer}", _url(written.get("issuer")))
            if _is_web_url(jwks_uri):
                values |= {"jwks_uri": jwks_uri, **preset.fetch}
    if any(source in written for source in SECRET_SOURCES):
        values["algorithms"] = list(SECRET_ALGORITHMS)
    return {**values, **written}


def _url(issuer: object) -> str:
    text = issuer.rstrip("/") if isinstance(issuer, str) else ""
    return text if "://" in text else f"https://{text}"


def _is_web_url(text: str) -> bool:
    try:
        web_url(text)
    except ValueError:
        return False
    return True


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"{{input}} is not a preset; one of: {', '.join(PRESETS)}{nearest(name, PRESETS)}")
    return name


PresetName = Annotated[str, AfterValidator(_preset), WithJsonSchema({"enum": list(PRESETS)})]
