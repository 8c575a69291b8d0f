"""The limits that no configuration changes, written out: other tests take them from the code, whatever they are."""

import pytest

from sidecar import (
    claims,
    followed,
    headers,
    identity,
    issuing,
    jwks,
    jws,
    key_set,
    keys,
    leg,
    mint,
    pages,
    routes,
    tunnel,
    upstream,
    verifier,
)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(claims.LATEST_DATE, 253_402_300_799, id="claims.LATEST_DATE"),
        pytest.param(followed.POLL_S, 5.0, id="followed.POLL_S"),
        pytest.param(pages.MAX_AGE_S, 60, id="pages.MAX_AGE_S"),
        pytest.param(issuing.MAX_FORM_BYTES, 8192, id="issuing.MAX_FORM_BYTES"),
        pytest.param(issuing.FORM_S, 10.0, id="issuing.FORM_S"),
        pytest.param(mint.REUSED, 0.8, id="mint.REUSED"),
        pytest.param(headers.MAX_NAMES, 4096, id="headers.MAX_NAMES"),
        pytest.param(identity.MAX_HEADER_BYTES, 4096, id="identity.MAX_HEADER_BYTES"),
        pytest.param(identity.MAX_ALL_BYTES, 16_384, id="identity.MAX_ALL_BYTES"),
        pytest.param(jws.MAX_TOKEN_BYTES, 16_384, id="jws.MAX_TOKEN_BYTES"),
        pytest.param(jws.MAX_HEADER_BYTES, 4096, id="jws.MAX_HEADER_BYTES"),
        pytest.param(jws.MAX_DEPTH, 32, id="jws.MAX_DEPTH"),
        pytest.param(key_set.MAX_KEYS, 100, id="key_set.MAX_KEYS"),
        pytest.param(key_set.MAX_KEYS_WITHOUT_KID, 4, id="key_set.MAX_KEYS_WITHOUT_KID"),
        pytest.param(keys.MIN_RSA_BITS, 2048, id="keys.MIN_RSA_BITS"),
        pytest.param(keys.MAX_RSA_BITS, 8192, id="keys.MAX_RSA_BITS"),
        pytest.param(keys.MAX_KID_LENGTH, 256, id="keys.MAX_KID_LENGTH"),
        pytest.param(jwks.UNKNOWN_KIDS, 256, id="jwks.UNKNOWN_KIDS"),
        pytest.param(jwks.UNKNOWN_KID_S, 60.0, id="jwks.UNKNOWN_KID_S"),
        pytest.param(jwks.COOLDOWN_S, 30.0, id="jwks.COOLDOWN_S"),
        pytest.param(jwks.WAIT_S, 2.0, id="jwks.WAIT_S"),
        pytest.param(jwks.RETRY_FIRST_S, 1.0, id="jwks.RETRY_FIRST_S"),
        pytest.param(jwks.RETRY_MOST_S, 60.0, id="jwks.RETRY_MOST_S"),
        pytest.param(jwks.RETRY_MOST_EMPTY_S, 5.0, id="jwks.RETRY_MOST_EMPTY_S"),
        pytest.param(jwks.MIN_REFRESH_S, 60.0, id="jwks.MIN_REFRESH_S"),
        pytest.param(jwks.MAX_REFRESH_S, 3600.0, id="jwks.MAX_REFRESH_S"),
        pytest.param(jwks.DATE_RESOLUTION_S, 1.0, id="jwks.DATE_RESOLUTION_S"),
        pytest.param(jwks.WARNING_S, 3600.0, id="jwks.WARNING_S"),
        pytest.param(jwks.JITTER, 0.1, id="jwks.JITTER"),
        pytest.param(leg.READ_BYTES, 65_536, id="leg.READ_BYTES"),
        pytest.param(leg.MAX_ANSWER_HEADER_BYTES, 65_536, id="leg.MAX_ANSWER_HEADER_BYTES"),
        pytest.param(routes.MAX_MATCHED, 2048, id="routes.MAX_MATCHED"),
        pytest.param(routes.MAX_READINGS, 64, id="routes.MAX_READINGS"),
        pytest.param(tunnel.FRAME_ENDS_S, 5.0, id="tunnel.FRAME_ENDS_S"),
        pytest.param(upstream.KEEP_IDLE_S, 3.0, id="upstream.KEEP_IDLE_S"),
        pytest.param(verifier.REMEMBERED_TOKENS, 1024, id="verifier.REMEMBERED_TOKENS"),
        pytest.param(verifier.REMEMBERED_S, 300.0, id="verifier.REMEMBERED_S"),
    ],
)
def test_a_limit_is_the_documented_one(limit: float, expected: float) -> None:
    assert limit == expected
