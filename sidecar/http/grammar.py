"""The lines of a head and their characters (RFC 9110 section 5, RFC 9112 sections 2 to 5), parsed strictly.

Bytes that another program might read differently are refused: a bare CR or LF, NUL and other controls, a folded line, a blank
before a colon. Requests and answers share the grammar.
"""

import re

END_OF_HEAD = b"\r\n\r\n"

# RFC 9110 section 5.6.2.
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ALLOWED = bytes([0x09, 0x0D, 0x0A, *range(0x20, 0x7F), *range(0x80, 0x100)])


class ProtocolError(Exception):
    """Bytes that are not acceptable HTTP/1.1.

    `rule` is a sentence about the broken rule, without any of the bytes. `too_large`: they break a limit, not the grammar.
    """

    def __init__(self, rule: str, *, too_large: bool = False) -> None:
        super().__init__(rule)
        self.rule = rule
        self.too_large = too_large


def split_head(head: bytes) -> list[bytes]:
    """Split a head that ends in CRLFCRLF into its lines, without line ends: the first line, then the field lines.

    Raises ProtocolError.
    """
    lines = head.splitlines()  # which end in CR, in LF, or in both
    text = b"".join(lines)
    if len(text) + 2 * len(lines) != len(head):
        raise ProtocolError("A line must end in CRLF.")
    refuse_controls(text)
    del lines[-1]
    return lines


def refuse_controls(part: bytes) -> None:
    """Raise ProtocolError if a part of a head holds control characters other than CR, LF and tab."""
    if part.translate(None, _ALLOWED):
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
