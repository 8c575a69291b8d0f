"""Real programs read a path as one of its readings, and no rule accepts a path that is closed by another reading."""

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from pathlib import Path

import pytest
import pytest_asyncio

from benchmarks.process import reserved_port
from sidecar.common.errors import Rejection
from sidecar.policy.path_normalization import IGNORED, readings
from sidecar.policy.routes import Auth, Route, Routes
from tests.conftest import Need
from tests.peers import patience
from tests.peers.raw import fetch
from tests.peers.wire import Truncated, request
from tests.real.process import run

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = Path(__file__).with_name("paths")
EXPRESS = Path(__file__).parents[2] / "deploy/examples/express/node_modules/express"
JAVA = Path("/usr/share/java")
SPRING = Path("/usr/share/maven-repo/org/springframework")
ANNOUNCES = r"(?:[Ll]istening on|Development Server) \(?(http://[^\s)]+)"
PROGRAMS = ("nginx", "node", "python", "ruby", "php", "java", "tomcat", "spring", "go")
NGINX = """\
daemon off;
pid nginx.pid;
error_log stderr notice;
events {}
http {
    access_log off;
    client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp; uwsgi_temp_path temp; scgi_temp_path temp;
    server { listen 127.0.0.1:%d; location / { return 200 $uri; } }
}
"""
Running = AbstractAsyncContextManager[str]
PIECES = (
    *(
        "/",
        "/",
        "//",
        "a",
        "b",
        "open",
        "closed",
        "x.json",
        ".",
        "..",
        "/.",
        "/..",
        "/../",
        "/./",
        "...",
        "A",
        "Closed",
    ),
    *(
        "%2e",
        "%2E%2e",
        "%252e",
        "%2f",
        "%2F",
        "%5c",
        "%5C..",
        ";",
        "..;",
        ";a=1",
        ";v",
        "%3b",
        "%253b",
        "%3f",
        "%23",
        "%25",
    ),
    *(
        "%61",
        "%2561",
        "%C3%A9",
        "%c3%a9",
        "%7E",
        "%20",
        "[",
        "]",
        "{",
        "^",
        '"',
        "<",
        "|",
        "+",
        ":",
        "@",
        "http:",
        "x:1",
        "!",
    ),
)
RULES = (
    "/*",
    "/a/*",
    "/a",
    "/a/b/*",
    "/open/*",
    "/open",
    "/closed/*",
    "/closed",
    "/a/closed",
    "/*/b",
    "/a*/*",
    "/x.json",
    "/A/*",
)


def some_paths(number: int) -> list[str]:
    """Unusual readable paths, the same ones in each run."""
    chance = random.Random(18)
    found = [
        f"/{part}"
        for part in (
            "",
            "a",
            "a/b",
            "closed",
            "a/../closed",
            "a/%2e%2e/closed",
            "//h/closed",
            "closed/.",
            "a//",
            "./..",
            "x/../../b",
        )
    ]
    while len(found) < number:
        path = "/" + "".join(chance.choices(PIECES, k=chance.randint(1, 8)))
        try:
            path.encode("ascii") and readings(path)
        except Rejection:
            continue
        found.append(path)
    return found


def jars(*names: str) -> str:
    return ":".join(str(JAVA / f"{name}.jar") for name in names)


@cache
def spring_jars() -> str:
    return ":".join(str(jar) for name in ("web", "core", "beans") for jar in SPRING.glob(f"spring-{name}/4.*/*.jar"))


@pytest.fixture(scope="module", params=PROGRAMS)
def program(
    request: pytest.FixtureRequest, need: Need, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Running]:
    """Start one of the programs; yield its address."""
    name = str(request.param)
    match name:
        case "nginx":
            return lambda: nginx(need("nginx"), tmp_path_factory.mktemp("nginx"))
        case "node":
            need(str(EXPRESS), "npm ci --prefix deploy/examples/express")
            command = [need("node"), "serve.mjs"]
        case "python":
            command = [sys.executable, "serve.py"]
        case "ruby":
            command = [need("puma"), "--bind", "tcp://127.0.0.1:0", "config.ru"]
        case "php":
            return lambda: php(need("php"))
        case "java":
            need("javac", "install a JDK: a JRE alone cannot run a source file")
            command = [need("java"), "Serve.java"]
        case "tomcat":
            need(jars("tomcat10-embed-core"), "install libtomcat10-embed-java")
            command = [need("java"), "-cp", jars("tomcat10-embed-core", "tomcat10-embed-el"), "Tomcat.java"]
        case "spring":
            need(str(JAVA / "jetty9-servlet.jar"), "install libjetty9-java")
            need(spring_jars().partition(":")[0] or str(SPRING), "install libspring-web-java")
            jetty = [f"jetty9-{part}" for part in ("server", "util", "http", "io", "servlet", "security")]
            command = [
                need("java"),
                "-cp",
                f"{jars(*jetty, 'servlet-api', 'commons-logging')}:{spring_jars()}",
                "Spring.java",
            ]
        case _:
            built = str(tmp_path_factory.mktemp("go") / "serve")
            subprocess.run([need("go", "install golang-go"), "build", "-o", built, str(PATHS / "serve.go")], check=True)
            return lambda: run(built, announces=ANNOUNCES, never="panic")
    *words, file = command
    return lambda: run(*words, str(PATHS / file), announces=ANNOUNCES, never="OutOfMemory")


@asynccontextmanager
async def php(binary: str) -> AsyncIterator[str]:
    with reserved_port() as port:
        async with run(binary, "-S", f"127.0.0.1:{port}", str(PATHS / "serve.php"), announces=ANNOUNCES) as url:
            yield url


@asynccontextmanager
async def nginx(binary: str, directory: Path) -> AsyncIterator[str]:
    with reserved_port() as port:
        (directory / "nginx.conf").write_text(NGINX % port)
        process = await asyncio.create_subprocess_exec(binary, "-e", "stderr", "-p", str(directory), "-c", "nginx.conf")
        try:
            async with patience("nginx to listen"):
                while True:
                    try:
                        await fetch(("127.0.0.1", port), request("GET", "/"))
                        break
                    except ConnectionError:
                        await asyncio.sleep(0.02)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            await process.wait()


class Asked:
    """A program's readings of paths, each requested once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._known: dict[str, list[str]] = {}

    async def about(self, path: str) -> list[str]:
        """The readings as text; none if the program refuses the path."""
        if path not in self._known:
            try:
                answer = await fetch(("127.0.0.1", self._port), request("GET", path, host="api.test"))
            except (ConnectionError, Truncated):
                return []
            text = answer.body.decode("utf-8", "replace")
            found = json.loads(text) if text.startswith("[") else [text]
            self._known[path] = [str(one) for one in found] if answer.status == 200 else []
        return self._known[path]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def asked(program: Callable[[], Running]) -> AsyncIterator[Asked]:
    async with program() as url:
        yield Asked(int(url.rpartition(":")[2]))


async def test_every_program_reads_a_path_as_one_of_its_readings(asked: Asked) -> None:
    answered = 0
    for path in some_paths(800):
        known = {IGNORED.form(reading) for reading in readings(path)}
        for found in await asked.about(path):
            answered += 1
            assert IGNORED.form(found) in known, f"{path} is {found}"
    assert answered > 400


async def test_no_accepted_path_reaches_a_closed_resource_of_a_program(asked: Asked) -> None:
    """Rules and prefixes are random. An accepted path reaches only resources that a plain request may reach."""
    chance = random.Random(18)
    otherwise = Route("/*", auth=Auth.DENY)
    let_in = 0
    for path in some_paths(500):
        for _ in range(6):
            rules = [
                Route(
                    rule,
                    auth=chance.choice((Auth.NONE, Auth.REQUIRED, Auth.OPTIONAL, Auth.DENY)),
                    strip_prefix=chance.choice(("/a", "")) if rule.startswith("/a/") else "",
                )
                for rule in chance.sample(RULES, chance.randint(1, 5))
            ]
            try:
                met = Routes(rules, otherwise).match("GET", path)
                sent = met.sent(path)
            except Rejection:
                continue
            for found in await asked.about(sent):
                let_in += 1
                plain = met.strip_prefix + found
                fits = next((rule for rule in rules if rule.covers(plain)), otherwise)
                assert fits is met or fits.is_open or fits.covers(path), f"{path} by {rules} is {found}"
    assert let_in > 1000
