"""The readings of a path: rare ones, and the refusals of malformed paths."""

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.config.file import Config
from sidecar.policy.path_normalization import IGNORABLE, IGNORED, MAX_READ_TOGETHER, readings


@pytest.mark.parametrize(
    ("path", "reading"),
    [("/a/../../../b", "/../../b"), ("/../a/../b", "/../b"), ("/../../a", "/a"), ("/a/b/../../c", "/c")],
)
def test_dots_above_the_root_are_dropped_by_some_and_left_by_others(path: str, reading: str) -> None:
    assert reading in readings(path)


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        pytest.param("/a%2Fb%41", "/a%2FbA", id="a slash that stays, in capitals"),
        pytest.param("/a%2fb%41", "/a%2fbA", id="a slash that stays"),
        pytest.param("/a%5Cb%41", "/a%5CbA", id="a backslash that stays, in capitals"),
        pytest.param("/a%5cb%41", "/a%5cbA", id="a backslash that stays"),
        pytest.param("/%2e/a%2eb", "/a%2eb", id="a browser's URL parser: only whole segments of dots are decoded"),
    ],
)
def test_some_escapes_stay_as_they_are(path: str, reading: str) -> None:
    assert reading in readings(path)


@pytest.mark.parametrize("path", ["//a/../b/", "//x//b/"])
def test_a_reading_of_two_leading_slashes_ends_without_a_slash(path: str) -> None:
    assert any(reading != "/" and not reading.endswith("/") for reading in readings(path))


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/a\\b", "'\\\\' as it is"),
        ("/`", "'`' as it is"),
        ("/a b", "a character outside visible ASCII"),
        ("/\x7f", "a character outside visible ASCII"),
        ("/é", "a character outside visible ASCII"),
    ],
)
def test_a_character_that_is_no_part_of_a_path_is_named_where_it_can_be_shown(path: str, told: str) -> None:
    with pytest.raises(Rejection) as caught:
        readings(path)
    assert caught.value.reason is Reason.PATH_AMBIGUOUS
    assert caught.value.details == f"The path has {told}, which programs read in different ways; percent-encode it."


def test_what_a_backend_may_ignore_has_the_names_of_the_configuration() -> None:
    assert Config.model_fields["backend_ignores"].default == IGNORABLE


@pytest.mark.parametrize(
    ("path", "forms"),
    [
        ("/a.b.json", {"/a.b.json", "/a.b", "/a"}),
        ("/A.b/c.json", {"/a.b/c.json", "/a.b/c"}),
        ("/.well-known", {"/.well-known"}),
        ("/a", {"/a"}),
    ],
)
def test_a_format_may_be_all_behind_the_first_dot_of_a_name_or_behind_the_last(path: str, forms: set[str]) -> None:
    assert IGNORED.forms(path) == forms


def test_all_readings_together_have_at_most_so_many_characters() -> None:
    assert sum(map(len, readings("/a//;a//./" + "x" * 1632))) == MAX_READ_TOGETHER
    with pytest.raises(Rejection) as caught:
        readings("/a//;a/b/../" + "x" * 1631)  # one more
    assert caught.value.reason is Reason.PATH_AMBIGUOUS
