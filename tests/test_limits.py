"""The limits that no configuration changes, written out. Other tests take their values from the code."""

import pytest

from sidecar.common import watched_file
from sidecar.gateway import local_endpoints as pages
from sidecar.gateway import token_endpoint as issuing
from sidecar.gateway import token_minter as mint
from sidecar.http import chunked, head_cache, header_policy, responses, websocket_frames
from sidecar.jwt import claims, denylist, denylist_reader, token_checks, verifier
from sidecar.jwt import compact_jws as jws
from sidecar.jwt.jwks import (
    cache,
    fetcher,
    issuer_clock,
    key_server,
    key_set,
    refresh_schedule,
    shared_fetch,
    snapshot,
    unknown_kids,
)
from sidecar.jwt.jwks import jwk as keys
from sidecar.policy import path_normalization, request_signature, routes
from sidecar.proxy import (
    client_limits,
    listener,
    resources,
    response_relay,
    tunnel,
    upstream_connection,
    upstream_pool,
)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        pytest.param(claims.LATEST_DATE, 253_402_300_799, id="claims.LATEST_DATE"),
        pytest.param(watched_file.POLL_S, 5.0, id="watched_file.POLL_S"),
        pytest.param(pages.MAX_AGE_S, 60, id="pages.MAX_AGE_S"),
        pytest.param(issuing.MAX_FORM_BYTES, 8192, id="issuing.MAX_FORM_BYTES"),
        pytest.param(issuing.FORM_S, 10.0, id="issuing.FORM_S"),
        pytest.param(mint.REUSED, 0.8, id="mint.REUSED"),
        pytest.param(header_policy.MAX_LINES, 4096, id="header_policy.MAX_LINES"),
        pytest.param(header_policy.MAX_LINE_BYTES, 256, id="header_policy.MAX_LINE_BYTES"),
        pytest.param(head_cache.MAX_HEADS, 256, id="head_cache.MAX_HEADS"),
        pytest.param(head_cache.MAX_SEEN, 1024, id="head_cache.MAX_SEEN"),
        pytest.param(head_cache.MAX_HEAD_BYTES, 4096, id="head_cache.MAX_HEAD_BYTES"),
        pytest.param(responses.MAX_REFUSALS, 1024, id="responses.MAX_REFUSALS"),
        pytest.param(client_limits.BLANK_LINES, 4, id="client_limits.BLANK_LINES"),
        pytest.param(chunked.MAX_SIZE_LINE, 256, id="chunked.MAX_SIZE_LINE"),
        pytest.param(chunked.MAX_TRAILER_LINE, 2048, id="chunked.MAX_TRAILER_LINE"),
        pytest.param(chunked.MAX_CHUNKS, 512, id="chunked.MAX_CHUNKS"),
        pytest.param(websocket_frames.MAX_FRAMES, 1024, id="websocket_frames.MAX_FRAMES"),
        pytest.param(jws.MAX_TOKEN_BYTES, 16_384, id="jws.MAX_TOKEN_BYTES"),
        pytest.param(jws.MAX_HEADER_BYTES, 4096, id="jws.MAX_HEADER_BYTES"),
        pytest.param(jws.MAX_REMEMBERED, 256, id="jws.MAX_REMEMBERED"),
        pytest.param(jws.MAX_REMEMBERED_BYTES, 512, id="jws.MAX_REMEMBERED_BYTES"),
        pytest.param(jws.MAX_DEPTH, 32, id="jws.MAX_DEPTH"),
        pytest.param(denylist.ENTRIES_AT_A_TIME, 128, id="denylist.ENTRIES_AT_A_TIME"),
        pytest.param(denylist.PAUSE_S, 0.0005, id="denylist.PAUSE_S"),
        pytest.param(denylist.MAX_ADDED, 100_000, id="denylist.MAX_ADDED"),
        pytest.param(denylist_reader.READ_CHARACTERS, 65_536, id="denylist_reader.READ_CHARACTERS"),
        pytest.param(denylist_reader.MAX_DOCUMENT, 65_536, id="denylist_reader.MAX_DOCUMENT"),
        pytest.param(cache.LONG_STALE_S, 86_400.0, id="cache.LONG_STALE_S"),
        pytest.param(fetcher.MOST_QUOTED, 200, id="fetcher.MOST_QUOTED"),
        pytest.param(fetcher.MOST_KIDS, 16, id="fetcher.MOST_KIDS"),
        pytest.param(fetcher.MOST_WANTED, 8, id="fetcher.MOST_WANTED"),
        pytest.param(key_server.MAX_BODY_BYTES, 1_048_576, id="key_server.MAX_BODY_BYTES"),
        pytest.param(key_server.TOTAL_S, 5.0, id="key_server.TOTAL_S"),
        pytest.param(snapshot.MAX_BYTES, 4_194_304, id="snapshot.MAX_BYTES"),
        pytest.param(key_set.MAX_KEYS, 1000, id="key_set.MAX_KEYS"),
        pytest.param(key_set.KEYS_IN_A_TURN, 20, id="key_set.KEYS_IN_A_TURN"),
        pytest.param(key_set.MAX_KEYS_TRIED, 10, id="key_set.MAX_KEYS_TRIED"),
        pytest.param(keys.MIN_RSA_BITS, 2048, id="keys.MIN_RSA_BITS"),
        pytest.param(keys.MAX_RSA_BITS, 8192, id="keys.MAX_RSA_BITS"),
        pytest.param(keys.MAX_KID_LENGTH, 256, id="keys.MAX_KID_LENGTH"),
        pytest.param(unknown_kids.UNKNOWN_KIDS, 256, id="unknown_kids.UNKNOWN_KIDS"),
        pytest.param(unknown_kids.UNKNOWN_KID_S, 60.0, id="unknown_kids.UNKNOWN_KID_S"),
        pytest.param(unknown_kids.COOLDOWN_S, 30.0, id="unknown_kids.COOLDOWN_S"),
        pytest.param(shared_fetch.MOST_WAITING, 500, id="shared_fetch.MOST_WAITING"),
        pytest.param(shared_fetch.WAIT_S, 2.0, id="shared_fetch.WAIT_S"),
        pytest.param(refresh_schedule.RETRY_FIRST_S, 1.0, id="refresh_schedule.RETRY_FIRST_S"),
        pytest.param(refresh_schedule.RETRY_MOST_S, 60.0, id="refresh_schedule.RETRY_MOST_S"),
        pytest.param(refresh_schedule.RETRY_MOST_EMPTY_S, 5.0, id="refresh_schedule.RETRY_MOST_EMPTY_S"),
        pytest.param(refresh_schedule.MIN_REFRESH_S, 60.0, id="refresh_schedule.MIN_REFRESH_S"),
        pytest.param(refresh_schedule.MAX_REFRESH_S, 3600.0, id="refresh_schedule.MAX_REFRESH_S"),
        pytest.param(issuer_clock.DATE_RESOLUTION_S, 1.0, id="issuer_clock.DATE_RESOLUTION_S"),
        pytest.param(issuer_clock.WARNING_S, 3600.0, id="issuer_clock.WARNING_S"),
        pytest.param(refresh_schedule.JITTER, 0.1, id="refresh_schedule.JITTER"),
        pytest.param(resources.READ_BYTES, 65_536, id="resources.READ_BYTES"),
        pytest.param(resources.LARGE_READ_BYTES, 262_144, id="resources.LARGE_READ_BYTES"),
        pytest.param(resources.KEEPS_UP, 8, id="resources.KEEPS_UP"),
        pytest.param(resources.UNSENT_BYTES, 4096, id="resources.UNSENT_BYTES"),
        pytest.param(resources.KERNEL_UNSENT_BYTES, 131_072, id="resources.KERNEL_UNSENT_BYTES"),
        pytest.param(resources.LARGE_KERNEL_UNSENT_BYTES, 1_048_576, id="resources.LARGE_KERNEL_UNSENT_BYTES"),
        pytest.param(resources.SOON_S, 0.1, id="resources.SOON_S"),
        pytest.param(resources.SMALL_READ_BYTES, 4096, id="resources.SMALL_READ_BYTES"),
        pytest.param(resources.MOST_IN_A_TURN, 16, id="resources.MOST_IN_A_TURN"),
        pytest.param(listener.MOST_REFUSED, 64, id="listener.MOST_REFUSED"),
        pytest.param(listener.IDLE_S, 1.0, id="listener.IDLE_S"),
        pytest.param(listener.LONGEST_IDLE, 64, id="listener.LONGEST_IDLE"),
        pytest.param(listener.SAID_AGAIN_S, 60.0, id="listener.SAID_AGAIN_S"),
        pytest.param(response_relay.MOST_INTERIM_ANSWERS, 100, id="response_relay.MOST_INTERIM_ANSWERS"),
        pytest.param(client_limits.LINGER_S, 5.0, id="client_limits.LINGER_S"),
        pytest.param(listener.NOT_ACCEPTED_S, 1.0, id="listener.NOT_ACCEPTED_S"),
        pytest.param(upstream_connection.CLOSE_S, 5.0, id="upstream_connection.CLOSE_S"),
        pytest.param(routes.MAX_MATCHED, 2048, id="routes.MAX_MATCHED"),
        pytest.param(path_normalization.MAX_READ, 2048, id="path_normalization.MAX_READ"),
        pytest.param(path_normalization.MAX_READ_TOGETHER, 16_384, id="path_normalization.MAX_READ_TOGETHER"),
        pytest.param(path_normalization.MAX_READINGS, 64, id="path_normalization.MAX_READINGS"),
        pytest.param(request_signature.REMEMBERED, 1024, id="request_signature.REMEMBERED"),
        pytest.param(tunnel.TOKEN_EXPIRED, 4401, id="tunnel.TOKEN_EXPIRED"),
        pytest.param(tunnel.FRAME_ENDS_S, 5.0, id="tunnel.FRAME_ENDS_S"),
        pytest.param(upstream_pool.KEEP_IDLE_S, 3.0, id="upstream_pool.KEEP_IDLE_S"),
        pytest.param(token_checks.MOST_LEFT_OUT, 3, id="token_checks.MOST_LEFT_OUT"),
        pytest.param(verifier.EXPIRED_BYTES, 900, id="verifier.EXPIRED_BYTES"),
        pytest.param(verifier.REMEMBERED_S, 300.0, id="verifier.REMEMBERED_S"),
    ],
)
def test_a_limit_is_the_documented_one(limit: float, expected: float) -> None:
    assert limit == expected
