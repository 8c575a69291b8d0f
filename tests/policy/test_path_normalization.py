"""The readings of a path, and the refusals of malformed paths."""

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.config.file import Config
from sidecar.policy.path_normalization import IGNORABLE, IGNORED, MAX_READ_TOGETHER, readings


@pytest.mark.parametrize(
    ("path", "resolved"),
    [("/a/.", "/a/"), ("/a/b/..", "/a/"), ("/a/..", "/"), ("/./a", "/a"), ("/a/../b", "/b"), ("/.", "/")],
)
def test_dot_segments_are_resolved_as_in_rfc_3986(path: str, resolved: str) -> None:
    assert readings(path) == {path, resolved}


def test_dot_segments_above_the_root_are_dropped_or_kept() -> None:
    assert readings("/a/../../b") == {"/a/../../b", "/b", "/../b"}
    assert readings("/..") == {"/..", "/../", "/"}


def test_a_path_after_leading_slashes_may_be_read_as_a_host() -> None:
    assert readings("//x/y") == {"//x/y", "/x/y", "/y"}
    assert readings("///x//y") == {"///x//y", "/x/y", "/x//y", "//y", "/y", "/"}


@pytest.mark.parametrize(
    ("path", "reading"),
    [
        pytest.param("/a%41/%2e/b", "/a%41/b", id="a browser's URL parser"),
        pytest.param("/a%41%2f%5C%2e", "/a%41/\\.", id="Rack::Protection"),
        pytest.param("//a//b", "/a//b", id="Python's http.server"),
        pytest.param("//a//b/../c/", "//a/c", id="POSIX"),
        pytest.param("/a;b;c/d;e", "/a;b/d", id="Jetty"),
        pytest.param("/[|<", "/%5B%7C%3C", id="raw characters: all"),
        pytest.param("/[|<", "/[%7C%3C", id="raw characters: without brackets"),
        pytest.param("/[|<", "/[|%3C", id="raw characters: HTML's"),
    ],
)
def test_a_path_has_the_readings_of_real_programs(path: str, reading: str) -> None:
    assert reading in readings(path)


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


@pytest.mark.parametrize("path", ["/" * 2000, "//a" * 600, "/;" * 1000, "//" * 10 + "a" * 1900])
def test_a_long_path_with_many_readings_is_refused(path: str) -> None:
    with pytest.raises(Rejection) as caught:
        readings(path)
    assert caught.value.reason is Reason.PATH_AMBIGUOUS


@pytest.mark.parametrize("path", ["//" * 10 + "a" * 190, "/a;b" * 500, "//" + "a" * 2000, "/a%20b" * 300])
def test_a_short_path_or_one_with_few_readings_is_read(path: str) -> None:
    assert path in readings(path)


def test_a_percent_sign_that_begins_no_escape_is_named() -> None:
    with pytest.raises(Rejection) as caught:
        readings("/a%zz")
    assert caught.value.details == "The path has a % that begins no escape; write %25 for a %."
