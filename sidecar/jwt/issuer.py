"""The trusted issuers, and the way from a token to its issuer."""

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.compact_jws import PADDED, Jws
from sidecar.jwt.examination import ClaimsCheck, Examination, several, shown
from sidecar.jwt.issuer_templates import IssuerTemplate, is_template
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.token_checks import AcceptedTyp, AllowedAlgorithm, KnownKey, Signature, TrustedSigner

ACCEPTED_TYP = ("JWT", "at+jwt", "absent")  # RFC 7519 section 5.1, RFC 9068 section 4


class Policy(Protocol):
    """Rules for verified claims beyond `ClaimRules`."""

    @property
    def checks(self) -> Sequence[ClaimsCheck]: ...


class Required:
    """An issuer's `require`: the rules that a route may have, for all of the issuer's tokens."""

    def __init__(self, check: ClaimsCheck) -> None:
        self.name = f"required {check.name}"
        self.judge = check.judge
        self.expected = check.expected
        self.found = check.found
        self.private = check.private


class Issuer:
    """One trusted issuer: the keys and algorithms of its tokens, and the rules for their claims, `rules` first, then `policy`.

    `aliases` are other `iss` values of the same issuer; each `iss` may be a template (jwt/issuer_templates.py). `assumed`: tokens
    without `iss` belong to this issuer. `signer` is the required value of the header's member `signer`.
    `accepted_typ` are the accepted values of the header's `typ`; the word `absent` accepts no `typ`.
    `allow_padding`: the parts of its tokens may be padded with `=`.
    """

    __slots__ = (
        "algorithm", "allow_padding", "assumed", "key", "name", "required", "rules", "signature", "signer", "source",
        "spellings", "templates", "typ",
    )  # fmt: skip

    def __init__(
        self,
        name: str,
        issuer: str,
        algorithms: Collection[str],
        rules: ClaimRules,
        source: JwksSource,
        accepted_typ: Collection[str] = ACCEPTED_TYP,
        aliases: Collection[str] = (),
        *,
        allow_padding: bool = False,
        policy: Policy | None = None,
        assumed: bool = False,
        signer: str | None = None,
    ) -> None:
        self.name = name
        self.spellings = (issuer, *aliases)
        self.templates = tuple(IssuerTemplate(iss) for iss in self.spellings if is_template(iss))
        self.assumed = assumed
        self.allow_padding = allow_padding
        self.source = source
        self.typ = AcceptedTyp(accepted_typ)
        self.signer = None if signer is None else TrustedSigner(signer)
        self.algorithm = AllowedAlgorithm(algorithms)
        self.key = KnownKey(name, source, self.templates)
        self.signature = Signature(source)
        self.rules = rules
        self.required = () if policy is None else tuple(map(Required, policy.checks))


class TrustedIssuers:
    """The configured issuers, found by the `iss` of a token."""

    name = "issuer"

    def __init__(self, issuers: Collection[Issuer]) -> None:
        self.all = tuple(issuers)
        self._spellings = [iss for issuer in issuers for iss in issuer.spellings]
        self._by_iss: Mapping[str, Issuer] = {iss: issuer for issuer in issuers for iss in issuer.spellings}
        self._templates = [(template, issuer) for issuer in issuers for template in issuer.templates]
        self._assumed = next((issuer for issuer in issuers if issuer.assumed), None)

    def __repr__(self) -> str:
        return f"<TrustedIssuers {', '.join(self._spellings)}>"

    def of(self, jws: Jws) -> Issuer:
        """The issuer of a token. Raises Rejection."""
        iss = jws.payload.get("iss")
        if iss is None:
            if self._assumed is None or "iss" in jws.payload:
                raise Rejection(Reason.ISSUER_UNKNOWN, "The token has no iss claim.")
            issuer: Issuer | None = self._assumed
        else:
            issuer = self._by_iss.get(iss) if isinstance(iss, str) else None
            if issuer is None:
                issuer = next((of for template, of in self._templates if template.filled_by(jws.payload) == iss), None)
        if issuer is None:
            raise Rejection(Reason.ISSUER_UNKNOWN)
        if jws.padded and not issuer.allow_padding:
            raise Rejection(Reason.TOKEN_MALFORMED, PADDED)
        return issuer

    def expected(self, _seen: Examination) -> str:
        return f"one of: {several(self._spellings)}"

    def found(self, seen: Examination, _now: float) -> str:
        iss = seen.payload.get("iss")
        if seen.issuer is not None:
            return f"{seen.issuer}: {shown(iss)}"
        return f"{shown(iss)}{self._nearly(iss, seen) if isinstance(iss, str) else ''}"

    def _nearly(self, iss: str, seen: Examination) -> str:
        """The difference between an `iss` and a configured one that looks like it."""
        for template, _ in self._templates:
            if template.value_in(iss) is not None:
                return f", and {template.claim} {shown(seen.payload.get(template.claim))}"
        other = iss.removesuffix("/") if iss.endswith("/") else f"{iss}/"
        if other in self._by_iss or any(template.value_in(other) is not None for template, _ in self._templates):
            return f", which has a slash too {'many' if iss.endswith('/') else 'few'} at its end"
        return ""
