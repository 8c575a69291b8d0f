"""The Dockerfile; `make image-test` builds and runs it."""

import re
from pathlib import Path

from tests.deploy.conftest import DEPLOY, Tool

DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def test_hadolint_finds_nothing(tool: Tool) -> None:
    assert tool("hadolint", str(DEPLOY / "Dockerfile")) == ""


def test_the_image_runs_as_a_numeric_user() -> None:
    assert re.findall(r"^USER (.*)", DOCKERFILE, re.MULTILINE)[-1] == "65532:65532"


def test_the_image_has_no_healthcheck_of_its_own() -> None:
    assert "HEALTHCHECK" not in DOCKERFILE


def test_the_image_reads_the_file_that_the_configmap_mounts() -> None:
    assert '"/etc/jwt-sidecar/config.yaml"' in DOCKERFILE


def test_the_image_names_the_file_of_its_certificate_authorities() -> None:
    """Without SSL_CERT_FILE, OpenSSL finds no authorities and trusts no https issuer."""
    [copied] = re.findall(r"cp --dereference --parents (/etc/ssl/\S+)", DOCKERFILE)
    assert f"SSL_CERT_FILE={copied}\n" in DOCKERFILE


def test_every_copied_file_is_in_the_build_context() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sent = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert {f"!{file}" for files in copied for file in files.split()} <= set(sent)


def test_a_build_has_the_pinned_versions_of_the_tests() -> None:
    def pinned(file: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.MULTILINE))

    build, tests = pinned(DEPLOY / "requirements-build.txt"), pinned(DEPLOY.parent / "tests" / "requirements.txt")
    both = build.keys() & tests.keys()
    assert "mypy" in both
    assert {name: build[name] for name in both} == {name: tests[name] for name in both}
