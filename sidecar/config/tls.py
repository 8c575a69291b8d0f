"""TLS in the configuration: to other servers, and on the listener."""

from typing import Annotated

from pydantic import AfterValidator, StrictBool, ValidationInfo

from sidecar.config.addresses import ServerName
from sidecar.config.struct import Struct, check, key
from sidecar.config.values import ConfigFile, surroundings
from sidecar.config.yaml_source import Section


def _insecure(value: bool, info: ValidationInfo) -> bool:
    if value and surroundings(info).environ.get("ALLOW_INSECURE") != "1":
        raise ValueError(
            "lets an attacker on the way pose as the server; if you accept that, also set ALLOW_INSECURE=1"
        )
    return value


class ClientTls(Struct):
    """TLS to another server. Changed files are used within 5s, for new connections."""

    ca_file: ConfigFile | None = key("Authorities to trust instead of the system's (PEM).", None)
    cert_file: ConfigFile | None = key("The client certificate (PEM).", None)
    key_file: ConfigFile | None = key("Its private key (PEM). Left out: it is in cert_file.", None)
    server_name: ServerName | None = key("The name in the server's certificate, if it is not the URL's host.", None)
    insecure_skip_verify: Annotated[StrictBool, AfterValidator(_insecure)] = key(
        "true: do not verify the server's certificate. Also needs ALLOW_INSECURE=1 in the environment.", False
    )

    @check()
    def _a_key_belongs_to_a_certificate(self, section: Section) -> None:
        if "key_file" in section and "cert_file" not in section:
            section.report("needs cert_file; add cert_file, or remove it", "key_file")

    @check("insecure_skip_verify")
    def _an_authority_verifies(self, section: Section) -> None:
        if self.insecure_skip_verify and "ca_file" in section:
            section.report("contradicts ca_file; keep one of the two", "insecure_skip_verify")


class ListenerTls(Struct):
    """TLS on the listener. The files are read again when they change."""

    cert_file: ConfigFile = key("The certificate with its chain (PEM).")
    key_file: ConfigFile | None = key("Its private key (PEM). Left out: it is in cert_file.", None)
    client_ca_file: ConfigFile | None = key(
        "Authorities (PEM); clients need a certificate of one of them. Left out: none.", None
    )
