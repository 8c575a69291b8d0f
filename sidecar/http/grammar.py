"""The lines of a head and their characters (RFC 9110 section 5, RFC 9112 sections 2 to 5), parsed strictly.

Bytes that another program might read differently are refused: a bare CR or LF, NUL and other controls, a folded line, a blank
before a colon. Requests and answers share the grammar.
"""

import re
from typing import Final

END_OF_HEAD: Final = b"\r\n\r\n"

# RFC 9110 section 5.6.2.
TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_CONTROLS: Final = bytes([*range(0x09), *range(0x0A, 0x20), 0x7F])  # all but the tab
_MARKED: Final = bytes.maketrans(_CONTROLS, b"?" * len(_CONTROLS))


class ProtocolError(Exception):
    """Bytes that are not acceptable HTTP/1.1.

    `rule` is a sentence about the broken rule, without any of the bytes. `too_large`: they break a limit, not the grammar.
    """

    def __init__(self, rule: str, *, too_large: bool = False) -> None:
        super().__init__(rule)
        self.rule = rule
        self.too_large = too_large


def split_head(head: bytes) -> list[bytes]:
    """Split a head that ends in CRLFCRLF into its lines, without CRLF: the first line, then the field lines.

    Their characters are not checked yet: `refuse_controls` does that, unless a line is known.
    """
    lines = head.split(b"\r\n")
    del lines[-2:]  # the empty line, and what comes after it
    return lines


def refuse_controls(line: bytes) -> None:
    """Raise ProtocolError if a line, or lines without their CRLF, hold control characters other than tabs."""
    if line.translate(_MARKED) != line:
        if b"\r" in line or b"\n" in line:
            raise ProtocolError("A line must end in CRLF.")
        raise ProtocolError("A head must not hold control characters.")


def split_field(line: bytes) -> tuple[bytes, bytes]:
    """Split a field line into (name, value), without the blanks around the value. Raises ProtocolError."""
    name, colon, value = line.partition(b":")
    if not colon or TOKEN.fullmatch(name) is None:
        raise ProtocolError("A header line must be a name, a colon and a value.")
    return name, value.strip(b" \t")


def options(values: list[bytes]) -> set[bytes]:
    """The members of a comma-separated header such as `Connection`, in lower case (RFC 9110 sections 5.6.1 and 7.6.1)."""
    return {option.strip(b" \t").lower() for value in values for option in value.split(b",")} - {b""}
