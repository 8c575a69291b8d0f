"""The Dockerfile; `make image-test` builds and runs it."""

import re
from pathlib import Path

from tests.deploy.conftest import DEPLOY, Tool

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_hadolint_finds_nothing(tool: Tool) -> None:
    assert tool("hadolint", str(DEPLOY / "Dockerfile")) == ""


def test_the_image_runs_as_a_user_that_run_as_non_root_can_check() -> None:
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)[-1] == "65532:65532"


def test_kubernetes_probes_and_not_the_image() -> None:
    assert "HEALTHCHECK" not in DOCKERFILE


def test_it_reads_the_file_that_the_configmap_brings() -> None:
    assert '"/etc/jwt-sidecar/config.yaml"' in DOCKERFILE


def test_the_authorities_that_it_brings_are_found() -> None:
    """Without a file that is named OpenSSL finds none, and every https issuer is a stranger."""
    [copied] = re.findall(r"cp --dereference --parents (/etc/ssl/\S+)", DOCKERFILE)
    assert f"SSL_CERT_FILE={copied}\n" in DOCKERFILE


def test_everything_that_it_copies_is_sent_to_the_build() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{file}" for files in copied for file in files.split()} <= set(sent)


def test_a_build_uses_the_versions_that_the_tests_use() -> None:
    def pinned(file: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE))

    build, tests = pinned(DEPLOY / "requirements-build.txt"), pinned(DEPLOY.parent / "tests" / "requirements.txt")
    both = build.keys() & tests.keys()
    assert "mypy" in both
    assert {name: build[name] for name in both} == {name: tests[name] for name in both}
