"""The pages: every configuration on them loads, every command runs, every link leads somewhere, and the index has them all."""

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp.test_utils import RawTestServer

from sidecar.cli.dev.backend import Backend
from sidecar.cli.dev.issuer import Issuer
from sidecar.config import Config, parse
from sidecar.gateway.signing_key import key_set
from tests.conftest import Need
from tests.real.process import run

ROOT = Path(__file__).parent.parent
OURS = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("deploy/**/*.md")]
PAGES = sorted(page for page in OURS if "node_modules" not in page.parts)
MINIMAL = ROOT / "config.minimal.yaml"
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def blocks(*kinds: str) -> list[Any]:
    """The blocks of these kinds on all pages, without their indentation."""
    return [
        pytest.param(page, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE), id=f"{page.relative_to(ROOT)}:{number}")
        for page in PAGES
        for number, (indent, kind, text) in enumerate(BLOCK.findall(page.read_text()))
        if kind in kinds
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_section_leads_to_one(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:|mailto:)([^)#\s]*)#([^)\s]+)\)", page.read_text())
    targets = [((page.parent / link).resolve() if link else page, section) for link, section in links]
    assert [f"{target.name}#{section}" for target, section in targets if section not in sections(target)] == []


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_named_file_exists(page: Path) -> None:
    named = re.findall(r"`((?:benchmarks|deploy|docs|sidecar|tests)/[\w./-]+)`", page.read_text())
    assert [name for name in named if not (ROOT / name).exists()] == []


def sections(page: Path) -> set[str]:
    """The anchors of a page's sections."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    headings = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading) for heading in headings]
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_index_has_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)", index.read_text())}
    assert set(ROOT.glob("docs/**/*.md")) - linked == {index}


def test_the_site_has_every_page_in_its_navigation() -> None:
    listed = re.findall(r"(\S+\.md)$", (ROOT / "docs" / "site" / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {str(page.relative_to(ROOT / "docs")) for page in ROOT.glob("docs/**/*.md")} - set(listed) == set()


# Configurations


def test_readme_shows_the_minimal_configuration_in_twelve_lines() -> None:
    assert f"```yaml\n{MINIMAL.read_text()}```\n" in (ROOT / "README.md").read_text()
    assert len(MINIMAL.read_text().splitlines()) == 12


REST = {
    "issuers": {"idp": {"issuer": "https://idp.example/", "audiences": "any"}},
    "upstream": "http://127.0.0.1:9292",
}
OF_OTHERS = {  # a top-level key of other programs' files -> their kind
    "components": "kustomize: tests/deploy",
    "dependencies": "Helm: tests/deploy",
    "lifecycle": "Kubernetes",
    "livenessProbe": "Kubernetes",
    "static_resources": "Envoy: tests/test_migrate_pages.py",
    "apiVersion": "Istio: tests/test_migrate_pages.py",
}
KEYS = {field.alias or name for name, field in Config.model_fields.items()}


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_every_configuration_loads(page: Path, text: str) -> None:
    document = next(yaml.safe_load_all(text))
    if (
        isinstance(document, list) or document.keys() & OF_OTHERS.keys()
    ):  # a list: the deny list of tests/test_rules_page.py
        return
    if not document.keys() <= KEYS:  # keys of one issuer
        document = {"issuers": {"idp": REST["issuers"]["idp"] | document}}  # type: ignore[index]
    rest = {
        key: REST[key] for key in REST if key not in document and not (key == "upstream" and "upstreams" in document)
    }
    if "api_keys" in document:
        rest.pop("issuers", None)
    parse(json.dumps(rest | document) if rest else text, page.name, {"KEY": "k"}, ROOT)


# Commands

NOT_RUN = {
    "make": "tests/cli/test_dev.py does what make run does",
    "python3": "tests/deploy/release.py installs in this way",
    ".venv/bin/pip": "tests/deploy/release.py installs in this way",
    "/opt/jwt-sidecar/bin/pip": "tests/deploy/release.py installs in this way",
    "install": "needs root: tests/deploy/test_systemd.py reads the unit",
    "systemctl": "needs systemd: tests/deploy/test_systemd.py reads the unit",
    "docker": "needs an engine: tests/deploy/image.py builds the image",
    "chown": "needs root",
    "kubectl": "needs a cluster",
    "uv": "needs a package index",
    "echo": "into uv",
    "printf": "into uv",
}
ELSEWHERE = (
    "https://gateway.example",  # tests/gateway/test_gateway.py asks a gateway
    "127.0.0.1:8000",
    "127.0.0.1:9292/protected",  # tests/real/test_examples.py asks backends
)
HELD = "5b210281a04f5f8e-15"  # the id of a refused request, on docs/how/admin-page.md
SESSION = "$ "
SERVE = "jwt-sidecar run"
NEEDED = ("curl", "jq")
CONFIGURED = ("config.yaml", "config.minimal.yaml", "my.yaml")  # all hold config.minimal.yaml


def commands(text: str) -> list[tuple[str, str]]:
    """The commands of a block with continued lines joined, and the output that a session shows for each."""
    if text.startswith(SESSION):
        found = re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE)
    else:
        found = [(line, "") for line in re.sub(r"\\\n|(?<=\|)\n", " ", text).splitlines()]
    return [(line, printed.strip()) for line, printed in found if line.strip() and line.split()[0] not in NOT_RUN]


def pages_with_commands() -> list[Any]:
    """Each page, and all the commands on it, in their order."""
    found: dict[Path, list[tuple[str, str]]] = {}
    for block in blocks("sh", "console"):
        page, text = block.values
        found.setdefault(page, []).extend(
            one for one in commands(text) if not any(there in one[0] for there in ELSEWHERE)
        )
    return [pytest.param(page, ours, id=str(page.relative_to(ROOT))) for page, ours in found.items() if ours]


@pytest.fixture
def issuer() -> Issuer:
    return Issuer("http://127.0.0.1:9400/__zuplo/issuer", audience="my-api")


@pytest.fixture
async def backend() -> AsyncIterator[str]:
    """The backend of `jwt-sidecar dev`."""
    async with RawTestServer(Backend().answer) as server:
        yield f"http://127.0.0.1:{server.port}"


@pytest.fixture
def directory(tmp_path: Path, issuer: Issuer, backend: str) -> Path:
    """The files for the commands: config.minimal.yaml, with keys that need no network."""
    settings = yaml.safe_load(MINIMAL.read_text())
    settings["issuers"]["zuplo"]["jwks_inline"] = key_set(issuer.keys)
    anywhere = {"listen": "127.0.0.1:0"}
    settings |= {
        "upstream": backend,
        **anywhere,
        "health": anywhere,
        "admin": anywhere,
        "timeouts": {"drain_delay": "0s"},
    }
    for name in CONFIGURED:
        (tmp_path / name).write_text(json.dumps(settings))  # JSON is YAML
    (tmp_path / "token.txt").write_text(issuer.mint(scope="admin"))
    return tmp_path


@pytest.mark.parametrize(("page", "lines"), pages_with_commands())
async def test_every_command_runs(
    page: Path, lines: list[tuple[str, str]], directory: Path, issuer: Issuer, need: Need
) -> None:
    for program in NEEDED:
        need(program)
    for name, text in re.findall(r"^```yaml\n# (\w+\.yaml)\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL):
        if name not in CONFIGURED:
            (directory / name).write_text(text)
    environ = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TOKEN": issuer.mint(),
        "EXPIRED": issuer.mint("EdDSA", -3600),
    }
    served = any(line.startswith(("curl", "jq", SERVE)) for line, _ in lines)
    async with serving(directory / "config.yaml") if served else nullcontext(("", "")) as (proxy, admin):
        for line, printed in lines:
            if line.startswith(SERVE):
                continue  # the process is running
            there = re.sub(r"(?:localhost|127\.0\.0\.1):9901", admin, line.replace("127.0.0.1:8080", proxy))
            if HELD in there:
                refused, _ = await output(f"curl -s http://{proxy}/protected", directory, environ)
                there = there.replace(HELD, json.loads(refused)["request_id"])
            said, code = await output(there, directory, environ)
            assert code == 0, said
            assert shows(printed, said)


@asynccontextmanager
async def serving(config: Path) -> AsyncIterator[tuple[str, str]]:
    """`jwt-sidecar run`: its addresses for clients and operators."""
    command = str(Path(sys.executable).with_name("jwt-sidecar"))
    async with run(command, "run", "-c", str(config), announces=r"(listening proxy .*listening admin \S+\n)") as said:
        proxy, _, admin = re.findall(r"listening \w+ http://(\S+)", said)
        yield proxy, admin


async def output(line: str, directory: Path, environ: dict[str, str]) -> tuple[str, int]:
    """The output of a line in a shell, and its exit code."""
    process = await asyncio.create_subprocess_shell(
        f"set -o pipefail; {line}", stdout=asyncio.subprocess.PIPE, cwd=directory, env=environ, executable="/bin/bash"
    )
    printed, _ = await process.communicate()
    assert process.returncode is not None
    return printed.decode(), process.returncode


def shows(printed: str, said: str) -> bool:
    """Does the page show this? Of JSON only the names count; in other texts ... stands for anything."""
    try:
        expected = json.loads(printed)
    except ValueError:
        return re.search(re.escape(printed).replace(re.escape("..."), ".*"), said, re.DOTALL) is not None
    return shape(expected) <= shape(json.loads(said))


def shape(value: Any) -> set[str]:
    """The names in a JSON document."""
    if isinstance(value, list):
        return set().union(*map(shape, value))
    return set(value).union(*map(shape, value.values())) if isinstance(value, dict) else set()


def test_the_code_on_the_page_about_backends_equals_the_examples() -> None:
    page = (ROOT / "docs" / "how" / "backend.md").read_text()
    for kind, name in (("ruby", "rails/identity.rb"), ("js", "express/server.mjs")):
        code, *_ = [text for _, language, text in BLOCK.findall(page) if language == kind]
        assert code in (ROOT / "deploy" / "examples" / name).read_text()


def test_the_pod_on_the_page_about_kubernetes_has_the_shipped_probes_and_hooks() -> None:
    [page] = [
        yaml.safe_load(text)
        for _, kind, text in BLOCK.findall((ROOT / "docs" / "start" / "kubernetes.md").read_text())
        if kind == "yaml" and text.startswith("apiVersion")
    ]
    kustomize = ROOT / "deploy" / "kustomize" / "component"
    pod = page["spec"]["template"]["spec"]
    shipped = yaml.safe_load((kustomize / "sidecar.yaml").read_text())["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == shipped["terminationGracePeriodSeconds"]
    [ours], [theirs] = pod["initContainers"], shipped["initContainers"]
    for key in ("restartPolicy", "ports", "startupProbe", "readinessProbe", "livenessProbe", "lifecycle"):
        assert ours[key] == theirs[key]
    [backend] = pod["containers"]
    assert backend["lifecycle"] == yaml.safe_load((kustomize / "pre-stop.yaml").read_text())[1]["value"]


# Words

GENERATED = {
    "configuration.md",
    "codes.md",
    "decoders.md",
    "cli.md",
}  # or checked by another test


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/**/*.md")), ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_has_at_most_250_lines_and_begins_with_a_title_and_an_answer(page: Path) -> None:
    title, blank, *rest = page.read_text().splitlines()
    assert title.startswith("# ")
    assert blank == ""
    assert len(rest) <= 250 or page.name in GENERATED
    assert not rest[0].startswith("#"), "give the answer first"
