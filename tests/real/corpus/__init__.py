"""Requests with tokens of every kind, good and bad: what two verifiers are compared by."""

from tests.real.corpus import claims, signatures, spelling, transport

PARTS = (
    signatures.good,
    signatures.algorithms,
    signatures.signatures,
    spelling.headers,
    spelling.encodings,
    transport.transport,
    claims.times,
    claims.claims,
    claims.values,
)


def corpus() -> dict[str, bytes]:
    """Every request by its name, `what is tried: how`. Made anew at each call, for its time."""
    cases: dict[str, bytes] = {}
    for part in PARTS:
        for name, request in part():
            assert name not in cases, name
            cases[name] = request
    return cases
