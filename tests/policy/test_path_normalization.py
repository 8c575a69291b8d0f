"""The readings of a path: rare ones, and the refusals of malformed paths."""

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.config.file import Config
from sidecar.policy.path_normalization import IGNORABLE, IGNORED, MAX_READ_TOGETHER, readings


@pytest.mark.parametrize(
    ("path", "reading"),
    [("/a/../../../b", "/../../b"), ("/../a/../b", "/../b"), ("/../../a", "/a"), ("/a/b/../../c", "/c")],
)
def test_dot_segments_above_the_root_have_several_readings(path: str, reading: str) -> None:
    assert reading in readings(path)


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        pytest.param("/a%2Fb%41", "/a%2FbA", id="%2F is kept"),
        pytest.param("/a%2fb%41", "/a%2fbA", id="%2f is kept"),
        pytest.param("/a%5Cb%41", "/a%5CbA", id="%5C is kept"),
        pytest.param("/a%5cb%41", "/a%5cbA", id="%5c is kept"),
        pytest.param("/%2e/a%2eb", "/a%2eb", id="a browser's URL parser: only whole segments of dots are decoded"),
    ],
)
def test_a_reading_may_keep_some_escapes(path: str, reading: str) -> None:
    assert reading in readings(path)


@pytest.mark.parametrize("path", ["//a/../b/", "//x//b/"])
def test_a_path_with_two_leading_slashes_has_a_reading_without_final_slash(path: str) -> None:
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
def test_a_character_outside_the_grammar_of_paths_is_named_if_printable(path: str, told: str) -> None:
    with pytest.raises(Rejection) as caught:
        readings(path)
    assert caught.value.reason is Reason.PATH_AMBIGUOUS
    assert caught.value.details == f"The path has {told}, which programs read in different ways; percent-encode it."


def test_backend_ignores_defaults_to_every_ignorable_difference() -> None:
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
def test_a_format_begins_at_the_first_or_the_last_dot_of_a_name(path: str, forms: set[str]) -> None:
    assert IGNORED.forms(path) == forms


def test_all_readings_share_a_limit_of_characters() -> None:
    assert sum(map(len, readings("/a//;a//./" + "x" * 1632))) == MAX_READ_TOGETHER
    with pytest.raises(Rejection) as caught:
        readings("/a//;a/b/../" + "x" * 1631)  # one character more
    assert caught.value.reason is Reason.PATH_AMBIGUOUS
