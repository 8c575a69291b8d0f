"""TLS contexts from the configured files: for connections to backends and issuers, and for the proxy's listener."""

import socket
import ssl
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.common.errors import Unusable
from sidecar.common.file_content import check_regular
from sidecar.common.watched_file import WatchedFile, unread


def client_context(
    ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """The context of a TLS client. `ca_file` replaces the system's authorities. `cert_file` is the client certificate, with its
    key in `key_file` or in the same file. Raises Unusable.
    """
    if ca_file is not None:
        check_regular(ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise Unusable(f"{ca_file}: holds no PEM certificates of authorities") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        load_certificate(context, cert_file, key_file)
    return context


@cache
def system_context() -> ssl.SSLContext:
    """The context of a TLS client that trusts the system's authorities. To read them takes 60 ms: call it once, off the loop."""
    return client_context()


def server_context(cert_file: Path, key_file: Path | None, client_ca_file: Path | None) -> ssl.SSLContext:
    """The context of a TLS server. With `client_ca_file`, clients need a certificate of these authorities. Raises Unusable."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    load_certificate(context, cert_file, key_file)
    if client_ca_file is not None:
        check_regular(client_ca_file)
        try:
            context.load_verify_locations(client_ca_file)
        except (OSError, ValueError) as error:
            raise Unusable(f"{client_ca_file}: holds no PEM certificates of authorities") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def renewed_context(make: Callable[..., ssl.SSLContext], *files: Path | None) -> WatchedFile[ssl.SSLContext]:
    """The context that `make` makes from these files, made again when they change. Raises Unusable."""
    return WatchedFile(files, lambda *_: make(*files))


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """Load a certificate and its key. Raises Unusable."""
    for file in {cert_file, key_file or cert_file}:
        check_regular(file)
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise Unusable(_why_not(cert_file, key_file or cert_file)) from error
    return context


def _no_password() -> str:
    raise ValueError("an encrypted key needs a password")


def _why_not(cert_file: Path, key_file: Path) -> str:
    """Why a certificate and its key cannot be used; names the file at fault."""
    for file in (cert_file, key_file):
        try:
            content = file.read_bytes()
        except OSError as error:
            return unread(file, error)
        if file == key_file and b"ENCRYPTED" in content:
            return (
                f"{key_file}: the key is encrypted, and nobody can type the password; decrypt it: openssl pkey -in FILE"
            )
    try:
        chain = x509.load_pem_x509_certificates(cert_file.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        return f"{cert_file}: holds no PEM certificate with its key"
    try:
        key = load_pem_private_key(key_file.read_bytes(), None).public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return f"{key_file}: holds no PEM private key"
    fitting = [at for at, one in enumerate(chain) if one.public_key() == key]
    if fitting and fitting[0] > 0:
        return f"{cert_file}: the chain is in the wrong order; put the key's certificate first, then its issuers"
    if not fitting:
        return f"{key_file}: the key does not belong to the certificate in {cert_file}"
    return f"{cert_file}: holds no PEM certificate with its key"


def certificate_time(cert_file: Path, now: float) -> str | None:
    """Why a certificate is not valid at this Unix time: expired, or not valid yet. None if it is valid."""
    try:
        own = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion):
        return None  # `load_certificate` reports it
    if now > own.not_valid_after_utc.timestamp():
        return f"{cert_file}: the certificate expired at {own.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if now < own.not_valid_before_utc.timestamp():
        return f"{cert_file}: the certificate is not valid before {own.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    return None


def why_not_connected(error: OSError) -> str:
    """Why the sidecar could not connect to a backend, for operators."""
    match error:
        case ssl.SSLCertVerificationError():
            return _UNTRUSTED.get(error.verify_code, "The backend's certificate is not trusted.")
        case ssl.SSLError():
            no_tls = any(part in (error.reason or "") for part in ("WRONG_VERSION", "RECORD_LAYER", "PACKET_LENGTH"))
            if no_tls:
                return "The backend does not speak TLS on this port, perhaps plain http; the upstream's url says https."
            return "The sidecar and the backend have no common TLS version or cipher."
        case socket.gaierror():
            return "The backend's host name cannot be resolved."
        case ConnectionRefusedError():
            return NOTHING_LISTENS
        case FileNotFoundError():
            return "The backend's socket does not exist."
        case PermissionError():
            return "The sidecar's user has no permission to open the backend's socket."
    return "The backend's address cannot be reached."


def failed_handshake(error: OSError) -> str:
    """Why a client's handshake failed, as one of FAILED_HANDSHAKES."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate_expired" if error.verify_code in _EXPIRED else "certificate_untrusted"
    if not isinstance(error, ssl.SSLError):
        return "timeout" if isinstance(error, ConnectionAbortedError) else "client_left"
    reason = error.reason or ""
    return next((cause for part, cause in _REASONS.items() if part in reason), "other")


NOTHING_LISTENS = "Nothing listens at the backend's address."
_UNTRUSTED = {  # by OpenSSL's X509_V_ERR_*
    9: "The backend's certificate is not valid yet.",
    10: "The backend's certificate has expired.",
    18: "The backend's certificate is self-signed and is not in the upstream's tls.ca_file.",
    19: "The backend's certificate comes from an authority that is not in the upstream's tls.ca_file.",
    20: "The backend's certificate comes from an authority that is not in the upstream's tls.ca_file.",
    21: "The backend's certificate comes from an authority that is not in the upstream's tls.ca_file.",
    62: "The backend's certificate is for another host name; set tls.server_name to that name.",
    64: "The backend's certificate is for another address; set tls.server_name to the name in the certificate.",
}
_EXPIRED = (9, 10)  # X509_V_ERR_CERT_NOT_YET_VALID and _HAS_EXPIRED
_REASONS = {
    "DID_NOT_RETURN_A_CERTIFICATE": "no_certificate",
    "HTTP_REQUEST": "plain_http",
    "UNSUPPORTED_PROTOCOL": "old_version",
    "WRONG_VERSION": "no_tls",
    "UNEXPECTED_EOF": "client_left",
    "NO_SHARED_CIPHER": "no_shared_cipher",
    "ALERT": "refused_by_client",
}
FAILED_HANDSHAKES = {
    "no_certificate": "The client sent no certificate; give it one of an authority in tls.client_ca_file.",
    "certificate_untrusted": "The client's certificate comes from an authority that is not in tls.client_ca_file.",
    "certificate_expired": "The client's certificate has expired, or a clock is wrong; renew it or set the clock.",
    "plain_http": "The client speaks plain http on this port; let it use https.",
    "old_version": "The client speaks TLS 1.1 or older; update it to TLS 1.2.",
    "no_tls": "The first bytes are not TLS; find the program that connects to this port.",
    "no_shared_cipher": "The client and the sidecar have no common cipher; update the client.",
    "refused_by_client": "The client does not trust the certificate; check tls.cert_file and its chain.",
    "timeout": "The client began a handshake and sent nothing more; check the network and the client.",
    "client_left": "The client closed the connection during the handshake, as TCP health checks do.",
    "other": "Look at the client's log for the cause.",
}
