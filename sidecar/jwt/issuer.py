"""What the tokens of one trusted issuer must be."""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import ClaimRules, Claims
from sidecar.jwt.issuer_names import IssuerTemplate, is_template
from sidecar.jwt.jwks.cache import JwksSource
from sidecar.jwt.jwks.jwk import Key, VerificationKey

ACCEPTED_TYP = ("JWT", "at+jwt", "absent")  # RFC 7519 section 5.1, RFC 9068 section 4

_PLACE = re.compile(r"\{[^{}]*\}")
Keys = list[tuple[VerificationKey, Key]]


class Policy(Protocol):
    """What verified claims must hold beyond `ClaimRules`: checks by name, each of which raises Rejection."""

    @property
    def checks(self) -> Sequence[tuple[str, Callable[[Claims], None]]]: ...


class Issuer:
    """One trusted issuer: what its tokens must be signed with and what they must claim, by `rules` and then by `policy`.

    `aliases` are other `iss` values of the same issuer; it and they may be templates (jwt/issuer_names.py). `assumed`: it is the
    issuer of tokens that have no `iss`. `signer` is what the header's member of this name must be.
    `accepted_typ` are the values of the header's `typ` (RFC 8725 section 3.11); the word `absent` stands for none.
    `allow_padding`: the parts of its tokens may be padded with `=`.
    """

    __slots__ = (
        "accepted_typ", "algorithms", "aliases", "allow_padding", "assumed", "issuer", "name", "policy", "rules", "signer",
        "source", "templates",
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
        self.assumed = assumed
        self.signer = signer
        self.templates = tuple(IssuerTemplate(iss) for iss in (issuer, *aliases) if is_template(iss))
        self.policy = policy
        self.aliases = tuple(aliases)
        self.issuer = issuer
        self.algorithms = frozenset(algorithms)
        self.rules = rules
        self.source = source
        self.allow_padding = allow_padding
        self.accepted_typ = frozenset(map(media_type, accepted_typ))

    def keys_of_tenant(self, keys: Keys, claims: Mapping[str, Any]) -> Keys:
        """Those that are published for the tenant of this token. Raises Rejection when there are none.

        A key set of many tenants says of each key whose tokens it signs: the `issuer` of its JWK is the token's `iss`, or what
        the first of the templates is for this token; `{...}` in it stands for the tenant, whatever it is called there.
        """
        first = self.templates[0]
        tenant, primary = str(claims.get(first.claim)), first.filled_by(claims)
        allowed = (None, primary, claims.get("iss"))
        fitting = [
            pair for pair in keys if (pair[0].issuer and _PLACE.sub(lambda _: tenant, pair[0].issuer)) in allowed
        ]
        if not fitting:
            raise Rejection(Reason.KEY_UNKNOWN, "The issuer publishes this key for the tokens of another tenant.")
        return fitting


def media_type(typ: str) -> str:
    """A `typ` for comparing: in any case, and `application/` may be left out (RFC 7515 section 4.1.9)."""
    return typ.lower().removeprefix("application/")
