"""Heads that are remembered: those that recur, not too long, and the newest of them."""

from sidecar.http.head_cache import MAX_HEAD_BYTES, MAX_HEADS, MAX_SEEN, HeadCache


def raw(number: int) -> bytes:
    return b"head %d" % number


def test_a_head_is_remembered_the_second_time() -> None:
    heads: HeadCache[str] = HeadCache()
    heads.offer(raw(1), "first")
    assert (heads.get(raw(1)), len(heads)) == (None, 0)
    heads.offer(raw(1), "again")
    assert (heads.get(raw(1)), heads.get(raw(2)), len(heads)) == ("again", None, 1)


def test_a_long_head_is_not_remembered() -> None:
    heads: HeadCache[str] = HeadCache()
    for _ in range(2):
        heads.offer(b"x" * MAX_HEAD_BYTES, "as long as may be")
        heads.offer(b"x" * (MAX_HEAD_BYTES + 1), "longer")
    assert (heads.get(b"x" * MAX_HEAD_BYTES), len(heads)) == ("as long as may be", 1)


def test_a_full_cache_drops_the_oldest_head() -> None:
    heads: HeadCache[int] = HeadCache()
    for number in range(MAX_HEADS + 1):
        for _ in range(2):
            heads.offer(raw(number), number)
    assert len(heads) == MAX_HEADS
    assert [heads.get(raw(number)) for number in (0, 1, MAX_HEADS)] == [None, 1, MAX_HEADS]


def test_a_remembered_head_that_is_offered_again_drops_no_other() -> None:
    """Heads are not looked up on every connection, so a remembered one is parsed and offered again."""
    heads: HeadCache[int] = HeadCache(2)
    for number in (1, 1, 2, 2, 2):
        heads.offer(raw(number), number)
    assert [heads.get(raw(number)) for number in (1, 2)] == [1, 2]


def test_the_record_of_seen_heads_is_cleared_when_full() -> None:
    heads: HeadCache[int] = HeadCache()
    for number in range(MAX_SEEN):
        heads.offer(raw(number), number)
    heads.offer(raw(0), 0)
    assert heads.get(raw(0)) == 0, "the record of seen heads is full"
    heads.offer(raw(MAX_SEEN), MAX_SEEN)
    heads.offer(raw(1), 1)
    assert heads.get(raw(1)) is None, "the record starts anew after one more head"


def test_a_cache_of_size_0_remembers_nothing() -> None:
    heads: HeadCache[int] = HeadCache(0)
    for _ in range(3):
        heads.offer(raw(1), 1)
    assert (heads.get(raw(1)), len(heads)) == (None, 0)
