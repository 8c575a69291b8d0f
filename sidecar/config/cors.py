"""The origins whose pages may read the sidecar's own answers, in the configuration."""

import re
from typing import Annotated

from pydantic import AfterValidator, StrictBool

from sidecar.config.struct import Struct, check, key
from sidecar.config.values import NonEmpty, Seconds
from sidecar.config.yaml_source import Section

ANY = "*"
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORT = re.compile(r"http://.*:80|https://.*:443")


def _origin(value: str) -> str:
    if value == "null":
        raise ValueError("is the origin of every sandboxed page; name the origins that you mean")
    if value != ANY and not _ORIGIN.fullmatch(value):
        raise ValueError(
            "{input} is not an origin as browsers send it: scheme and host in lower case, without a path or a final /, such as "
            "https://app.example.com; or * alone for all"
        )
    if _DEFAULT_PORT.fullmatch(value):
        raise ValueError("{input} has the default port of its scheme, which browsers do not send; leave it out")
    return value


class Cors(Struct):
    """The answers that pages of other origins may read."""

    origins: NonEmpty[Annotated[str, AfterValidator(_origin)]] = key(
        "The origins, such as https://app.example.com; or [*] for all. The sidecar answers their preflights."
    )
    credentials: StrictBool = key("Also the answers to requests with cookies; not with [*].", False)
    max_age_s: Seconds = key("How long a browser may cache the answer to a preflight.", 600.0, "max_age")

    @check("origins")
    def _all_or_some(self, section: Section) -> None:
        if ANY in self.origins and len(self.origins) > 1:
            section.report("means all origins; write it alone, or name the origins", "origins", self.origins.index(ANY))

    @check("origins", "credentials")
    def _not_all_with_cookies(self, section: Section) -> None:
        if ANY in self.origins and self.credentials:
            text = "would let every page read answers to requests with the visitor's cookies; name the origins instead of *"
            section.report(text, "credentials")
