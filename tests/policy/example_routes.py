"""Rules of every kind for the tests of routes and paths."""

import pytest

from sidecar.common.errors import Reason, Rejection
from sidecar.policy.access_policy import Policy
from sidecar.policy.routes import Auth, Route, Routes

PUBLIC = Route("/public/*", auth=Auth.NONE)
ROBOTS = Route("/robots.txt", auth=Auth.NONE)
CLOSED = Route("/public/closed/*", auth=Auth.DENY)
ADMIN = Route("/admin/*", policy=Policy(scopes=["admin"]))
READ = Route("/items/*", methods=["GET", "HEAD"], auth=Auth.OPTIONAL)
ITEMS = Route("/items/*")
OTHERWISE = Route("/*", name="(default)")
ROUTES = Routes([CLOSED, PUBLIC, ROBOTS, ADMIN, READ, ITEMS], OTHERWISE)


def match(target: str, method: str = "GET") -> Route:
    return ROUTES.match(method, target)


def refusal(target: str, method: str = "GET") -> Reason:
    with pytest.raises(Rejection) as caught:
        match(target, method)
    return caught.value.reason
