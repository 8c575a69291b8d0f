"""The current problems, in sentences."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from sidecar.app.admin.timeline import event
from sidecar.app.history import RECENT, STEP_S, Counted, History, upstream_health
from sidecar.app.state import Live
from sidecar.common.clock import Clock, ago, iso_time
from sidecar.common.errors import Reason
from sidecar.common.tls import NOTHING_LISTENS
from sidecar.observability.counters import Spell

NOTEWORTHY = 0.05  # share of the last minute's requests from which refusals with one code are a problem
FEW = 5  # refusals in a minute that are never a problem
BAD = 0.2  # share from which they are bad
NAMED = 3  # routes in one sentence; of more, only the number
PART = 0.3  # share of the current refusals; a step with fewer is before their increase
PAUSED = 2  # such steps in a row that mark the beginning
BEFORE_S = 120.0  # a change within this time before a problem may be its cause
OURS = {reason.code for reason in (Reason.INTERNAL_ERROR, Reason.OVERLOADED, Reason.SIGNING_UNAVAILABLE)}
UPSTREAM = {reason.code for reason in Reason if reason.code.startswith("upstream_")}


class Problem(NamedTuple):
    """A problem: level (bad, warn or note), kind and name of the object, sentence, and Unix time of its begin if known.

    `refused` is how many requests it refused in the last minute. `detail` says what was found. `until` is the Unix time until
    which it refuses no request. `first` is that of the first refusal, if refusals became frequent later, at `since`.
    """

    level: str
    what: str
    name: str
    text: str
    since: float | None = None
    refused: int = 0
    detail: str = ""
    until: float | None = None
    first: float | None = None


def problems(live: Live, lately: list[Problem], clock: Clock) -> list[dict[str, Any]]:
    """All problems, each with a change shortly before it began. That with the most refused requests comes first."""
    found = _grouped(live, [*_of_the_sidecar(live), *_of_issuers(live, clock), *lately])
    found.sort(key=lambda problem: (-problem.refused, ("bad", "warn", "note").index(problem.level)))
    return [
        problem._asdict()
        | {
            "detail": problem.detail or None,
            "since": None if problem.since is None else iso_time(problem.since),
            "first": None if problem.first is None else iso_time(problem.first),
            "until": None if problem.until is None else iso_time(problem.until),
            "before": _before(live, problem),
        }
        for problem in found
    ]


def _grouped(live: Live, found: list[Problem]) -> list[Problem]:
    """Refusals for lack of keys name the issuers. If one issuer alone has no keys, they are the detail of its problem."""
    lacking = [one for one in found if (one.what, one.name) == ("refusals", Reason.JWKS_UNAVAILABLE.code)]
    without = [one for one in found if one.what == "issuer" and one.level == "bad"]
    enforced = [one for one in lacking if one.level != "note"]
    if len(without) == len(enforced) == 1:
        told = without[0]._replace(detail=enforced[0].text)
        return [told if one is without[0] else one for one in found if one is not enforced[0]]
    missing = _keys_missing(live)
    return [one._replace(text=one.text + missing) if one in lacking else one for one in found]


def of_the_minute(live: Live, minute: Counted) -> list[Problem]:
    """The problems of backends and requests in the last minute."""
    return [*_of_upstreams(live, minute), *_of_refusals(live, minute)]


def noteworthy(refused: int, requests: int) -> bool:
    """Are so many refusals, of the requests of a minute, more than a service always has?"""
    return refused >= FEW and refused >= NOTEWORTHY * requests


def _before(live: Live, problem: Problem) -> dict[str, Any] | None:
    """The last change of another object before a problem began, or None. A problem that began at the same time is no change."""
    since = problem.since
    if since is None:
        return None
    changes = (
        one
        for one in live.history.events
        if since - BEFORE_S <= one.at <= since
        and (one.what, one.name) != (problem.what, problem.name)
        and (one.at < since or one.level not in ("warn", "bad"))
    )
    last = max(changes, key=lambda one: one.at, default=None)
    return None if last is None else event(last)


def _jump(history: History, wanted: tuple[str, str, bool], number: int, since: float) -> float:
    """The Unix time at which refusals with one issuer and code rose to `number` a minute: `since`, or a later step.

    A step has no time within it: if something changed during the step, the refusals rose after the change.
    """
    level = number / RECENT * PART
    began, paused = history.steps[-1].at + STEP_S if history.steps else since, 0
    for step in reversed(history.steps):
        if paused > PAUSED or step.at + STEP_S <= since:
            break
        came = sum(
            one for (_, issuer, code, reported), one in step.refused.items() if (issuer, code, reported) == wanted
        )
        paused = 0 if came >= level else paused + 1
        if came >= level:
            began = step.at
    if began - since <= STEP_S:
        return since
    return max(began, *(one.at for one in history.events if one.at < began + STEP_S and one.level == "note"))


def _of_the_sidecar(live: Live) -> Iterator[Problem]:
    configuration = live.file
    if live.resources.draining:
        yield Problem("warn", "sidecar", "", "The sidecar drains: it is not ready, and serves until it is stopped.")
    if configuration.refused is not None:
        count = _number(len(configuration.refused.problems), "problem")
        text = f"A changed configuration was refused ({count}); fix the file. The previous configuration stays in use."
        yield Problem("bad", "configuration", "", text, configuration.refused.at)
    for key in configuration.restart_needed:
        yield Problem("note", "configuration", key, f"{key} has changed in the file; restart the sidecar to apply it.")
    for file in (*live.files, *live.assembly.files):
        if file.problem is not None:
            text = f"{file.problem}; the previous content stays in use."
            if file is live.assembly.denylist.file:
                text += " New revocations have no effect until the file can be used."
            yield Problem("bad", "file", file.path.name, text)


def _of_issuers(live: Live, clock: Clock) -> Iterator[Problem]:
    for name, source in live.assembly.sources.items():
        state = live.history.states.get(("issuer", name))
        since = state.since if state is not None and state.state == source.state else None
        why = f": {source.last_error}" if source.last_error else ""
        if source.state == "absent" and source.jwks is None and source.last_error is None:
            yield Problem("note", "issuer", name, f"The first keys of {name} have not been fetched yet.")
        elif source.state == "absent":
            text = f"{name} has no usable keys, so its tokens get 503{why}"
            yield Problem("bad", "issuer", name, text, since, _without_keys(live.history.minute()))
        elif source.state == "stale":
            left_s = source.trusted_until - clock.monotonic()
            refused = (
                "Tokens of new keys get 503" if _without_keys(live.history.minute()) else "No request is refused yet"
            )
            text = f"The keys of {name} could not be fetched{why}. {refused}: the present keys stay trusted"
            text += f" for {ago(left_s)}."
            yield Problem("warn", "issuer", name, text, since, until=clock.wall() + left_s)
    yield from _of_clocks(live)


def _of_clocks(live: Live) -> Iterator[Problem]:
    offsets = {name: source.issuer_clock.offset_s for name, source in live.assembly.sources.items()}
    measured = {name: offset_s for name, offset_s in offsets.items() if offset_s is not None}
    wrong = [name for name in measured if abs(measured[name]) > live.assembly.config.issuers[name].clock_skew_s / 2]
    for name in wrong:
        way = "ahead of" if measured[name] > 0 else "behind"
        text = f"The clock of {name} is {abs(measured[name]):.0f} s {way} this one; "
        if len(wrong) == 1 < len(measured):
            text += f"the other issuers agree with this one, so tell {name}."
        else:
            text += "set the clock that is wrong."
        yield Problem("warn", "issuer", name, text)


def _of_upstreams(live: Live, minute: Counted) -> Iterator[Problem]:
    for name, pool in live.assembly.upstreams.items():
        health, why = upstream_health(name, minute, live.assembly)
        state = live.history.states.get(("upstream", name))
        since = state.since if state is not None and state.state == health else None
        if since is None:
            since = min((spell.since for kind, spell in _of_upstream(live, name)), default=None)
        if health in ("failing", "errors"):
            level, part = ("bad", "most") if health == "failing" else ("warn", "some")
            routes = [kind[0] for kind, _ in _of_upstream(live, name) if minute.refused.get(kind, 0) > 0]
            url = live.assembly.config.upstreams[name].url
            text = f"The upstream {name} ({url}) fails {part} requests: {why} in the last minute{_on(routes)}."
            failed = sum(number for (upstream, _), number in minute.upstream_errors.items() if upstream == name)
            yield Problem(level, "upstream", name, text, since, failed, _last_cause(live, name))
        if pool.use.waiting:
            text = (
                f"{_number(pool.use.waiting, 'request')} waiting for one of the {pool.use.most} connections to {name}."
            )
            yield Problem("warn", "upstream", name, text)


def _of_upstream(live: Live, name: str) -> Iterator[tuple[tuple[str, str, str, bool], Spell]]:
    routes = {route.name for route in live.assembly.handler.routes.all if route.upstream == name}
    for kind, spell in live.telemetry.spells.items():
        if kind[0] in routes and kind[2] in UPSTREAM:
            yield kind, spell


def _last_cause(live: Live, upstream: str) -> str:
    """Why the last of these requests failed, with the remedy if it is certain."""
    kinds = {kind for kind, _ in _of_upstream(live, upstream)}
    for one in live.telemetry.refusals:
        if one.cause and (one.route, one.issuer, one.reason.code, one.reported) in kinds:
            cure = "Start the backend, or correct its url in the configuration."
            return f"{one.cause} {cure}" if one.cause == NOTHING_LISTENS else one.cause
    return ""


def _last_found(live: Live, wanted: tuple[str, str, bool]) -> str:
    """Compare the last of these tokens with the rule that refused it. Without keys, `found` is no part of a token."""
    for one in live.telemetry.refusals:
        if one.found and (one.issuer, one.reason.code, one.reported) == wanted:
            if one.reason is Reason.JWKS_UNAVAILABLE:
                return f"{one.found}."
            expected = f"Expected {one.expected}; found" if one.expected else "Found"
            return f"{expected} {one.found} in the last refused token."
    return ""


def _without_keys(minute: Counted) -> int:
    """The requests of the last minute that were refused because an issuer had no usable keys."""
    return sum(
        number
        for (_, _, code, reported), number in minute.refused.items()
        if code == Reason.JWKS_UNAVAILABLE.code and not reported
    )


def _of_refusals(live: Live, minute: Counted) -> Iterator[Problem]:
    """Frequent refusals by issuer and code."""
    requests = sum(minute.requests.values())
    numbers: Counter[tuple[str, str, bool]] = Counter()
    since: dict[tuple[str, str, bool], float] = {}
    routes: dict[tuple[str, str, bool], list[str]] = {}
    for kind, number in minute.refused.items():
        route, issuer, code, reported = kind
        if number <= 0 or code in UPSTREAM:  # reported with the upstream
            continue
        key = (issuer, code, reported)
        numbers[key] += number
        began = live.telemetry.spells[kind].since
        since[key] = min(since.get(key, began), began)
        routes.setdefault(key, []).append(route)
    for (issuer, code, reported), number in numbers.most_common():
        if code not in OURS and not noteworthy(number, requests):
            continue
        whose = "" if issuer == "none" else f" of {issuer}"
        text = f"{_number(number, 'request')}{whose} in the last minute {'would be refused' if reported else 'refused'}: {code}"
        text += f"{_on(routes[issuer, code, reported])}."
        level = "note" if reported else "bad" if code in OURS or number >= BAD * requests else "warn"
        first = since[issuer, code, reported]
        began = _jump(live.history, (issuer, code, reported), number, first)
        found = _last_found(live, (issuer, code, reported))
        earlier = first if first < began else None
        yield Problem(level, "refusals", code, text, began, 0 if reported else number, found, first=earlier)


def _keys_missing(live: Live) -> str:
    """The issuers whose last fetch failed. A refusal for lack of keys has no issuer: no signature was verified."""
    names = [name for name, source in live.assembly.sources.items() if source.last_error is not None]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f" Issuers whose keys cannot be fetched: {', '.join(names[:NAMED])}{more}." if names else ""


def _on(routes: list[str]) -> str:
    names = list(dict.fromkeys(routes))
    if not names:
        return ""
    return f", on {', '.join(names)}" if len(names) <= NAMED else f", on {len(names)} routes"


def _number(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")
