"""The issuers of the tokens: keys, signed tokens, and a loopback server for their key sets."""

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from itertools import pairwise

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jose import jwk, jwt

from benchmarks.loopback import Handler, listening

AUDIENCE = "bench"
LIFETIME_S = 86_400


class Issuer:
    """One issuer with one key. `iss` is its URL; the key set is at `jwks_uri`."""

    def __init__(self, name: str, algorithm: str, base: str) -> None:
        """`algorithm`: RS256 (a 2048 bit key) or ES256; `base`: the URL of the server that publishes it."""
        self.name = name
        self.algorithm = algorithm
        self.iss = f"{base}/{name}"
        self.jwks_uri = f"{self.iss}/.well-known/jwks.json"
        private = (
            rsa.generate_private_key(65537, 2048) if algorithm == "RS256" else ec.generate_private_key(ec.SECP256R1())
        )
        self._key = jwk.construct(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
            algorithm,
        )
        self.public_pem: str = self._key.public_key().to_pem().decode()
        self.jwks = {"keys": [{**self._key.public_key().to_dict(), "kid": name, "use": "sig", "alg": algorithm}]}

    def token(self, **changes: object) -> str:
        """A signed token with an identity of its own; `changes` replace claims."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.iss,
            "aud": AUDIENCE,
            "sub": f"user-{secrets.token_hex(6)}",
            "scope": "orders:read orders:write",
            "iat": now,
            "exp": now + LIFETIME_S,
            "jti": secrets.token_hex(12),
        }
        token: str = jwt.encode({**claims, **changes}, self._key, self.algorithm, headers={"kid": self.name})
        return token

    def tokens(self, count: int) -> list[str]:
        """`count` tokens, all different."""
        return [self.token() for _ in range(count)]

    def expired(self) -> str:
        """A token that ended an hour ago, with a good signature."""
        return self.token(exp=int(time.time()) - 3600)

    def forged(self, count: int) -> list[str]:
        """`count` tokens, all different, each with the signature of another token."""
        signed = self.tokens(count + 1)
        return [f"{one.rpartition('.')[0]}.{other.rpartition('.')[2]}" for one, other in pairwise(signed)]


class Issuers:
    """The issuers of a run, whose key sets one server publishes."""

    def __init__(self) -> None:
        """None yet; `base`, the URL of that server, is set when it listens."""
        self.base = ""
        self._key_sets: dict[str, bytes] = {}

    def add(self, name: str, algorithm: str = "RS256") -> Issuer:
        """A new issuer of that name, published at once."""
        issuer = Issuer(name, algorithm, self.base)
        self._key_sets[f"/{name}/.well-known/jwks.json"] = json.dumps(issuer.jwks).encode()
        return issuer

    def key_set(self, path: str) -> bytes | None:
        """The document at `path`."""
        return self._key_sets.get(path)


@contextlib.contextmanager
def serving_issuers() -> Iterator[Issuers]:
    """`Issuers` whose key sets can be fetched."""
    issuers = Issuers()

    class KeySets(Handler):
        def do_GET(self) -> None:
            key_set = issuers.key_set(self.path)
            self.answer(404 if key_set is None else 200, key_set or b"{}")

    with listening(KeySets) as port:
        issuers.base = f"http://127.0.0.1:{port}"
        yield issuers
