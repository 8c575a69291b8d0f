"""Whose pages may read the sidecar's own answers, in the configuration."""

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
        raise ValueError("is what every page in a sandbox says; name the origins that are meant")
    if value != ANY and not _ORIGIN.fullmatch(value):
        raise ValueError(
            "{input} is not an origin as browsers write it: scheme and host in lower case, without a path or a final /, such as "
            "https://app.example.com; or * alone for all"
        )
    if _DEFAULT_PORT.fullmatch(value):
        raise ValueError(
            "{input} is written without its port by browsers, since that is the scheme's own; leave it out"
        )
    return value


class Cors(Struct):
    """What pages of other origins may read."""

    origins: NonEmpty[Annotated[str, AfterValidator(_origin)]] = key(
        "Their origins, such as https://app.example.com; or [*] for every page. Their preflights are answered here."
    )
    credentials: StrictBool = key("Also answers to requests with cookies; never with [*].", False)
    max_age_s: Seconds = key("How long a browser keeps the answer to a preflight.", 600.0, "max_age")

    @check("origins")
    def _all_or_some(self, section: Section) -> None:
        if ANY in self.origins and len(self.origins) > 1:
            section.report("stands for all; write it alone, or name the origins", "origins", self.origins.index(ANY))

    @check("origins", "credentials")
    def _not_all_with_cookies(self, section: Section) -> None:
        if ANY in self.origins and self.credentials:
            text = "would let every page read what the visitor's cookies are good for; name the origins instead of *"
            section.report(text, "credentials")
