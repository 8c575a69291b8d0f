"""A short run of the core's fuzz (make fuzz-core), and the errors that its judge detects."""

from random import Random
from typing import Any

import pytest

from sidecar.http.header_policy import ResponseHeaderPolicy
from tests.http.heads import head, policy
from tests.http.streams import Reading
from tests.proofs import reference
from tests.proofs.core import Judge, compare

LIMITS = reference.Limits(1000, 50, 500)
POST = head("POST /x HTTP/1.1", "Host: a", "Via: b", "Content-Length: 5") + b"hello"


def test_nearly_valid_streams_pass_the_judge() -> None:
    judge = Judge()
    for number in range(3000):
        judge.one(Random(f"suite:{number}"))
    assert judge.outcomes["requests, 1 complete"] > 200
    assert judge.outcomes["answers, 1 complete"] > 200
    assert len(judge.outcomes) > 20


@pytest.mark.parametrize(
    "other",
    [
        POST.replace(b"POST", b"PUT"),
        POST.replace(b"/x", b"/y"),
        POST.replace(b"1.1", b"1.0"),
        POST.replace(b"Via", b"via"),
        POST.replace(b"Via: b", b"Via: c"),
        POST.replace(b"Via: b\r\n", b""),
        POST.replace(b"hello", b"hallo"),
        POST[:-1],
        POST[:-5],
        POST[:-6],
        POST + POST,
        POST + POST[:-1],
        POST + b"\0",
        b"\0" + POST,
    ],
)
def test_another_reading_of_a_request_is_detected(other: bytes) -> None:
    same = Reading(policy()).read([POST])
    compare(same, reference.read(POST, LIMITS))
    with pytest.raises(AssertionError):
        compare(same, reference.read(other, LIMITS))


ANSWER = head("HTTP/1.1 200 OK", "Via: b", "Content-Length: 5") + b"hello"


@pytest.mark.parametrize(
    ("other", "head_only"),
    [
        (ANSWER, True),
        (ANSWER.replace(b"200", b"201"), False),
        (ANSWER.replace(b"OK", b"Ok"), False),
        (ANSWER.replace(b"Via", b"Keep-Alive"), False),
        (ANSWER.replace(b"200", b"204"), False),
    ],
)
def test_another_reading_of_an_answer_is_detected(other: bytes, head_only: bool) -> None:
    same = Reading(ResponseHeaderPolicy(), [False]).read([ANSWER])
    compare(same, reference.read(ANSWER, LIMITS, [False]))
    with pytest.raises(AssertionError):
        compare(same, reference.read(other, LIMITS, [head_only]))


@pytest.mark.parametrize("lost", ["X-JWT-Sub: evil", "x_jwt_sub: evil", "Connection: via", "X-Real-IP: evil", "TE: x"])
def test_forbidden_headers_are_detected(lost: str) -> None:
    raw = head("GET / HTTP/1.1", "Host: a", "Via: b", lost)
    lenient = Reading(policy()).read([raw])
    compare(lenient, reference.read(raw, LIMITS))
    found: Any = lenient.messages[0].head
    found.forwarded += b"X: y\r\n"
    with pytest.raises(AssertionError, match="other headers go on"):
        compare(lenient, reference.read(raw, LIMITS))
