"""The shapes of real providers: their configuration, the content of their tokens, and tokens that must be refused."""

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.peers import tokens
from tests.peers.tokens import ABSENT, certificate

TENANT, OTHER = "72f988bf-86f1-41af-91ab-2d7cd011db47", "9188040d-6c67-4c5b-b112-36a304b66dad"
ARN = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/app/my-lb/50dc6c495c0c9188"
SECRET = "a secret of an issuer before its migration"


def key_set(alg: str, **more: Any) -> Callable[[], bytes]:
    return lambda: json.dumps({"keys": [{**tokens.public_jwk(alg), **more}]}).encode()


def certificates() -> bytes:
    return json.dumps({tokens.kid("RS256"): certificate("RS256"), "another": certificate("RS256", "b")}).encode()


def pem() -> bytes:
    return tokens.public_pem("ES256")


class Row(NamedTuple):
    """One shape. `lines` is what stands under `issuers:`; `claims` and `header` what its tokens have beside what all have.

    `refused` are claims, or members of the header behind "header", of tokens that must be refused, each with the code. `keys`
    is what the server of the keys has at `path` (None: there is none); `roles` and `scope` are what is read from a token.
    """

    lines: str
    path: str | None
    claims: dict[str, Any]
    refused: dict[str, tuple[dict[str, Any], str]]
    alg: str = "RS256"
    header: Mapping[str, Any] = MappingProxyType({})
    keys: Callable[[], bytes] | None = None
    roles: frozenset[str] = frozenset()
    scope: str | None = None
    most_lines: int = 4
    padded: bool = False


def audience(**claims: Any) -> tuple[dict[str, Any], str]:
    return (claims or {"aud": "another"}), "audience_mismatch"


def tenant(iss: str, **claims: Any) -> tuple[dict[str, Any], str]:
    return {"iss": iss, **claims}, "issuer_unknown"


def claim(**claims: Any) -> tuple[dict[str, Any], str]:
    return claims, "claim_mismatch"


def id_token(**claims: Any) -> tuple[dict[str, Any], str]:
    return (claims or {"nonce": "n", "at_hash": "h"}), "claim_invalid"


TYP = {"header": {"typ": "logout+jwt"}}, "token_malformed"
ENTRA_V2 = {"iss": f"https://login.microsoftonline.com/{TENANT}/v2.0", "tid": TENANT, "ver": "2.0", "scp": "read write"}
ENTRA_V1 = {"iss": f"https://sts.windows.net/{TENANT}/", "tid": TENANT, "ver": "1.0", "scp": "read write", "appid": "a"}
ENTRA_KEYS = key_set("RS256", issuer="https://login.microsoftonline.com/{tenantid}/v2.0", use=None)
OTHER_V2 = f"https://login.microsoftonline.com/{OTHER}/v2.0"
COGNITO = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_Ab"
ALB_IDP = "https://idp.example/"

ROWS = {
    "Auth0": Row(
        "api:\n  preset: auth0\n  issuer: https://tenant.eu.auth0.com/\n  audiences: [my-api]",
        "/.well-known/jwks.json",
        {"iss": "https://tenant.eu.auth0.com/", "aud": ["my-api", "https://tenant.eu.auth0.com/userinfo"],
         "scope": "openid read",
         "azp": "app", "https://app/roles": ["admin"], "permissions": ["read"]},
        {"audience": audience(), "tenant": tenant("https://other.eu.auth0.com/"), "kind": TYP},
        scope="openid read",
    ),
    "Auth0, written without the slash": Row(
        "api:\n  preset: auth0\n  issuer: https://tenant.eu.auth0.com\n  audiences: [my-api]",
        "/.well-known/jwks.json",
        {"iss": "https://tenant.eu.auth0.com/"},
        {"audience": audience(), "tenant": tenant("https://tenant.eu.auth0.com//"), "kind": TYP},
    ),
    "Okta": Row(
        "api:\n  preset: okta\n  issuer: https://dev-1.okta.com/oauth2/default\n  audiences: ['api://default']",
        "/oauth2/default/v1/keys",
        {"iss": "https://dev-1.okta.com/oauth2/default", "aud": "api://default", "scp": ["read", "write"], "cid": "0oa",
         "groups": ["a"]},
        {"audience": audience(), "tenant": tenant("https://dev-1.okta.com/oauth2/other"), "kind": id_token(),
         "org server": ({"header": {"typ": "application/okta-internal-at+jwt"}}, "token_malformed")},
        roles=frozenset({"a"}), scope="read write",
    ),
    "Microsoft Entra ID v2": Row(
        f"api:\n  preset: entra\n  tenant: {TENANT}\n  audiences: [6e74172b-be56-4843-9ff4-e66a39bb12e3]",
        f"/{TENANT}/discovery/v2.0/keys",
        {**ENTRA_V2, "aud": "6e74172b-be56-4843-9ff4-e66a39bb12e3", "roles": ["Admin"]},
        {"audience": audience(), "tenant": tenant(OTHER_V2, tid=OTHER), "kind": id_token()},
        keys=ENTRA_KEYS, roles=frozenset({"Admin"}), scope="read write",
    ),
    "Microsoft Entra ID v1": Row(
        f"api:\n  preset: entra\n  tenant: {TENANT}\n  audiences: ['api://my-api']",
        f"/{TENANT}/discovery/v2.0/keys",
        {**ENTRA_V1, "aud": "api://my-api"},
        {"audience": audience(), "tenant": tenant(f"https://sts.windows.net/{OTHER}/", tid=OTHER), "kind": id_token()},
        keys=ENTRA_KEYS, scope="read write",
    ),
    "Microsoft Entra ID, some tenants": Row(
        f"api:\n  preset: entra\n  tenant: [{TENANT}, 8eaef023-2b34-4da1-9baa-8bc8c9d6a490]\n  audiences: [my-api]",
        "/common/discovery/v2.0/keys",
        ENTRA_V2,
        {"audience": audience(), "tenant": claim(iss=OTHER_V2, tid=OTHER), "kind": id_token(),
         "tenant of iss alone": tenant(OTHER_V2), "tid of another": tenant(str(ENTRA_V2["iss"]), tid=OTHER)},
        keys=ENTRA_KEYS, scope="read write",
    ),
    "Microsoft Entra ID, any tenant": Row(
        "api:\n  preset: entra\n  tenant: any\n  audiences: [my-api]",
        "/common/discovery/v2.0/keys",
        ENTRA_V1,
        {"audience": audience(), "tenant": tenant(f"https://sts.windows.net/{OTHER}/"), "kind": id_token()},
        keys=ENTRA_KEYS, scope="read write",
    ),
    "Microsoft Entra ID, a key of one tenant": Row(
        "api:\n  preset: entra\n  tenant: any\n  audiences: [my-api]",
        "/common/discovery/v2.0/keys",
        {**ENTRA_V2, "iss": OTHER_V2, "tid": OTHER},
        {"audience": audience(), "kind": id_token(), "tenant": ({"iss": ENTRA_V2["iss"], "tid": TENANT}, "key_unknown")},
        keys=key_set("RS256", issuer=OTHER_V2), scope="read write",
    ),
    "Entra B2C": Row(
        f"api:\n  preset: entra_b2c\n  issuer: https://contoso.b2clogin.com/{TENANT}/v2.0/\n  policies: [B2C_1_in, B2C_1_edit]\n"
        "  audiences: [my-api]",
        f"/{TENANT}/B2C_1_edit/discovery/v2.0/keys",
        {"iss": f"https://contoso.b2clogin.com/{TENANT}/v2.0/", "tfp": "B2C_1_edit", "scp": "read"},
        {"audience": audience(), "tenant": tenant(f"https://contoso.b2clogin.com/{OTHER}/v2.0/"), "kind": TYP},
        scope="read", most_lines=5,
    ),
    "Google ID token": Row(
        "web:\n  preset: google\n  domain: example.com\n  audiences: [1234.apps.googleusercontent.com]",
        "/oauth2/v3/certs",
        {"iss": "https://accounts.google.com", "aud": "1234.apps.googleusercontent.com", "hd": "example.com", "nonce": "n"},
        {"audience": audience(), "tenant": claim(hd="other.example"), "no Workspace": claim(hd=ABSENT), "kind": TYP},
    ),
    "Google ID token, bare iss": Row(
        "web:\n  preset: google\n  audiences: [my-api]",
        "/oauth2/v3/certs",
        {"iss": "accounts.google.com"},
        {"audience": audience(), "tenant": tenant("http://accounts.google.com"), "kind": TYP},
    ),
    "Google service account": Row(
        "job:\n  preset: google_service_account\n  issuer: job@my-project.iam.gserviceaccount.com\n  audiences: [my-api]",
        "/robot/v1/metadata/x509/job@my-project.iam.gserviceaccount.com",
        {"iss": "job@my-project.iam.gserviceaccount.com"},
        {"audience": audience(), "tenant": tenant("other@my-project.iam.gserviceaccount.com"), "kind": TYP},
        keys=certificates,
    ),
    "Firebase ID token": Row(
        "app:\n  preset: firebase\n  project: my-project",
        "/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com",
        {"iss": "https://securetoken.google.com/my-project", "aud": "my-project", "auth_time": 1},
        {"audience": audience(), "tenant": tenant("https://securetoken.google.com/other"), "kind": ({"auth_time": ABSENT},
         "claim_missing")},
        keys=certificates,
    ),
    "Firebase session cookie": Row(
        "app:\n  preset: firebase_session\n  project: my-project",
        "/identitytoolkit/v3/relyingparty/publicKeys",
        {"iss": "https://session.firebase.google.com/my-project", "aud": "my-project", "auth_time": 1},
        {"audience": audience(), "tenant": tenant("https://securetoken.google.com/my-project"), "kind": TYP},
        keys=certificates,
    ),
    "Google IAP": Row(
        "iap:\n  preset: google_iap\n  audiences: [/projects/123/global/backendServices/456]",
        "/iap/verify/public_key-jwk",
        {"iss": "https://cloud.google.com/iap", "aud": "/projects/123/global/backendServices/456", "hd": "example.com"},
        {"audience": audience(), "tenant": tenant("https://accounts.google.com"), "kind": TYP},
        alg="ES256",
    ),
    "AWS Cognito access token": Row(
        "pool:\n  preset: cognito\n  user_pool: eu-west-1_Ab\n  audiences: [my-client]",
        "/eu-west-1_Ab/.well-known/jwks.json",
        {"iss": COGNITO, "aud": ABSENT, "client_id": "my-client", "token_use": "access", "scope": "read",
         "cognito:groups": ["admin"]},
        {"audience": audience(client_id="another"), "tenant": tenant(f"{COGNITO}c"), "kind": claim(token_use="id"),
         "an ID token": audience(client_id=ABSENT, aud="my-client", token_use="id")},
        roles=frozenset({"admin"}), scope="read",
    ),
    "AWS Cognito ID token": Row(
        "pool: {preset: cognito, user_pool: eu-west-1_Ab, token_use: id, audiences: [my-client]}",
        "/eu-west-1_Ab/.well-known/jwks.json",
        {"iss": COGNITO, "aud": "my-client", "token_use": "id"},
        {"audience": audience(), "tenant": tenant(f"{COGNITO}c"), "kind": claim(token_use="access"),
         "an access token": audience(aud=ABSENT, client_id="my-client", token_use="access")},
    ),
    "AWS ALB": Row(
        f"lb:\n  preset: aws_alb\n  arn: {ARN}\n  issuer: {ALB_IDP}",
        f"/{tokens.kid('ES256')}",
        {"iss": ALB_IDP, "aud": ABSENT, "email": "alice@example.com"},
        {"audience": ({"header": {"signer": ARN.replace("my-lb", "other")}}, "issuer_unknown"), "tenant": tenant("https://other.example/"),
         "kind": ({"header": {"signer": ABSENT}}, "issuer_unknown")},
        alg="ES256", header={"signer": ARN, "client": "app", "iss": ALB_IDP}, keys=pem, padded=True,
    ),
    "Keycloak": Row(
        "sso:\n  preset: keycloak\n  issuer: https://sso.example/realms/main\n  client: my-api\n  audiences: [my-api]",
        "/realms/main/protocol/openid-connect/certs",
        {"iss": "https://sso.example/realms/main", "aud": ["my-api", "account"], "azp": "web", "typ": "Bearer",
         "scope": "openid",
         "realm_access": {"roles": ["user"]}, "resource_access": {"my-api": {"roles": ["clerk"]}, "other": {"roles": ["no"]}}},
        {"audience": audience(aud="account"), "tenant": tenant("https://sso.example/realms/other"),
         "kind": claim(typ="ID"), "logout token": claim(typ="Logout"), "no typ": claim(typ=ABSENT)},
        roles=frozenset({"user", "clerk"}), scope="openid", most_lines=5,
    ),
    "Kubernetes": Row(
        "cluster:\n  preset: kubernetes\n  issuer: https://kubernetes.default.svc.cluster.local\n  audiences: [my-api]",
        None,
        {"iss": "https://kubernetes.default.svc.cluster.local", "aud": ["my-api"], "sub": "system:serviceaccount:default:web",
         "kubernetes.io": {"namespace": "default"}},
        {"audience": audience(aud=["https://kubernetes.default.svc"]), "tenant": tenant("https://oidc.eks.eu-west-1.amazonaws.com/id/A"),
         "kind": TYP},
    ),
    "Amazon EKS": Row(
        "cluster:\n  issuer: https://oidc.eks.eu-west-1.amazonaws.com/id/ABC\n  jwks_uri: https://oidc.eks.eu-west-1.amazonaws.com/id/ABC/keys\n"
        "  audiences: [my-api]",
        "/id/ABC/keys",
        {"iss": "https://oidc.eks.eu-west-1.amazonaws.com/id/ABC", "sub": "system:serviceaccount:default:web"},
        {"audience": audience(), "tenant": tenant("https://oidc.eks.eu-west-1.amazonaws.com/id/ABD"), "kind": TYP},
    ),
    "GitHub Actions": Row(
        "ci:\n  preset: github_actions\n  repository: my-org/my-repository\n  audiences: [my-api]",
        "/.well-known/jwks",
        {"iss": "https://token.actions.githubusercontent.com", "sub": "repo:my-org/my-repository:ref:refs/heads/main",
         "repository": "my-org/my-repository", "repository_owner": "my-org"},
        {"audience": audience(), "tenant": claim(repository="other/my-repository"), "kind": TYP},
    ),
    "GitHub Actions, an owner": Row(
        "ci:\n  preset: github_actions\n  repository: my-org/*\n  audiences: [my-api]",
        "/.well-known/jwks",
        {"iss": "https://token.actions.githubusercontent.com", "repository": "my-org/any", "repository_owner": "my-org"},
        {"audience": audience(), "tenant": claim(repository_owner="my-org-2", repository="my-org-2/any"), "kind": TYP},
    ),
    "GitLab CI": Row(
        "ci:\n  preset: gitlab\n  project: my-group/my-project\n  audiences: [my-api]",
        "/oauth/discovery/keys",
        {"iss": "https://gitlab.com", "project_path": "my-group/my-project", "ref_protected": "true"},
        {"audience": audience(), "tenant": claim(project_path="my-group/other"), "kind": TYP},
    ),
    "SPIFFE": Row(
        "mesh:\n  preset: spiffe\n  trust_domain: example.org\n  jwks_uri: https://spire.example/bundle\n  audiences: [my-api]",
        "/bundle",
        {"iss": ABSENT, "sub": "spiffe://example.org/ns/web"},
        {"audience": audience(), "tenant": claim(sub="spiffe://example.org.evil/ns/web"), "kind": TYP},
        alg="ES256", keys=key_set("ES256", use="jwt-svid"), most_lines=5,
    ),
    "Cloudflare Access": Row(
        "edge:\n  preset: cloudflare_access\n  issuer: https://team.cloudflareaccess.com\n  audiences: [my-api]",
        "/cdn-cgi/access/certs",
        {"iss": "https://team.cloudflareaccess.com", "aud": ["my-api"], "type": "app"},
        {"audience": audience(), "tenant": tenant("https://other.cloudflareaccess.com"), "kind": TYP},
    ),
    "Pomerium": Row(
        "edge:\n  preset: pomerium\n  issuer: app.example\n  audiences: [app.example]",
        "/.well-known/pomerium/jwks.json",
        {"iss": "app.example", "aud": "app.example", "groups": ["a"]},
        {"audience": audience(), "tenant": tenant("other.example"), "kind": TYP},
        alg="ES256", roles=frozenset({"a"}),
    ),
    "Zuplo": Row(
        "gateway:\n  preset: zuplo\n  issuer: https://my-api.zuplo.api/__zuplo/issuer\n  audiences: [my-api]",
        "/__zuplo/issuer/.well-known/jwks.json",
        {"iss": "https://my-api.zuplo.api/__zuplo/issuer"},
        {"audience": audience(), "tenant": tenant("https://other.zuplo.api/__zuplo/issuer"), "kind": TYP},
        alg="EdDSA",
    ),
    "Supabase": Row(
        "app:\n  preset: supabase\n  project: abcdefghijklmnopqrst",
        "/auth/v1/.well-known/jwks.json",
        {"iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated"},
        {"audience": audience(aud="anon"), "tenant": tenant("https://other.supabase.co/auth/v1"), "kind": TYP},
        alg="ES256", roles=frozenset({"authenticated"}),
    ),
    "Supabase, while it migrates": Row(
        "app:\n  preset: supabase\n  project: abcdefghijklmnopqrst\n  more_keys: [{secret_env: SECRET}]",
        "/auth/v1/.well-known/jwks.json",
        {"iss": "https://abcdefghijklmnopqrst.supabase.co/auth/v1", "aud": "authenticated", "role": "authenticated"},
        {"audience": audience(aud="anon"), "tenant": tenant("supabase"), "kind": TYP},
        alg="HS256", roles=frozenset({"authenticated"}), keys=key_set("ES256"),
    ),
    "Clerk": Row(
        "web:\n  preset: clerk\n  issuer: https://clerk.example.com\n  audiences: ['https://example.com']",
        "/.well-known/jwks.json",
        {"iss": "https://clerk.example.com", "aud": ABSENT, "azp": "https://example.com", "o": {"rol": "admin"}, "v": 2},
        {"audience": audience(azp="https://evil.example"), "tenant": tenant("https://clerk.other.com"), "kind": TYP},
        roles=frozenset({"admin"}),
    ),
    "FusionAuth": Row(
        "web:\n  preset: fusionauth\n  issuer: auth.example.com\n  audiences: [3c219e58-ed0e-4b18-ad48-f4f92793ae32]",
        "/.well-known/jwks.json",
        {"iss": "auth.example.com", "aud": "3c219e58-ed0e-4b18-ad48-f4f92793ae32", "roles": ["a"], "gty": ["authorization_code"]},
        {"audience": audience(), "tenant": tenant("acme.com"), "kind": TYP},
        roles=frozenset({"a"}),
    ),
    "WorkOS": Row(
        "web:\n  preset: workos\n  client: client_123\n  audiences: any",
        "/sso/jwks/client_123",
        {"iss": "https://api.workos.com/user_management/client_123", "aud": ABSENT, "role": "member", "roles": ["member"],
         "sid": "s"},
        {"tenant": tenant("https://api.workos.com/user_management/client_124"), "kind": TYP},
        roles=frozenset({"member"}),
    ),
    "Logto": Row(
        "web:\n  preset: logto\n  issuer: https://tenant.logto.app/oidc\n  audiences: ['https://api.example']",
        "/oidc/jwks",
        {"iss": "https://tenant.logto.app/oidc", "aud": "https://api.example", "scope": "read"},
        {"audience": audience(), "tenant": tenant("https://other.logto.app/oidc"), "kind": TYP},
        alg="ES384", header={"typ": "at+jwt"}, scope="read",
    ),
    "Salesforce": Row(
        "crm:\n  preset: salesforce\n  issuer: https://acme.my.salesforce.com\n  audiences: ['https://acme.my.salesforce.com']",
        "/id/keys",
        {"iss": "https://acme.my.salesforce.com", "aud": ["https://acme.my.salesforce.com"], "scp": "api refresh_token"},
        {"audience": audience(), "tenant": tenant("https://other.my.salesforce.com"), "kind": TYP},
        scope="api refresh_token",
    ),
    "Apple": Row(
        "app:\n  preset: apple\n  audiences: [com.example.app]",
        "/auth/keys",
        {"iss": "https://appleid.apple.com", "aud": "com.example.app", "email_verified": "true", "is_private_email": "true"},
        {"audience": audience(aud="com.example.other"), "tenant": tenant("https://account.apple.com"), "kind": TYP},
    ),
    "PropelAuth": Row(
        "app:\n  issuer: https://auth.example.com\n  jwks_uri: https://auth.example.com/.well-known/jwks.json\n  audiences: any",
        "/.well-known/jwks.json",
        {"iss": "https://auth.example.com", "aud": ABSENT, "user_id": "u",
         "org_id_to_org_member_info": {"o": {"user_role": "Owner"}}},
        {"tenant": tenant("https://auth.other.com"), "kind": TYP},
    ),
    "Ory Hydra": Row(
        "hydra:\n  preset: hydra\n  issuer: https://hydra.example/\n  audiences: [my-client]",
        "/.well-known/jwks.json",
        {"iss": "https://hydra.example/", "aud": [], "client_id": "my-client", "scp": ["read"], "ext": {"roles": ["a"]}},
        {"audience": audience(client_id="another"), "tenant": tenant("https://hydra.example"), "kind": TYP},
        roles=frozenset({"a"}), scope="read",
    ),
    "Zitadel": Row(
        "login:\n  preset: zitadel\n  issuer: https://acme.zitadel.cloud\n  audiences: ['123']",
        "/oauth/v2/keys",
        {"iss": "https://acme.zitadel.cloud", "aud": ["123", "456"],
         "urn:zitadel:iam:org:project:roles": {"admin": {"789": "acme.example"}, "clerk": {"789": "acme.example"}}},
        {"audience": audience(), "tenant": tenant("https://other.zitadel.cloud"), "kind": TYP},
        roles=frozenset({"admin", "clerk"}),
    ),
    "Authentik": Row(
        "login:\n  preset: authentik\n  issuer: https://id.example/application/o/my-app/\n  audiences: [my-client]",
        "/application/o/my-app/jwks/",
        {"iss": "https://id.example/application/o/my-app/", "aud": "my-client", "roles": [], "groups": ["admins"],
         "scope": "read"},
        {"audience": audience(), "tenant": tenant("https://id.example/application/o/other/"), "kind": TYP},
        roles=frozenset({"admins"}), scope="read",
    ),
    "PingOne": Row(
        "login:\n  preset: pingone\n  issuer: https://auth.pingone.eu/abc/as\n  audiences: [my-api]",
        "/abc/as/jwks",
        {"iss": "https://auth.pingone.eu/abc/as", "aud": ["my-api"], "scope": "read", "env": "abc"},
        {"audience": audience(), "tenant": tenant("https://auth.pingone.eu/abd/as"), "kind": TYP},
        scope="read",
    ),
    "PingFederate": Row(
        "login:\n  preset: pingfederate\n  issuer: https://ping.example\n  audiences: [my-client]",
        "/pf/JWKS",
        {"iss": ABSENT, "aud": ABSENT, "client_id": "my-client", "scope": ["read", "write"]},
        {"audience": audience(client_id="another"), "tenant": tenant("https://other.example"), "kind": TYP},
        scope="read write",
    ),
    "Duende IdentityServer": Row(
        "login:\n  preset: duende\n  issuer: https://id.example\n  audiences: [my-api]",
        "/.well-known/openid-configuration/jwks",
        {"iss": "https://id.example", "scope": ["read", "write"], "role": ["admin"]},
        {"audience": audience(), "tenant": tenant("https://other.example"), "kind": ({"header": {"typ": "JWT"}},
         "token_malformed")},
        header={"typ": "at+jwt"}, roles=frozenset({"admin"}), scope="read write",
    ),
}  # fmt: skip
"""Name -> shape: the provider, and the kind of token if it has several."""
