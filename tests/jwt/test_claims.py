"""The rules for verified claims at a given time: RFC 7519 section 4.1, with clock skew."""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import pytest

from sidecar.common.clock import ago
from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claim_rules import ClaimRules
from sidecar.jwt.claims import LATEST_DATE, Claims
from tests.peers.tokens import ABSENT, claims

NOW = 1_800_000_000
SKEW = 60
RULES = ClaimRules(["my-api"])


def check(rules: ClaimRules = RULES, now: float = NOW, /, **over: Any) -> tuple[float, float]:
    """Check good claims at the time NOW, with `over` changed."""
    return rules.check(claims(now=NOW, **over), now)


def refusal(*args: Any, **over: Any) -> Rejection:
    with pytest.raises(Rejection) as caught:
        check(*args, **over)
    return caught.value


@pytest.mark.parametrize(
    ("said", "user"),
    [
        ({"iss": "https://idp.test/", "sub": "alice"}, "https://idp.test/ alice"),
        ({"sub": "alice"}, " alice"),
        ({"iss": "https://idp.test/"}, "https://idp.test/ "),
        ({"iss": "", "sub": "half of a pair: \ud800"}, " half of a pair: \ud800"),
    ],
)
def test_claims_have_a_hash_of_issuer_and_subject(said: dict[str, str], user: str) -> None:
    known = Claims("main", said, kid="key-1")
    assert known.user_hash == sha256(user.encode(errors="surrogatepass")).hexdigest()[:16]
    assert known.user_hash is known.user_hash
    assert (known.kid, known.minted) == ("key-1", {})


def test_valid_claims_have_the_times_of_their_validity() -> None:
    assert check(exp=NOW + 300, nbf=NOW - 10, iat=NOW - 20) == (NOW - 10 - SKEW, NOW + 300 + SKEW)
    assert check(exp=NOW + 300, nbf=NOW - 20, iat=NOW - 10) == (NOW - 10 - SKEW, NOW + 300 + SKEW)


def test_the_defaults_are_a_minute_of_skew_and_a_required_exp() -> None:
    assert check(ClaimRules(None), exp=NOW - 59)[1] == NOW + 1
    assert refusal(ClaimRules(None), exp=NOW - 60).reason is Reason.TOKEN_EXPIRED
    assert refusal(ClaimRules(None), exp=ABSENT).reason is Reason.CLAIM_MISSING


# exp


@pytest.mark.parametrize(
    ("exp", "details"),
    [
        pytest.param(NOW - SKEW, "The token expired 60 s ago.", id="exp: now+leeway boundary"),
        pytest.param(NOW - 3600, "The token expired 60 min ago.", id="exp past"),
        pytest.param(NOW - 60.5, "The token expired 60 s ago.", id="exp float, past"),
        pytest.param(0, "The token expired 20833 d ago.", id="exp: 0"),
        pytest.param(-0.0, "The token expired 20833 d ago.", id="exp: -0.0"),
        pytest.param(-1, "The token expired 20833 d ago.", id="exp: negative"),
    ],
)
def test_an_expired_token_is_refused(exp: float, details: str) -> None:
    rejection = refusal(exp=exp)
    assert (rejection.reason, rejection.details) == (Reason.TOKEN_EXPIRED, details)


def test_a_token_expires_exactly_at_exp() -> None:
    strict = ClaimRules(None, clock_skew_s=0)
    assert refusal(strict, exp=NOW).details == "The token expired 0 s ago."
    assert check(strict, exp=NOW + 0.5)[1] == NOW + 0.5


def test_an_expired_token_is_accepted_within_the_clock_skew() -> None:
    assert check(exp=NOW - SKEW + 1)[1] == NOW + 1


@pytest.mark.parametrize(
    "exp",
    [
        pytest.param(9999999999.5, id="exp float"),
        pytest.param(1e10, id="exponent form"),
        pytest.param(LATEST_DATE, id="the end of the year 9999"),
    ],
)
def test_a_date_may_be_any_number(exp: float) -> None:
    assert check(exp=exp)[1] == exp + SKEW


def test_the_latest_date_is_the_end_of_the_year_9999() -> None:
    assert datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp() == LATEST_DATE


def test_the_earliest_date_is_as_far_from_1970_as_the_latest() -> None:
    assert check(nbf=-LATEST_DATE, iat=-LATEST_DATE)[1] == NOW + 300 + SKEW


def test_a_token_without_exp_is_refused() -> None:
    rejection = refusal(exp=ABSENT)
    assert (rejection.reason, rejection.details) == (Reason.CLAIM_MISSING, "The token has no exp claim.")


def test_a_token_without_exp_never_expires_if_exp_is_not_required() -> None:
    assert check(ClaimRules(None, require_exp=False), exp=ABSENT) == (NOW - SKEW, float("inf"))


def test_an_optional_exp_is_checked_if_present() -> None:
    assert refusal(ClaimRules(None, require_exp=False), exp=NOW - 3600).reason is Reason.TOKEN_EXPIRED


WRONG_DATES = [
    pytest.param("9999999999", id="string"),
    pytest.param(" 9 ", id="string with spaces"),
    pytest.param("9_9", id="string with an underscore"),
    pytest.param("\uff19\uff19", id="fullwidth digits"),
    pytest.param("2100-01-01T00:00:00Z", id="a date with another separator"),
    pytest.param(True, id="true"),
    pytest.param(None, id="null"),
    pytest.param([], id="list"),
    pytest.param([9999999999], id="list of a number"),
    pytest.param({}, id="object"),
]
WRONG_TIMES = [
    pytest.param(float("nan"), id="NaN"),
    pytest.param(float("inf"), id="Infinity"),
    pytest.param(float("-inf"), id="-Infinity"),
    pytest.param(LATEST_DATE + 1, id="huge: after the year 9999"),
    pytest.param(-LATEST_DATE - 1, id="huge: as long ago"),
    pytest.param(NOW * 1000, id="huge: milliseconds"),
    pytest.param(10**300, id="huge: 300 digits"),
    pytest.param(10**4000, id="huge: 4000 digits"),
    pytest.param(-(10**4000), id="huge: 4000 digits, negative"),
    pytest.param(1e300, id="huge: 1e300"),
]


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", WRONG_DATES)
def test_a_date_that_is_not_a_number_is_refused(name: str, value: object) -> None:
    rejection = refusal(**{name: value})
    assert (rejection.reason, rejection.details) == (Reason.CLAIM_INVALID, f"The token's {name} claim is not a number.")


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", WRONG_TIMES)
def test_a_number_that_is_not_a_time_in_seconds_is_refused(name: str, value: float) -> None:
    rejection = refusal(**{name: value})
    assert rejection.reason is Reason.CLAIM_INVALID
    assert rejection.details == f"The token's {name} claim is not a time in seconds."


# nbf and iat


def test_nbf_in_the_future_is_refused() -> None:
    rejection = refusal(nbf=NOW + SKEW + 1)
    assert rejection.reason is Reason.TOKEN_NOT_YET_VALID
    assert rejection.details == "The token is not valid for another 61 s."


def test_iat_in_the_future_is_refused() -> None:
    rejection = refusal(iat=NOW + SKEW + 1)
    assert rejection.reason is Reason.TOKEN_ISSUED_IN_FUTURE
    assert rejection.details == "The token says it was issued 61 s from now."


@pytest.mark.parametrize("name", ["nbf", "iat"])
def test_nbf_and_iat_in_the_future_are_accepted_within_the_clock_skew(name: str) -> None:
    assert check(**{name: NOW + SKEW})[0] == NOW


def test_nbf_and_iat_may_be_missing() -> None:
    assert check(iat=ABSENT) == (-SKEW, NOW + 300 + SKEW)


@pytest.mark.parametrize(
    "over",
    [{"nbf": NOW + 500}, {"iat": NOW + 500}, {"exp": NOW + 500, "nbf": NOW + 400, "iat": NOW + 400}],
    ids=["nbf", "iat", "both"],
)
def test_claims_are_valid_exactly_between_their_two_times(over: dict[str, Any]) -> None:
    over = {"exp": NOW + 900, "iat": NOW, **over}
    valid_from, valid_until = check(RULES, NOW + 450, **over)
    assert check(RULES, valid_from, **over) == (valid_from, valid_until)
    assert check(RULES, valid_until - 1, **over) == (valid_from, valid_until)
    refusal(RULES, valid_from - 1, **over)
    refusal(RULES, valid_until, **over)


# aud


@pytest.mark.parametrize(
    ("aud", "details"),
    [
        pytest.param(ABSENT, "The token has no aud claim.", id="aud: missing"),
        pytest.param(None, "The token has no aud claim.", id="aud: null"),
        pytest.param("other", Reason.AUDIENCE_MISMATCH.details, id="aud: other"),
        pytest.param("my-ap", Reason.AUDIENCE_MISMATCH.details, id="aud: substring"),
        pytest.param("my-api-2", Reason.AUDIENCE_MISMATCH.details, id="aud: longer"),
        pytest.param("MY-API", Reason.AUDIENCE_MISMATCH.details, id="aud: case"),
        pytest.param(" my-api", Reason.AUDIENCE_MISMATCH.details, id="aud: leading space"),
        pytest.param("", "The token has no aud claim.", id="aud: empty"),
        pytest.param([], "The token has no aud claim.", id="aud: []"),
        pytest.param([""], Reason.AUDIENCE_MISMATCH.details, id="aud: list of an empty one"),
        pytest.param(["other", "others"], Reason.AUDIENCE_MISMATCH.details, id="aud: others"),
        pytest.param({}, "The token's aud claim is neither a string nor a list of strings.", id="aud: {}"),
        pytest.param(
            {"my-api": 1}, "The token's aud claim is neither a string nor a list of strings.", id="aud: object"
        ),
        pytest.param(5, "The token's aud claim is neither a string nor a list of strings.", id="aud: number"),
        pytest.param(True, "The token's aud claim is neither a string nor a list of strings.", id="aud: true"),
        pytest.param(
            [["my-api"]], "The token's aud claim is neither a string nor a list of strings.", id="aud: nested list"
        ),
        pytest.param(
            ["my-api", 5], "The token's aud claim is neither a string nor a list of strings.", id="aud: non-strings"
        ),
        pytest.param(
            ["my-api", None], "The token's aud claim is neither a string nor a list of strings.", id="aud: null in it"
        ),
    ],
)
def test_another_audience_is_refused(aud: object, details: str) -> None:
    rejection = refusal(aud=aud)
    assert (rejection.reason, rejection.details) == (Reason.AUDIENCE_MISMATCH, details)


@pytest.mark.parametrize(
    "aud",
    [
        pytest.param("my-api", id="aud: string equal"),
        pytest.param(["my-api"], id="aud: in a list"),
        pytest.param(["other", "my-api"], id="aud: among others"),
        pytest.param("also-me", id="aud: any of the configured ones"),
    ],
)
def test_any_configured_audience_is_enough(aud: object) -> None:
    check(ClaimRules(["my-api", "also-me"]), aud=aud)


@pytest.mark.parametrize("aud", [ABSENT, None, "other", 5, {}], ids=["missing", "null", "other", "5", "{}"])
def test_aud_does_not_matter_without_configured_audiences(aud: object) -> None:
    check(ClaimRules(None), aud=aud)


def test_at_hash_in_the_token_does_not_matter() -> None:
    check(at_hash="x")


# Claims


def test_the_text_of_claims_has_issuer_and_names_without_values() -> None:
    shown = repr(Claims("zuplo", {"sub": "alice", "email": "alice@example.test"}))
    assert shown == "<Claims of zuplo: sub, email>"


def test_claims_have_no_times_and_no_payload_by_default() -> None:
    bare = Claims("zuplo", {})
    assert bare.payload_segment == b""
    assert (bare.valid_from, bare.valid_until) == (float("-inf"), float("inf"))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(-0.1, "0 s"), (0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 d")],
)
def test_a_duration_is_rounded_to_seconds_minutes_hours_or_days(seconds: float, said: str) -> None:
    assert ago(seconds) == said
