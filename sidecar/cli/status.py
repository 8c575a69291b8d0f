"""`status` and `report`: the content of the admin page for a terminal."""

from collections.abc import Iterator, Sequence
from typing import Any

from sidecar.common.clock import ago

MARKS = {"bad": "BAD ", "warn": "WARN", "note": "note"}


def status(
    told: dict[str, Any],
    issuers: list[dict[str, Any]],
    upstreams: list[dict[str, Any]],
    routes: list[dict[str, Any]],
    refused: dict[str, Any] | None = None,
) -> Iterator[str]:
    """The lines of `status`: the process, its problems and its traffic."""
    about, traffic = told["sidecar"], told["traffic"]
    file = about["configuration"]
    yield f"jwt-sidecar {about['version']}, pid {about['pid']}, up {ago(about['uptime_s'])}{', draining' * about['draining']}"
    yield f"  proxy {about['listens']}  health {about['health']}  admin {about['admin']}  workers {about.get('workers', 1)}"
    yield f"  {file['file'] or 'no file'}, hash {file['hash']}, taken into use {file['loaded_at']}"
    yield ""
    problems = told["problems"]
    for one in problems:
        yield f"{MARKS[one['level']]} {one['text']}"
        if one["detail"] is not None:
            yield f"     {one['detail']}"
        if one["until"] is not None:
            yield f"     until {one['until']}"
        if one["since"] is not None:
            first = one.get("first")
            yield (
                f"     since {one['since']}"
                if first is None
                else f"     first at {first}, frequent since {one['since']}"
            )
        if one["what"] == "configuration" and refused is not None and one["level"] == "bad":
            for each in refused["problems"]:
                place = f"line {each['line']}: " if each["line"] else ""
                yield f"     {place}{each['path'] + ': ' if each['path'] else ''}{each['text']}"
    if not problems:
        yield "Nothing is wrong."
    changes = [one["before"] for one in problems if one["before"] is not None]
    if changes:
        last = max(changes, key=lambda change: str(change["at"]))
        yield f"last change: {last['at']} {last['text']}"
    yield ""
    minute = traffic["minute"]
    yield (
        f"{minute['requests']:,} requests in the last minute, {minute['refused']:,} refused; "
        f"{traffic['in_flight']:,} in flight, {traffic['connections']:,} connections"
    )
    for what, codes in (("refused", traffic["refused"]), ("would be refused", traffic["reported"])):
        if codes:
            said = ", ".join(f"{number:,} {code}" for code, number in sorted(codes.items(), key=lambda one: -one[1]))
            yield f"since the start {what}: {said}"
    yield ""
    yield from table(
        ("ISSUER", "KEYS", "STATE", "AGE", "NEXT", "LAST ERROR"),
        [
            (
                one["name"],
                len(one["keys"]),
                one["state"],
                "-" if one["age_s"] is None else ago(one["age_s"]),
                ago(one["next_refresh_s"]),
                one["last_error"] or "",
            )
            for one in issuers
        ],
    )
    yield ""
    yield from table(
        ("UPSTREAM", "URL", "HEALTH", "OPEN", "IDLE", "WAITING", "MOST"),
        [
            (
                one["name"],
                one["url"],
                one["health"],
                *(one["connections"][name] for name in ("open", "idle", "waiting", "most")),
            )
            for one in upstreams
        ],
    )
    yield ""
    yield from table(
        ("ROUTE", "AUTH", "MODE", "REQUESTS", "REFUSED", "REPORTED"),
        [
            (one["name"], one["auth"] or "", one["mode"] or "", one["requests"], one["refused"], one["reported"])
            for one in routes
        ],
    )


def report(told: dict[str, Any]) -> Iterator[str]:
    """The lines of `report`."""
    if not told["routes"]:
        yield "No rule is in report mode; all rules are enforced."
        return
    yield f"since {told['since']} ({ago(told['seconds'])}), the time of the last reload or start:"
    yield ""
    for one in told["routes"]:
        yield f"{one['route']}: {_verdict(one, told['enough'])}"
        for kind in one["refused"]:
            whose = "" if kind["issuer"] == "none" else f" of {kind['issuer']}"
            yield f"  {kind['count']:>8,}  {kind['code']}{whose}, last at {kind['last']}"
    yield ""
    yield "safe to enforce" if told["safe"] else "not safe to enforce yet"


def _verdict(one: dict[str, Any], enough: int) -> str:
    requests = f"{one['requests']:,} requests"
    match one["verdict"]:
        case "refuses":
            return f"not yet: of {requests} {one['would_be_refused']:,} would be refused"
        case "safe":
            fewest = int(1 / one["at_most"])
            return f"safe to enforce: none of {requests} would be refused (fewer than 1 in {fewest:,}, with 95 % certainty)"
        case _:
            return f"too few to know: {requests}, none of which would be refused; {enough} requests are needed"


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> Iterator[str]:
    """Lines with aligned columns."""
    told = [head, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*told, strict=True)]
    for row in told:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
