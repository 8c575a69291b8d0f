"""The admin listener, on loopback by default. It has no password; `guard` protects it from browsers."""

import re
from collections.abc import Awaitable, Callable
from itertools import islice
from math import ceil
from typing import Any

from aiohttp import web

from sidecar.app.admin.configuration import configuration
from sidecar.app.admin.guard import Refused, guarded
from sidecar.app.admin.issuers import issuers, refreshed
from sidecar.app.admin.page import FILES, page
from sidecar.app.admin.refusals import GROUPED_BY, fits, groups, refusal
from sidecar.app.admin.report import report
from sidecar.app.admin.routes import routes
from sidecar.app.admin.status import Status, about
from sidecar.app.admin.timeline import timeline
from sidecar.app.admin.upstreams import upstreams
from sidecar.app.explain.explanation import explain
from sidecar.app.explain.question import CannotExplain, Question
from sidecar.app.state import Live
from sidecar.common.clock import Clock
from sidecar.common.errors import Unusable
from sidecar.gateway.signing_key import key_set
from sidecar.jwt.compact_jws import strict_json_object
from sidecar.observability.rejection_log import KEPT

MAX_BODY_BYTES = 64 * 1024  # of a request; the largest one is an entry of the deny list
KEY_SET_CACHE_CONTROL = "public, max-age=60"  # short, since a restart may bring a new key that backends need
REFRESH_STATUS = {"fetched": 200, "cooldown": 429, "failed": 502}

View = Callable[[web.Request], Any]


class Admin:
    """The admin listener's application. `host` is the address that it is bound to."""

    def __init__(self, live: Live, host: str, clock: Clock) -> None:
        self._live = live
        self._host = host
        self._clock = clock
        self._overview = Status(live, clock)

    def app(self) -> web.Application:
        """The listener's routes."""
        app = web.Application(middlewares=[guarded(self._host)], client_max_size=MAX_BODY_BYTES)
        for path in FILES:
            app.router.add_get(path, page)
        for path, view in self._views().items():
            app.router.add_get(path, _answer(view))
        app.router.add_post("/jwks/refresh", self._refresh)
        app.router.add_post("/jwks/refresh/{issuer}", self._refresh)
        app.router.add_post("/explain", self._explain)
        app.router.add_post("/denylist", self._deny)
        app.router.add_post("/drain", self._drain)
        app.router.add_post("/undrain", self._undrain)
        app.router.add_get("/.well-known/jwks.json", self._jwks)
        return app

    def _views(self) -> dict[str, View]:
        """Path -> the JSON of its answer to a GET.

        `after` and `most` of /status: only the last `most` refusals after the first `after` of their total.
        """
        live, clock = self._live, self._clock
        return {
            "/status": lambda request: self._overview.told(
                _number(request, "after", 0), _number(request, "most", KEPT)
            ),
            "/sidecar": lambda _: about(live, clock),
            "/report": lambda _: report(live, clock),
            "/timeline": lambda request: timeline(live.history, _number(request, "after", 0)),
            "/routes": lambda _: {"routes": routes(live.assembly, live.history)},
            "/upstreams": lambda _: {"upstreams": upstreams(live.assembly, live.telemetry, live.history)},
            "/configuration": lambda _: configuration(live.assembly.config, live.file),
            "/issuers": lambda _: {"issuers": issuers(live.assembly, live.history, clock)},
            "/rejections": self._rejections,
            "/rejections/{request_id}": self._rejection,
        }

    async def _refresh(self, request: web.Request) -> web.Response:
        """Fetch the keys of one issuer or of all. The status is that of the worst result."""
        sources = self._live.assembly.sources
        name = request.match_info.get("issuer")
        if name is not None and name not in sources:
            raise Refused(404, f"No issuer has this name; one of: {', '.join(sources)}.")
        force = (await _members(request, {"force": False}))["force"]
        results = await refreshed([sources[name]] if name is not None else list(sources.values()), force=force)
        status = max(REFRESH_STATUS[result["result"]] for result in results)
        cooldown_s = max(result["cooldown_s"] for result in results)
        retry = {"Retry-After": str(ceil(cooldown_s))} if status == 429 else {}
        return web.json_response({"issuers": results}, status=status, headers=retry)

    def _rejections(self, request: web.Request) -> Any:
        """The last refusals, or with `by` counts in groups; `code`, `issuer`, `route` and `mode` filter them."""
        wanted = {name: request.query[name] for name in (*GROUPED_BY, "mode") if name in request.query}
        telemetry = self._live.telemetry
        if "by" not in request.query:
            told = (one for one in map(refusal, telemetry.refusals) if fits(one, wanted))
            last = list(islice(told, _number(request, "most", KEPT)))
            return {"refusals": telemetry.refusals.total, "rejections": last}
        by = request.query["by"].split(",")
        if not set(by) <= set(GROUPED_BY):
            raise Refused(400, f"by must be a comma-separated list of: {', '.join(GROUPED_BY)}.")
        return {"groups": groups(telemetry, self._live.history.minute(), by, wanted)}

    def _rejection(self, request: web.Request) -> Any:
        kept = self._live.telemetry.refusals.find(request.match_info["request_id"])
        if kept is None:
            raise Refused(404, "None of the last refusals has this request id.")
        return refusal(kept)

    async def _explain(self, request: web.Request) -> web.Response:
        """Explain a request with this token. The token is not kept, and no part of it is in the answer."""
        asked = await _members(request, {"method": "GET", "path": "/", "host": "localhost", "token": ""})
        token = asked["token"].strip().encode("utf-8", "surrogatepass")
        question = Question(asked["method"], asked["path"], token or None, asked["host"])
        try:
            question.check()
        except CannotExplain as error:
            raise Refused(400, f"This cannot be explained: {error}.") from None
        told = await explain(self._live.assembly, question, self._clock)
        refused = told.rejection
        answer: dict[str, Any] = {"accepted": refused is None, "steps": [step._asdict() for step in told.steps]}
        if refused is None:
            answer |= {"upstream": told.upstream, "head": told.head}
        else:
            reason = refused.reason
            answer |= {"status": reason.status, "code": reason.code, "error": reason.error, "details": refused.details}
        return web.json_response(answer)

    async def _jwks(self, _request: web.Request) -> web.Response:
        keys = self._live.assembly.signing_keys
        if not keys:
            raise web.HTTPNotFound
        return web.json_response(key_set(keys), headers={"Cache-Control": KEY_SET_CACHE_CONTROL})

    async def _deny(self, request: web.Request) -> web.Response:
        denylist = self._live.assembly.denylist
        try:
            denylist.add(strict_json_object(await request.read()))
        except ValueError:
            raise Refused(400, "The body must be a JSON object: an entry of the deny list.") from None
        except Unusable as error:
            raise Refused(400, f"The entry cannot be used: {error}.") from None
        waiting = denylist.counts["posted", "waiting"]
        return web.json_response({"entries": len(denylist)} | ({"waiting": waiting} if waiting else {}))

    async def _drain(self, _request: web.Request) -> web.Response:
        self._live.drain.begin()
        return web.json_response({"draining": True, "in_flight": self._live.resources.requests_in_flight})

    async def _undrain(self, _request: web.Request) -> web.Response:
        if not self._live.drain.take_back():
            raise Refused(409, "The sidecar is stopping, and that cannot be undone.")
        return web.json_response({"draining": False})


def _answer(view: View) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(view(request))

    return answer


def _number(request: web.Request, name: str, default: int) -> int:
    """A whole number in the query. Raises Refused."""
    number = request.query.get(name, str(default))
    if re.fullmatch(r"[0-9]{1,18}", number) is None:  # Python does not parse thousands of digits
        raise Refused(400, f"{name} must be a number.")
    return int(number)


async def _members(request: web.Request, defaults: dict[str, Any]) -> dict[str, Any]:
    """The members of a JSON body, with the types of `defaults`; an empty body has none. Raises Refused."""
    try:
        members = strict_json_object(await request.read() or b"{}")
    except ValueError:
        raise Refused(400, "The body must be a JSON object.") from None
    for name, value in members.items():
        if name not in defaults:
            raise Refused(400, f"The body has an unknown member; use only: {', '.join(defaults)}.")
        if type(value) is not type(defaults[name]):
            kind = "true or false" if defaults[name] is False else "text"
            raise Refused(400, f"{name} must be {kind}.")
    return defaults | members
