"""The summary at the start: issuers, protected and open paths, upstreams."""

from collections.abc import Iterable, Iterator

from sidecar.config import Config, Issuer, Route

MOST_NAMED = 8  # rules in one line; the file has the rest


def summary(config: Config) -> Iterator[str]:
    """The lines. Each weakness has its remedy."""
    for issuer in config.issuers.values():
        audiences = "any audience" if issuer.audiences is None else " or ".join(issuer.audiences)
        yield f"issuer {issuer.name}: {issuer.issuer}, tokens for {audiences}, keys from {_keys(issuer)}{_more(issuer)}"
        yield from (f"  weak: {text}" for text in _weaknesses(issuer))
    if config.signing is not None:
        endpoint = ", and gives tokens to holders of API keys" if config.signing.token_endpoint is not None else ""
        yield f"own issuer: {config.signing.issuer}, signs with {config.signing.keys_file}{endpoint}"
    for auth, words in (
        ("none", "public, tokens are not checked"),
        ("optional", "open, a token must be valid if there is one"),
        ("api_key", "for the holders of API keys"),
        ("deny", "closed, every request is refused"),
    ):
        if rules := [route for route in config.routes if route.auth == auth]:
            yield f"{words}: {_named(rules)}"
    everything = ["everything else"]
    reported = [_named(rules)] if (rules := [route for route in config.routes if config.reports(route)]) else []
    if config.reports():
        reported += everything
    if reported:
        yield f"report mode, nothing is refused for its token (until you write mode: enforce): {', and '.join(reported)}"
    narrower = [route for route in config.routes if route.auth == "required" and not config.reports(route)]
    named = [_named(narrower)] if narrower else []
    if not config.reports():
        named += everything
    needed = "protected, a valid token is needed" if config.issuers else "closed, since there is no issuer"
    if named:
        yield f"{needed}: {', and '.join(named)}"
    if config.forward_auth is not None:
        peers = ", ".join(map(str, config.trusted_proxies))
        yield f"forward-auth at {config.forward_auth.path} ({config.forward_auth.original}), asked by {peers}"
    for upstream in config.upstreams.values():
        minted = "" if upstream.token is None else f", with a minted token for {upstream.token.audience}"
        yield f"upstream {upstream.name}: {upstream.url}{minted}"
        if upstream.tls.insecure_skip_verify:
            yield "  weak: the server's certificate is not verified (insecure_skip_verify); name its authority in ca_file"


def _more(issuer: Issuer) -> str:
    number = len(issuer.more_keys)
    return f" and {number} more {'place' if number == 1 else 'places'}" if number else ""


def _keys(issuer: Issuer) -> str:
    match issuer.keys_from:
        case "discovery":
            return f"discovery at {issuer.issuer.rstrip('/')}/.well-known/"
        case "jwks_inline":
            return "the configuration (jwks_inline)"
        case "secret_env":
            return "a variable (secret_env)"
        case "jwks_uri":
            return str(issuer.jwks_uri).partition("?")[0]  # a query may hold a credential
        case file:
            return f"the file {getattr(issuer, file)}"


def _weaknesses(issuer: Issuer) -> Iterator[str]:
    if (
        issuer.audiences is None and issuer.signer is None
    ):  # the signer of a load balancer takes the place of the audience
        yield "tokens for other services are accepted; list the audiences of this one"
    if not issuer.require_exp:
        yield "tokens without exp never expire; set require_exp: true"
    if issuer.fetched and issuer.allow_http:
        yield "an attacker on the way can replace keys over plain http; use https, without allow_http"
    if issuer.jwks_tls is not None and issuer.jwks_tls.insecure_skip_verify:
        yield "an attacker on the way can replace the keys (insecure_skip_verify); name the key server's authority in ca_file"


def _named(routes: Iterable[Route]) -> str:
    names = [
        " ".join([*([",".join(route.methods)] if route.methods else []), route.path or route.path_regex or ""])
        + (f" (only {', '.join(route.hosts)})" if route.hosts else "")
        for route in routes
    ]
    rest = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {rest} more" if rest > 0 else "")
