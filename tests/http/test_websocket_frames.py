"""Frames end at the right byte for every cut of the stream. A close frame has its code and reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sidecar.http.websocket_frames import MAX_FRAMES, Frames, close_frame
from tests.http.streams import byte_by_byte, cut


def frame(payload: bytes, *, masked: bool = False, longer: int = 0) -> bytes:
    """A frame; with `longer` its length has more bytes than necessary."""
    mask = b"abcd" if masked else b""
    bit = 0x80 if masked else 0
    if len(payload) < 126 and not longer:
        head = bytes([bit | len(payload)])
    elif longer < 2 and len(payload) < 2**16:
        head = bytes([bit | 126]) + len(payload).to_bytes(2, "big")
    else:
        head = bytes([bit | 127]) + len(payload).to_bytes(8, "big")
    return b"\x82" + head + mask + payload


FRAMES = [
    frame(b""), frame(b"a"), frame(b"a" * 125), frame(b"a" * 126), frame(b"a" * 65_535), frame(b"a" * 65_536),
    frame(b"", masked=True), frame(b"hello", masked=True), frame(b"a" * 126, masked=True), frame(b"a" * 65_536, masked=True),
    frame(b"a", longer=1), frame(b"", longer=2, masked=True),
]  # fmt: skip


@pytest.mark.parametrize("raw", FRAMES, ids=range(len(FRAMES)))
def test_a_frame_is_counted_to_its_end(raw: bytes) -> None:
    frames = Frames()
    assert frames.between
    assert frames.count(raw[:-1]) == len(raw) - 1
    assert not frames.between
    assert frames.count(raw[-1:]) == 1
    assert frames.between


@pytest.mark.parametrize("raw", FRAMES, ids=range(len(FRAMES)))
def test_the_stream_is_between_frames_only_at_the_end_of_a_frame(raw: bytes) -> None:
    frames = Frames()
    begin = raw[:300]
    for at, piece in enumerate(byte_by_byte(begin), 1):
        frames.count(piece)
        assert frames.between is (at == len(raw))


@pytest.mark.parametrize("raw", FRAMES, ids=range(len(FRAMES)))
def test_with_one_only_the_current_frame_is_counted(raw: bytes) -> None:
    for begun in {1, min(3, len(raw) - 1), len(raw) - 1}:
        frames = Frames()
        assert frames.count(raw + raw, one=True) == 0, "no frame has begun"
        frames.count(frame(b"before") + raw[:begun])
        assert frames.count(raw[begun:] + raw, one=True) == len(raw) - begun
        assert frames.between


def test_counting_pauses_after_a_limited_number_of_frames() -> None:
    frames = Frames()
    assert MAX_FRAMES == 1024
    raw = frame(b"", masked=True) * (MAX_FRAMES + 5)
    taken = frames.count(raw)
    assert taken == 6 * MAX_FRAMES - 4, "the mask of the last frame is missing"
    while taken < len(raw):
        before, taken = taken, taken + frames.count(raw[taken:])
        assert taken > before
    assert frames.between


def test_a_long_frame_is_counted_in_one_step() -> None:
    frames = Frames()
    frames.count(b"\x82\xff" + (2**64 - 1).to_bytes(8, "big"))
    assert frames.count(b"a" * 100_000) == 100_000
    assert not frames.between


@given(
    payloads=st.lists(st.tuples(st.integers(0, 300), st.booleans(), st.integers(0, 2)), max_size=6),
    cuts=st.lists(st.integers(0, 2000), max_size=8),
)
def test_the_position_in_a_stream_does_not_depend_on_the_cuts(
    payloads: list[tuple[int, bool, int]], cuts: list[int]
) -> None:
    raw = b"".join(frame(b"x" * size, masked=masked, longer=longer) for size, masked, longer in payloads)
    frames = Frames()
    at = 0
    ends = {0}
    for size, masked, longer in payloads:
        ends.add(max(ends) + len(frame(b"x" * size, masked=masked, longer=longer)))
    for piece in cut(raw, cuts):
        assert frames.count(piece) == len(piece)
        at += len(piece)
        assert frames.between is (at in ends)


def test_a_close_frame_has_code_and_reason() -> None:
    assert (
        close_frame(1008, "token expired", masked=False) == b"\x88\x0f" + (1008).to_bytes(2, "big") + b"token expired"
    )


@pytest.mark.parametrize("reason", ["gone", "at", "", "token expired"])
def test_a_masked_close_frame_has_a_new_mask_each_time(reason: str) -> None:
    one, other = (close_frame(1001, reason, masked=True) for _ in range(2))
    payload = (1001).to_bytes(2, "big") + reason.encode()
    assert one[:2] == other[:2] == bytes((0x88, 0x80 | len(payload)))
    assert one[2:6] != other[2:6]
    for raw in (one, other):
        assert bytes(byte ^ raw[2 + at % 4] for at, byte in enumerate(raw[6:])) == payload


def test_a_close_frame_is_one_complete_frame() -> None:
    for masked in (False, True):
        frames = Frames()
        raw = close_frame(1001, "x" * 123, masked=masked)
        assert frames.count(raw) == len(raw)
        assert frames.between
