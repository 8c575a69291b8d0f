"""A certificate authority of the test run, for peers that speak TLS on 127.0.0.1."""

import functools
import ssl

import trustme


@functools.cache
def authority() -> trustme.CA:
    """The authority; its PEM is `authority().cert_pem.bytes()`."""
    return trustme.CA()


def server_tls() -> ssl.SSLContext:
    """A server's context with a certificate for 127.0.0.1 and localhost."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority().issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """A client's context that trusts only the authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority().configure_trust(context)
    return context
