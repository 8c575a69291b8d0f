"""A request as plain values: a new one, and a refused one."""

from sidecar.common.errors import Reason, Rejection
from sidecar.jwt.claims import Claims
from sidecar.observability.record import Record


def arrived() -> Record:
    return Record("id-1", "GET", "/x?a=b", b"sidecar.test", 1, "127.0.0.1", "http", 5.0)


def test_a_new_record_has_only_the_values_of_the_request() -> None:
    record = arrived()
    assert (record.id, record.method, record.target, record.host) == ("id-1", "GET", "/x?a=b", b"sidecar.test")
    assert (record.minor, record.peer, record.scheme, record.started) == (1, "127.0.0.1", "http", 5.0)
    assert (record.sent, record.answered, record.status, record.broken_off) == (0.0, 0.0, 0, False)
    assert (record.rejected, record.details, record.cause, record.reported) == (None, "", "", False)
    assert (record.path, record.trace_id, record.issuer, record.authorized) == ("/x", None, "none", False)


def test_a_refusal_is_recorded_in_plain_values() -> None:
    for reported, result in ((False, "deny"), (True, "report")):
        record = arrived()
        assert record.result == "left"
        record.status = 200
        assert record.result == "allow"
        record.refused(Rejection(Reason.REQUEST_MALFORMED, "A sentence.", cause="A rule."), reported=reported)
        assert (record.rejected, record.details, record.cause) == (Reason.REQUEST_MALFORMED, "A sentence.", "A rule.")
        assert (record.reported, record.result) == (reported, result)
    record.refused(Rejection(Reason.UPSTREAM_TIMEOUT))
    assert record.result == "error"


def test_claims_authorize_only_a_request_that_is_not_refused() -> None:
    record = arrived()
    record.claims = Claims("main", {"sub": "alice"})
    assert (record.authorized, record.issuer) == (True, "main")
    record.refused(Rejection(Reason.SCOPE_INSUFFICIENT), reported=True)
    assert not record.authorized
