"""TLS contexts from the files that the configuration names: towards backends and issuers, and on the proxy's own listener."""

import logging
import ssl
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from sidecar.common.errors import Unusable

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
        raise Unusable(f"{cert_file}: no certificate with its key in PEM could be read from it") from error
    return context


def _no_password() -> str:
    raise ValueError("an encrypted key needs a password, and nobody is there to type it")


class Renewed:
    """A context that is made again when one of its files has changed, so that renewed certificates need no restart.

    While the new files cannot be used the old context goes on.
    """

    def __init__(self, make: Callable[[], ssl.SSLContext], files: Iterable[Path | None]) -> None:
        self._make = make
        self._files = [file for file in files if file is not None]
        self._seen = self._stamps()
        self._context = make()

    def __call__(self) -> ssl.SSLContext:
        """The context for a new connection."""
        stamps = self._stamps()
        if stamps != self._seen:
            self._seen = stamps
            try:
                self._context = self._make()
            except Unusable as error:
                log.warning(
                    "event=certificate_not_renewed why=%r do='The old one goes on: mend the files.'", str(error)
                )
        return self._context

    def _stamps(self) -> list[tuple[int, int] | None]:
        stamps: list[tuple[int, int] | None] = []
        for file in self._files:
            try:
                state = file.stat()
            except OSError:
                stamps.append(None)
            else:
                stamps.append((state.st_mtime_ns, state.st_ino))
        return stamps
