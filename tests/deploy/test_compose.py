"""deploy/compose.yaml: the backend cannot be reached past the sidecar, and both are as locked down as in a cluster."""

from pathlib import Path

import pytest
import yaml

from sidecar import config
from sidecar.cli.main import main
from tests.deploy.conftest import DEPLOY

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
SIDECAR = SERVICES["jwt-sidecar"]
CONFIGURATION = COMPOSE["configs"]["jwt-sidecar"]["content"]
SETTINGS = config.parse(CONFIGURATION, environ={})


def test_the_backend_is_reached_only_through_the_sidecar() -> None:
    backend = SERVICES["backend"]
    assert backend["network_mode"] == "service:jwt-sidecar"
    assert "ports" not in backend
    assert [port.rpartition(":")[2] for port in SIDECAR["ports"]] == [str(SETTINGS.listen[0].port)]
    upstream = SETTINGS.upstreams["default"]
    assert (upstream.host, upstream.port) == ("127.0.0.1", 9292)  # the address of the example


@pytest.mark.parametrize("service", SERVICES)
def test_services_run_without_privileges(service: str) -> None:
    settings = SERVICES[service]
    assert settings["user"] == "65532:65532"
    assert settings["read_only"] is True
    assert settings["cap_drop"] == ["ALL"]
    assert settings["security_opt"] == ["no-new-privileges:true"]


def test_check_accepts_the_configuration_of_compose(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(CONFIGURATION)
    assert main(["check", "-c", str(file)]) == 0
    assert SIDECAR["configs"] == [{"source": "jwt-sidecar", "target": "/etc/jwt-sidecar/config.yaml"}]


def test_the_grace_period_of_compose_covers_drain_and_shutdown() -> None:
    assert (
        int(SIDECAR["stop_grace_period"].removesuffix("s"))
        > SETTINGS.timeouts.drain_delay_s + SETTINGS.timeouts.shutdown_s
    )


def test_the_gateway_sends_to_a_sidecar_that_accepts_its_tokens() -> None:
    gateway, orders = (yaml.safe_load(COMPOSE["configs"][name]["content"]) for name in ("gateway", "orders"))
    assert SERVICES["orders-backend"]["network_mode"] == "service:orders"
    assert SERVICES["orders"]["ports"] == []
    assert gateway["upstreams"]["orders"]["url"] == f"http://orders:{SETTINGS.listen[0].port}"
    assert [issuer["issuer"] for issuer in orders["issuers"].values()] == [gateway["signing"]["issuer"]]
    assert orders["issuers"]["gateway"]["audiences"] == [gateway["upstreams"]["orders"]["token"]["audience"]]


def test_every_mounted_and_built_path_exists() -> None:
    [volume] = SERVICES["backend"]["volumes"]
    assert (DEPLOY / volume.split(":")[0] / "backend.py").is_file()
    assert (DEPLOY / SIDECAR["build"]["context"] / SIDECAR["build"]["dockerfile"]).is_file()
