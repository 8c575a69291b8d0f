"""TLS contexts from the files that the configuration names: towards backends and issuers, and on the proxy's own listener."""

import logging
import socket
import ssl
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sidecar.common.errors import Unusable, unforeseen

log = logging.getLogger("sidecar.tls")


def client_context(
    ca_file: Path | None = None, cert_file: Path | None = None, key_file: Path | None = None, *, verify: bool = True
) -> ssl.SSLContext:
    """For connecting: `ca_file` replaces the system's authorities, `cert_file` (with its key in `key_file`, or inside) is shown
    to a peer that asks for a certificate. Raises Unusable.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:
        raise Unusable(f"{ca_file}: no certificates of authorities in PEM could be read from it") from error
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if cert_file is not None:
        load_certificate(context, cert_file, key_file)
    return context


@cache
def system_context() -> ssl.SSLContext:
    """For connecting to whoever the system's authorities vouch for. Made once, off the loop: reading them takes 60 ms."""
    return client_context()


def server_context(cert_file: Path, key_file: Path | None, client_ca_file: Path | None) -> ssl.SSLContext:
    """For listening: with `client_ca_file` only clients with a certificate of these authorities. Raises Unusable."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return load_server_files(context, cert_file, key_file, client_ca_file)


def load_server_files(
    context: ssl.SSLContext, cert_file: Path, key_file: Path | None, client_ca_file: Path | None
) -> ssl.SSLContext:
    """Load the files of a listener, also again when they were renewed. Authorities come to those of before. Raises Unusable."""
    load_certificate(context, cert_file, key_file)
    if client_ca_file is not None:
        try:
            context.load_verify_locations(client_ca_file)
        except (OSError, ValueError) as error:
            raise Unusable(f"{client_ca_file}: no certificates of authorities in PEM could be read from it") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def load_certificate(context: ssl.SSLContext, cert_file: Path, key_file: Path | None) -> ssl.SSLContext:
    """Load a certificate and its key, also again when they were renewed: the next handshake shows them. Raises Unusable."""
    try:
        # First into a context that nobody uses: a certificate without its key would take the one that is in use away.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert_file, key_file, password=_no_password)
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except (OSError, ValueError) as error:
        raise Unusable(_why_not(cert_file, key_file or cert_file)) from error
    return context


def _no_password() -> str:
    raise ValueError("an encrypted key needs a password, and nobody is there to type it")


def _why_not(cert_file: Path, key_file: Path) -> str:
    """Why a certificate and its key cannot be used, by the file that is at fault."""
    for file in (cert_file, key_file):
        try:
            content = file.read_bytes()
        except OSError as error:
            return f"{file}: cannot be read: {error.strerror}"
        if file == key_file and b"ENCRYPTED" in content:
            return f"{key_file}: the key is encrypted, and nobody is there to type a password; decrypt it: openssl pkey -in FILE"
    try:
        chain = x509.load_pem_x509_certificates(cert_file.read_bytes())
    except (OSError, ValueError):
        return f"{cert_file}: no certificate with its key in PEM could be read from it"
    try:
        key = load_pem_private_key(key_file.read_bytes(), None).public_key()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm):
        return f"{key_file}: no private key in PEM could be read from it"
    fitting = [at for at, one in enumerate(chain) if one.public_key() == key]
    if fitting and fitting[0] > 0:
        return f"{cert_file}: the chain is in the wrong order: the certificate of the key must come first, its issuers after it"
    if not fitting:
        return f"{key_file}: the key is not that of the certificate in {cert_file}"
    return f"{cert_file}: no certificate with its key in PEM could be read from it"


def certificate_time(cert_file: Path, now: float) -> str | None:
    """Why a certificate cannot be in use at this Unix time: it has expired, or is not valid yet. None where it can."""
    try:
        own = x509.load_pem_x509_certificate(cert_file.read_bytes())
    except (OSError, ValueError):
        return None  # said by whoever loads it
    if now > own.not_valid_after_utc.timestamp():
        return f"{cert_file}: the certificate expired at {own.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"
    if now < own.not_valid_before_utc.timestamp():
        return f"{cert_file}: the certificate is not valid before {own.not_valid_before_utc:%Y-%m-%dT%H:%M:%SZ}"
    return None


def why_not_connected(error: OSError) -> str:
    """Why a connection to a backend could not be made, for its operator."""
    match error:
        case ssl.SSLCertVerificationError():
            return _UNTRUSTED.get(error.verify_code, "The backend's certificate is not trusted.")
        case ssl.SSLError():
            no_tls = any(part in (error.reason or "") for part in ("WRONG_VERSION", "RECORD_LAYER", "PACKET_LENGTH"))
            if no_tls:
                return "The backend speaks no TLS there, plain http perhaps; the upstream's url says https."
            return "The backend and this side could not agree on TLS."
        case socket.gaierror():
            return "The backend's host name cannot be resolved."
        case ConnectionRefusedError():
            return "Nothing listens at the backend's address."
        case FileNotFoundError():
            return "The backend's socket is not there."
        case PermissionError():
            return "The backend's socket may not be opened by this user."
    return "The backend's address cannot be reached."


def failed_handshake(error: OSError) -> str:
    """Why a client's handshake failed, as one of FAILED_HANDSHAKES."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "certificate_expired" if error.verify_code in _EXPIRED else "certificate_untrusted"
    if not isinstance(error, ssl.SSLError):
        return "timeout" if isinstance(error, ConnectionAbortedError) else "client_left"
    reason = error.reason or ""
    return next((cause for part, cause in _REASONS.items() if part in reason), "other")


_UNTRUSTED = {  # by OpenSSL's X509_V_ERR_*
    9: "The backend's certificate is not valid yet.",
    10: "The backend's certificate has expired.",
    18: "The backend's certificate is signed by itself, and is not in the upstream's tls.ca_file.",
    19: "The backend's certificate is of an authority that is not in the upstream's tls.ca_file.",
    20: "The backend's certificate is of an authority that is not in the upstream's tls.ca_file.",
    21: "The backend's certificate is of an authority that is not in the upstream's tls.ca_file.",
    62: "The backend's certificate is for another host name; tls.server_name says which one it should be.",
    64: "The backend's certificate is for another address; tls.server_name says which name it has.",
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
    "no_certificate": "The client showed none; give it one of an authority in tls.client_ca_file.",
    "certificate_untrusted": "The client's certificate is of another authority than tls.client_ca_file has.",
    "certificate_expired": "The client's certificate has expired, or one of the two clocks is wrong.",
    "plain_http": "The client speaks plain http to this port; it must use https.",
    "old_version": "The client speaks TLS 1.1 or older; renew it.",
    "no_tls": "What came is no TLS; look at who sends to this port.",
    "no_shared_cipher": "The client knows none of the ciphers; renew it.",
    "refused_by_client": "The client does not trust this certificate; look at tls.cert_file and its chain.",
    "timeout": "The client began a handshake and said no more.",
    "client_left": "The client left within the handshake, as health checks by TCP do.",
    "other": "Look at the client's own log.",
}


class Renewed:
    """A context that is made again when one of its files has changed, so that renewed certificates need no restart.

    While the new files cannot be used the old context goes on, they are tried again each time, and `problem` says why.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: Iterable[Path | None]) -> None:
        self._make = make
        self.files = [file for file in files if file is not None]
        self.problem: str | None = None
        self._seen = self._stamps()
        self._context = make()

    def __call__(self) -> ssl.SSLContext:
        """The context for a new connection."""
        stamps = self._stamps()
        if stamps != self._seen or self.problem is not None:
            self._seen = stamps
            try:
                self._context = self._make()
            except Exception as error:  # noqa: BLE001  # whatever the files hold, it ends nothing that runs
                why = str(error) if isinstance(error, Unusable) else unforeseen(error)
                if why != self.problem:
                    log.warning("event=certificate_not_renewed why=%r do='The old one goes on: mend the files.'", why)
                self.problem = why
            else:
                self.problem = None
                log.info("event=certificate_renewed files=%s", ",".join(map(str, self.files)))
        return self._context

    def _stamps(self) -> list[tuple[int, int] | None]:
        stamps: list[tuple[int, int] | None] = []
        for file in self.files:
            try:
                state = file.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((state.st_mtime_ns, state.st_ino))
        return stamps
