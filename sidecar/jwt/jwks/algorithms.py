"""The signature algorithms of tokens, and the python-jose keys that verify them. No other module imports jose.

python-jose registers a `Key` class for each algorithm, and makes the keys. It verifies HS* itself. The classes here are for PS*
and EdDSA, which it lacks, and for RS* and ES*: they make the objects of a check once, not for each token.
"""

from collections.abc import Collection
from hashlib import sha256, sha384, sha512
from typing import Any, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from jose import jwk
from jose.backends.base import Key as JoseKey
from jose.backends.cryptography_backend import CryptographyECKey, CryptographyRSAKey
from jose.exceptions import JOSEError

from sidecar.jwt.compact_jws import base64url

PKCS1_ALGORITHMS = ("RS256", "RS384", "RS512")
PSS_ALGORITHMS = ("PS256", "PS384", "PS512")
RSA_ALGORITHMS = (*PKCS1_ALGORITHMS, *PSS_ALGORITHMS)
EC_ALGORITHMS = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}  # RFC 7518 section 3.4: one curve each
SAME_ALGORITHM = {"Ed25519": "EdDSA"}  # RFC 9864 adds the name; Ed25519 is the only supported curve
ALGORITHMS = (*RSA_ALGORITHMS, *EC_ALGORITHMS.values(), "EdDSA")
SECRET_ALGORITHMS = ("HS256", "HS384", "HS512")

# By the last digits of an algorithm's name.
_DIGESTS = {"256": sha256, "384": sha384, "512": sha512}
_HASHES: dict[str, hashes.HashAlgorithm] = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
_DIGEST_INFO = {  # a DigestInfo up to its hash: RFC 8017 section 9.2, the first note
    "256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "512": bytes.fromhex("3051300d060960864801650304020305000440"),
}


class Key(Protocol):
    """The part of a python-jose key that the program uses (docs/project/python-jose.md)."""

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """True when `sig` is this key's signature of `msg`."""


class RsaKey(CryptographyRSAKey):  # type: ignore[misc]
    """An RSA key for one algorithm. jose reads its numbers."""

    def __init__(self, key: dict[str, Any], algorithm: str) -> None:
        super().__init__(key, "RS256")  # a name that jose knows
        self._digest = _DIGESTS[algorithm[2:]]
        self._length = (self.prepared_key.key_size + 7) // 8


class Pkcs1Key(RsaKey):
    """RSASSA-PKCS1-v1_5 (RFC 7518 section 3.3).

    OpenSSL removes the padding, which has one form, and the rest must be the DigestInfo of the message, byte for byte. `verify`
    of a key decides the same, and takes 1 us more, 2 us for a wrong signature (RFC 8017 section 8.2.2, the note on decoding).
    """

    def __init__(self, key: dict[str, Any], algorithm: str) -> None:
        super().__init__(key, algorithm)
        self._digest_info = _DIGEST_INFO[algorithm[2:]]
        self._padding = padding.PKCS1v15()

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """True when `sig` is this key's signature of `msg`."""
        if len(sig) != self._length:  # RFC 8017 section 8.2.2
            return False
        try:
            signed = self.prepared_key.recover_data_from_signature(sig, self._padding, None)
        except InvalidSignature:
            return False
        return bool(signed == self._digest_info + self._digest(msg).digest())


class PssKey(RsaKey):
    """RSASSA-PSS (RFC 7518 section 3.5): MGF1 and a salt as long as the hash."""

    def __init__(self, key: dict[str, Any], algorithm: str) -> None:
        super().__init__(key, algorithm)
        hashed = _HASHES[algorithm[2:]]
        self._hash = Prehashed(hashed)
        self._padding = padding.PSS(padding.MGF1(hashed), hashed.digest_size)

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """True when `sig` is this key's signature of `msg`."""
        if len(sig) != self._length:  # RFC 8017 section 8.1.2; OpenSSL also accepts one without its leading zero
            return False
        try:
            self.prepared_key.verify(sig, self._digest(msg).digest(), self._padding, self._hash)
        except InvalidSignature:
            return False
        return True


class EcKey(CryptographyECKey):  # type: ignore[misc]
    """ECDSA (RFC 7518 section 3.4): a signature is two numbers, each as long as the curve's. jose reads the key's numbers."""

    def __init__(self, key: dict[str, Any], algorithm: str) -> None:
        super().__init__(key, algorithm)
        self._digest = _DIGESTS[algorithm[2:]]
        self._ecdsa = ec.ECDSA(Prehashed(_HASHES[algorithm[2:]]))
        self._length = (self.prepared_key.key_size + 7) // 8

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """True when `sig` is this key's signature of `msg`."""
        length = self._length
        if len(sig) != 2 * length:
            return False
        encoded = encode_dss_signature(int.from_bytes(sig[:length]), int.from_bytes(sig[length:]))
        try:
            self.prepared_key.verify(encoded, self._digest(msg).digest(), self._ecdsa)
        except InvalidSignature:
            return False
        return True


class Ed25519Key(JoseKey):  # type: ignore[misc]
    """EdDSA with Ed25519 (RFC 8037 section 3.1)."""

    def __init__(self, key: dict[str, Any], _algorithm: str) -> None:
        self._key = Ed25519PublicKey.from_public_bytes(base64url(key["x"].rstrip("=").encode()))

    def verify(self, msg: bytes, sig: bytes) -> bool:
        """True when `sig` is this key's signature of `msg`."""
        try:
            self._key.verify(sig, msg)
        except InvalidSignature:
            return False
        return True


_CLASSES: dict[str, type[JoseKey]] = {
    **dict.fromkeys(PKCS1_ALGORITHMS, Pkcs1Key),
    **dict.fromkeys(PSS_ALGORITHMS, PssKey),
    **dict.fromkeys(EC_ALGORITHMS.values(), EcKey),
    "EdDSA": Ed25519Key,
}
for _name, _class in _CLASSES.items():
    jwk.register_key(_name, _class)


def keys_for(material: dict[str, str] | bytes, algorithms: Collection[str]) -> dict[str, Key]:
    """A key for each algorithm, from the members of a JWK or from a secret. Raises ValueError if they make no key."""
    keys: dict[str, Key] = {}
    numbers: Any = material
    try:
        for name in algorithms:
            made = keys[name] = jwk.construct(numbers, name)
            if isinstance(made, RsaKey):  # parsed once for all its algorithms: parsing takes 0.1 ms
                numbers = made.prepared_key
    except (JOSEError, TypeError, KeyError) as error:
        raise ValueError("no key") from error
    return keys
