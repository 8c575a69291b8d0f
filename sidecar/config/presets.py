"""What is known of some issuers: their `iss`, where their keys are, how they sign, what their claims mean, where tokens come.

In the texts of a preset `{name}` stands for what the file says of the issuer, and `{url}` for its `issuer` as a URL.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, WithJsonSchema

from sidecar.config.values import nearest

Keys = Mapping[str, Any]

_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # where a cluster puts a pod's own credentials
_BEARER = {"header": "Authorization"}
_OF_ID_TOKENS = ["nonce", "at_hash", "c_hash"]  # OpenID Connect Core sections 2 and 3.3.2.11: no access token has them


class Preset(NamedTuple):
    """The keys of one issuer as the file would have them; `fetch` are those that belong to its own place of keys.

    `asks` are the keys that only the user knows, `may` others that it uses; `more` makes keys of them that no text can say.
    `slash`: whether its `iss` ends with one; None where it may or may not. Either spelling is understood.
    """

    keys: Keys
    asks: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    more: Callable[[Keys], Keys] | None = None
    token_from: tuple[Mapping[str, str], ...] = (_BEARER,)
    fetch: Keys = MappingProxyType({})
    slash: bool | None = None


def url_of(issuer: object) -> str:
    text = issuer.rstrip("/") if isinstance(issuer, str) else ""
    return text if "://" in text else f"https://{text}"


def _equals(claim: str, value: str) -> Keys:
    return {"claims": {claim: {"equals": value}}}


def _entra(given: Keys) -> Keys:
    tenants = given.get("tenant")
    if isinstance(tenants, str) and tenants != "any":
        return {}
    filled: dict[str, Any] = {
        "issuer": "https://login.microsoftonline.com/{tid}/v2.0",
        "issuer_aliases": ["https://sts.windows.net/{tid}/"],
        "jwks_uri": "https://login.microsoftonline.com/common/discovery/v2.0/keys",
    }
    return filled if tenants == "any" or not tenants else {**filled, "require": {"claims": {"tid": {"in": tenants}}}}


def _b2c(given: Keys) -> Keys:
    """`https://HOST/TENANT/v2.0/` -> one key set for each policy (user flow)."""
    base = url_of(given.get("issuer")).removesuffix("/v2.0")
    policies = given.get("policies") or ()
    first, *others = [f"{base}/{policy}/discovery/v2.0/keys" for policy in policies] or [""]
    return {"jwks_uri": first, "more_keys": [{"jwks_uri": uri} for uri in others]}


def _cognito(given: Keys) -> Keys:
    use = given.get("token_use") or "access"
    audience = "aud" if use == "id" else "client_id"
    return {"audience_claims": [audience], "require": _equals("token_use", use)}


def _keycloak(given: Keys) -> Keys:
    client = given.get("client")
    return {"role_claims": ["realm_access.roles", ["resource_access", client, "roles"]]} if client else {}


def _okta(given: Keys) -> Keys:
    url = url_of(given.get("issuer"))
    return {"jwks_uri": f"{url}/v1/keys" if "/oauth2/" in url else f"{url}/oauth2/v1/keys"}  # custom server, org server


def _github(given: Keys) -> Keys:
    owner, _, name = str(given.get("repository")).partition("/")
    return {"require": _equals("repository_owner", owner) if name == "*" else _equals("repository", f"{owner}/{name}")}


def _google(given: Keys) -> Keys:
    domain = given.get("domain")
    return {"require": _equals("hd", domain)} if domain else {}


PRESETS: Mapping[str, Preset] = {
    # https://zuplo.com/docs/programmable-api/jwt-service-plugin
    "zuplo": Preset({"jwks_uri": "{url}/.well-known/jwks.json", "algorithms": ["EdDSA", "RS256"]}),
    # https://developers.cloudflare.com/cloudflare-one/access-controls/applications/http-apps/authorization-cookie/validating-json/
    "cloudflare_access": Preset(
        {"jwks_uri": "{url}/cdn-cgi/access/certs", "algorithms": ["RS256"]},
        token_from=({"header": "Cf-Access-Jwt-Assertion"}, {"cookie": "CF_Authorization"}),
        slash=False,
    ),
    # https://www.pomerium.com/docs/capabilities/getting-users-identity; its `iss` is a bare host unless jwt_issuer_format is uri
    "pomerium": Preset(
        {"jwks_uri": "{url}/.well-known/pomerium/jwks.json", "algorithms": ["ES256"]},
        token_from=({"header": "X-Pomerium-Jwt-Assertion"},),
    ),
    # https://cloud.google.com/iap/docs/signed-headers-howto
    "google_iap": Preset(
        {
            "issuer": "https://cloud.google.com/iap",
            "jwks_uri": "https://www.gstatic.com/iap/verify/public_key-jwk",
            "algorithms": ["ES256"],
        },
        token_from=({"header": "X-Goog-Iap-Jwt-Assertion"},),
    ),
    # https://auth0.com/docs/get-started/applications/signing-algorithms; its third one, HS256, is not for key sets
    "auth0": Preset({"jwks_uri": "{url}/.well-known/jwks.json", "algorithms": ["RS256", "PS256"]}, slash=True),
    # https://www.keycloak.org/securing-apps/oidc-layers; RS256 is what a new realm signs with
    "keycloak": Preset(
        {
            "jwks_uri": "{url}/protocol/openid-connect/certs",
            "algorithms": ["RS256"],
            "reject_claims": ["at_hash"],  # of its ID tokens alone
        },
        may=("client",),
        more=_keycloak,
        slash=False,
    ),
    # https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    "kubernetes": Preset(
        {
            "jwks_uri": "https://kubernetes.default.svc/openid/v1/jwks",
            "algorithms": ["RS256", "ES256", "ES384", "ES512"],
        },
        fetch={"jwks_bearer_token_file": f"{_ACCOUNT}/token", "jwks_tls": {"ca_file": f"{_ACCOUNT}/ca.crt"}},
    ),
    # https://developer.okta.com/docs/guides/validate-access-tokens/
    "okta": Preset(
        {"algorithms": ["RS256"], "reject_claims": _OF_ID_TOKENS, "role_claims": ["groups"]}, more=_okta, slash=False
    ),
    # https://learn.microsoft.com/entra/identity-platform/access-tokens; one tenant, a list of them, or any
    "entra": Preset(
        {
            "issuer": "https://login.microsoftonline.com/{tenant}/v2.0",
            "issuer_aliases": ["https://sts.windows.net/{tenant}/"],
            "jwks_uri": "https://login.microsoftonline.com/{tenant}/discovery/v2.0/keys",
            "algorithms": ["RS256"],
            "reject_claims": _OF_ID_TOKENS,
            "role_claims": ["roles"],
        },
        asks=("tenant",),
        more=_entra,
    ),
    # https://learn.microsoft.com/azure/active-directory-b2c/tokens-overview
    "entra_b2c": Preset({"algorithms": ["RS256"]}, asks=("policies",), more=_b2c, slash=True),
    # https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken
    "google": Preset(
        {
            "issuer": "https://accounts.google.com",
            "issuer_aliases": ["accounts.google.com"],
            "jwks_uri": "https://www.googleapis.com/oauth2/v3/certs",
            "algorithms": ["RS256"],
        },
        may=("domain",),
        more=_google,
    ),
    # https://cloud.google.com/iam/docs/create-short-lived-credentials-direct; `iss` is the account's address
    "google_service_account": Preset(
        {
            "jwks_uri": "https://www.googleapis.com/robot/v1/metadata/x509/{issuer}",
            "algorithms": ["RS256"],
        },
    ),
    # https://firebase.google.com/docs/auth/admin/verify-id-tokens
    "firebase": Preset(
        {
            "issuer": "https://securetoken.google.com/{project}",
            "audiences": ["{project}"],
            "jwks_uri": "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
            "algorithms": ["RS256"],
            "required_claims": ["sub", "auth_time"],
        },
        asks=("project",),
    ),
    # https://firebase.google.com/docs/auth/admin/manage-cookies
    "firebase_session": Preset(
        {
            "issuer": "https://session.firebase.google.com/{project}",
            "audiences": ["{project}"],
            "jwks_uri": "https://www.googleapis.com/identitytoolkit/v3/relyingparty/publicKeys",
            "algorithms": ["RS256"],
            "required_claims": ["sub", "auth_time"],
        },
        asks=("project",),
        token_from=({"cookie": "session"},),
    ),
    # https://docs.aws.amazon.com/cognito/latest/developerguide/amazon-cognito-user-pools-using-tokens-verifying-a-jwt.html
    "cognito": Preset(
        {
            "issuer": "https://cognito-idp.{region}.amazonaws.com/{user_pool}",
            "jwks_uri": "https://cognito-idp.{region}.amazonaws.com/{user_pool}/.well-known/jwks.json",
            "algorithms": ["RS256"],
            "role_claims": [["cognito:groups"]],
        },
        asks=("user_pool",),
        may=("region", "token_use"),
        more=_cognito,
    ),
    # https://docs.aws.amazon.com/elasticloadbalancing/latest/application/listener-authenticate-users.html
    # The signer is the audience: AWS asks to compare it, as all load balancers of a region share their keys.
    "aws_alb": Preset(
        {
            "audiences": "any",
            "jwks_uri": "https://public-keys.auth.elb.{region}.amazonaws.com/{kid}",
            "algorithms": ["ES256"],
            "allow_padding": True,
            "signer": "{arn}",
        },
        asks=("arn",),
        may=("region",),
        token_from=({"header": "X-Amzn-Oidc-Data"},),
    ),
    # https://docs.github.com/actions/concepts/security/openid-connect; anybody there can have a token for any audience
    "github_actions": Preset(
        {
            "issuer": "https://token.actions.githubusercontent.com",
            "jwks_uri": "https://token.actions.githubusercontent.com/.well-known/jwks",
            "algorithms": ["RS256"],
        },
        asks=("repository",),
        more=_github,
    ),
    # https://docs.gitlab.com/ci/secrets/id_token_authentication/; another GitLab is named by `issuer`
    "gitlab": Preset(
        {
            "issuer": "https://gitlab.com",
            "jwks_uri": "{url}/oauth/discovery/keys",
            "algorithms": ["RS256"],
            "require": _equals("project_path", "{project}"),
        },
        asks=("project",),
        slash=False,
    ),
    # https://spiffe.io/docs/latest/spiffe-specs/jwt-svid/; the bundle is in jwks_file, or at the endpoint in jwks_uri
    "spiffe": Preset(
        {
            "issuer": "spiffe://{trust_domain}",
            "assume_issuer": True,
            "subjects": {"prefix": ["spiffe://{trust_domain}/"]},
            "accepted_typ": ["JWT", "JOSE", "absent"],
            "algorithms": ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"],
        },
        asks=("trust_domain",),
    ),
    # https://supabase.com/docs/guides/auth/jwts
    "supabase": Preset(
        {
            "issuer": "https://{project}.supabase.co/auth/v1",
            "audiences": ["authenticated"],
            "jwks_uri": "https://{project}.supabase.co/auth/v1/.well-known/jwks.json",
            "algorithms": ["ES256", "RS256"],
            "role_claims": ["role"],
        },
        asks=("project",),
    ),
    # https://clerk.com/docs/guides/sessions/manual-jwt-verification; the audience is the origin that asked for the token
    "clerk": Preset(
        {
            "jwks_uri": "{url}/.well-known/jwks.json",
            "algorithms": ["RS256"],
            "audience_claims": ["azp"],
            "role_claims": ["org_role", "o.rol"],
        },
        token_from=(_BEARER, {"cookie": "__session"}),
        slash=False,
    ),
    # https://fusionauth.io/docs/lifecycle/authenticate-users/oauth/tokens; its `iss` may be a bare host
    "fusionauth": Preset(
        {"jwks_uri": "{url}/.well-known/jwks.json", "algorithms": ["RS256", "ES256"], "role_claims": ["roles"]},
        token_from=(_BEARER, {"cookie": "app.at"}),
    ),
    # https://workos.com/docs/reference/authkit/session-tokens; without `aud`, but each client has keys of its own
    "workos": Preset(
        {
            "issuer": "https://api.workos.com/user_management/{client}",
            "issuer_aliases": ["https://api.workos.com"],
            "jwks_uri": "https://api.workos.com/sso/jwks/{client}",
            "algorithms": ["RS256"],
            "role_claims": ["roles", "role"],
        },
        asks=("client",),
    ),
    # https://docs.logto.io/authorization/validate-access-tokens
    "logto": Preset({"jwks_uri": "{url}/jwks", "algorithms": ["ES384"], "role_claims": ["roles"]}, slash=False),
    # https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oidc_using_discovery_endpoint.htm
    "salesforce": Preset({"jwks_uri": "{url}/id/keys", "algorithms": ["RS256"]}, slash=False),
    # https://developer.apple.com/documentation/signinwithapple/verifying-a-user
    "apple": Preset(
        {
            "issuer": "https://appleid.apple.com",
            "jwks_uri": "https://appleid.apple.com/auth/keys",
            "algorithms": ["RS256"],
        }
    ),
    # https://www.ory.sh/docs/hydra/guides/jwt; an access token may have an empty `aud`
    "hydra": Preset(
        {
            "jwks_uri": "{url}/.well-known/jwks.json",
            "algorithms": ["RS256"],
            "audience_claims": ["aud", "client_id"],
            "role_claims": ["ext.roles", "ext.groups"],
        },
    ),
    # https://zitadel.com/docs/apis/openidoauth/claims
    "zitadel": Preset(
        {
            "jwks_uri": "{url}/oauth/v2/keys",
            "algorithms": ["RS256"],
            "role_claims": [["urn:zitadel:iam:org:project:roles"]],
        },
        slash=False,
    ),
    # https://docs.goauthentik.io/add-secure-apps/providers/oauth2/
    "authentik": Preset({"jwks_uri": "{url}/jwks/", "algorithms": ["RS256", "ES256"]}, slash=True),
    # https://docs.pingidentity.com/pingone/applications/p1_access_tokens.html
    "pingone": Preset({"jwks_uri": "{url}/jwks", "algorithms": ["RS256"], "audience_claims": ["aud"]}, slash=False),
    # https://docs.pingidentity.com/pingfederate/; a JWT access token has no `iss` unless the token manager writes one
    "pingfederate": Preset(
        {
            "jwks_uri": "{url}/pf/JWKS",
            "algorithms": ["RS256", "ES256"],
            "assume_issuer": True,
            "audience_claims": ["aud", "client_id"],
        },
        slash=False,
    ),
    # https://docs.duendesoftware.com/identityserver/apis/aspnetcore/jwt/
    "duende": Preset(
        {
            "jwks_uri": "{url}/.well-known/openid-configuration/jwks",
            "algorithms": ["RS256", "PS256", "ES256"],
            "accepted_typ": ["at+jwt"],
            "role_claims": ["role", "roles"],
        },
        slash=False,
    ),
}


def _preset(name: str) -> str:
    if name not in PRESETS:
        raise ValueError(f"{{input}} is not a preset; one of: {', '.join(PRESETS)}{nearest(name, PRESETS)}")
    return name


PresetName = Annotated[str, AfterValidator(_preset), WithJsonSchema({"enum": list(PRESETS)})]
