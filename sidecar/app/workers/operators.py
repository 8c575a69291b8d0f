"""The health and admin listeners for all workers: asks each worker and combines the answers."""

import json
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext, suppress
from posixpath import normpath
from typing import Any

from aiohttp import web

from sidecar.app.admin.app import MAX_BODY_BYTES
from sidecar.app.admin.guard import Refused, guarded
from sidecar.app.admin.report import judged
from sidecar.app.workers.supervisor import ANSWER_S, Answer, Silent, Supervisor
from sidecar.app.workers.views import together
from sidecar.app.workers.worker import PRIVATE
from sidecar.jwt.compact_jws import strict_json_object
from sidecar.jwt.denylist import Entry

READY_S = 0.8  # for a worker to say whether it is ready: a kubelet waits for 1 s
LOOK_S = 1.0  # for a worker to answer operators who look; the commands wait for 5 s
CHANGE_S = 4.0
KEPT_BY_THE_SUPERVISOR = ("/denylist", "/undrain")
OF_ONE_HOP = {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}


class Operators:
    """The applications of the health and admin listeners. `host` is the admin listener's address; `about` has their URLs."""

    def __init__(self, host: str, supervisor: Supervisor) -> None:
        self.about: dict[str, Any] = {}
        self._host = host
        self._supervisor = supervisor
        self._has_been_ready = False

    def health(self) -> web.Application:
        """The health listener's application."""
        app = web.Application(middlewares=[_as_written])
        app.router.add_get("/livez", self._alive)
        app.router.add_get("/startupz", self._alive)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/readyz{rest:.*}", self._ready)
        app.router.add_get("/probe/{name}", self._ask_one)
        return app

    def admin(self) -> web.Application:
        """The admin listener's application."""
        app = web.Application(middlewares=[guarded(self._host), _as_written], client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", PRIVATE + "{rest:.*}", _nothing_here)
        app.router.add_get("/{rest:.*}", self._look)
        app.router.add_post("/explain", self._ask_one)
        app.router.add_route("*", "/{rest:.*}", self._change)
        return app

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response(text="ok\n")  # the supervisor replaces a dead worker; no restart is needed

    async def _ready(self, request: web.Request) -> web.Response:
        """At first, ready when all workers are; later while one is, since the others are being replaced."""
        supervisor = self._supervisor
        if supervisor.draining_since is not None:
            return web.Response(status=503, text="draining\n")
        answers = [
            answer for answer in (await supervisor.ask_all("GET", request.path_qs, within_s=READY_S)).values() if answer
        ]
        ready = sum(answer.status == 200 for answer in answers)
        self._has_been_ready |= ready == supervisor.places
        if ready and self._has_been_ready:
            return web.Response(text="ok\n")
        if not answers:
            return web.Response(status=503, text="no worker serves\n")
        return _passed_on(max(answers, key=lambda answer: answer.status))

    async def _metrics(self, request: web.Request) -> web.Response:
        supervisor = self._supervisor
        pids = {worker.place: worker.process.pid for worker in supervisor.workers}
        for place, answer in (await supervisor.ask_all("GET", "/metrics", within_s=CHANGE_S)).items():
            if answer is not None:
                supervisor.counted.add(pids[place], answer.body.decode())
        text, content_type = supervisor.counted.text(request.headers.get("Accept", ""))
        response = web.Response(body=text, headers={"Content-Type": content_type})
        response.enable_compression()
        return response

    async def _ask_one(self, request: web.Request) -> web.Response:
        """Ask one worker for a value that is the same in all."""
        body = await request.read()
        for worker in self._supervisor.workers:
            with suppress(Silent):
                return _passed_on(await worker.ask(request.method, request.path_qs, body))
        raise Refused(503, "No worker answers.")

    async def _look(self, request: web.Request) -> web.Response:
        url = request.rel_url
        after = request.query.get("after", "")
        if request.path == "/status":  # the refusals of all workers are numbered together
            url = url.without_query_params("after") if re.fullmatch("[0-9]{1,18}", after) else url
        answers = _of_all(await self._supervisor.ask_all("GET", str(url), within_s=LOOK_S))
        told = [json.loads(answer.body) for answer in answers if answer.status == 200 and _is_json(answer)]
        if not told:
            return _passed_on(answers[0])
        one = together(told)
        if request.path == "/status" and after:
            one["last"] = one["last"][: max(0, one["refusals"] - int(after))]
        if request.path == "/report":
            one = judged(one)
        if "most" in request.query:
            for name in {"last", "rejections"} & one.keys():
                one[name] = one[name][: int(request.query["most"])]
        if request.path in ("/sidecar", "/status"):
            about = one if request.path == "/sidecar" else one["sidecar"]
            about |= {"pid": os.getpid(), "workers": len(self._supervisor.workers), **self.about}
        return web.json_response(one)

    async def _change(self, request: web.Request) -> web.Response:
        supervisor, path = self._supervisor, request.path
        body = await request.read()
        if path == "/drain" and request.method == "POST":
            return await self._drain()
        kept = path in KEPT_BY_THE_SUPERVISOR
        async with supervisor.changing if kept else nullcontext():
            within_s = CHANGE_S if kept else ANSWER_S
            by_place = await supervisor.ask_all(request.method, request.path_qs, body, within_s)
            if any(answer is not None and answer.status == 200 for answer in by_place.values()):
                self._keep(path, body)
        answers = _of_all(by_place)
        if silent := [str(place + 1) for place, answer in by_place.items() if answer is None]:
            raise Refused(504, f"Not done in every worker: worker {' and '.join(silent)} does not answer; try again.")
        worst = max(answers, key=lambda answer: answer.status)
        if path == "/denylist" or not _is_json(worst) or {answer.status for answer in answers} != {worst.status}:
            return _passed_on(worst)
        told = together([json.loads(answer.body) for answer in answers])
        retry = {name: value for name, value in worst.headers.items() if name == "Retry-After"}
        return web.json_response(told, status=worst.status, headers=retry)

    async def _drain(self) -> web.Response:
        """Drain at once, without waiting for a worker that starts or is silent: it drains when it serves."""
        self._supervisor.begin_to_drain()
        by_place = await self._supervisor.ask_all("POST", "/drain", b"", LOOK_S)
        told = [json.loads(answer.body) for answer in by_place.values() if answer is not None and _is_json(answer)]
        return web.json_response(together(told) if told else {"draining": True, "in_flight": 0})

    def _keep(self, path: str, body: bytes) -> None:
        supervisor = self._supervisor
        if path == "/denylist":
            supervisor.keep_denied(Entry.read(strict_json_object(body)))
        elif path == "/undrain":
            supervisor.draining_since = None


def _of_all(answers: Mapping[int, Answer | None]) -> list[Answer]:
    if found := [answer for answer in answers.values() if answer is not None]:
        return found
    raise Refused(503, "No worker answers.")


@web.middleware
async def _as_written(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Middleware that serves no path with dot segments or `//`: on the way to a worker it would become another one."""
    if request.path.startswith("//") or normpath(request.path) != request.path:
        raise web.HTTPNotFound
    return await handler(request)


async def _nothing_here(_request: web.Request) -> web.Response:
    raise web.HTTPNotFound


def _is_json(answer: Answer) -> bool:
    return answer.headers.get("Content-Type", "").startswith("application/json")


def _passed_on(answer: Answer) -> web.Response:
    headers = {name: value for name, value in answer.headers.items() if name.lower() not in OF_ONE_HOP}
    return web.Response(status=answer.status, headers=headers, body=answer.body)
