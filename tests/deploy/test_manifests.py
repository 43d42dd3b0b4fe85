"""Images, compose file, manifests and units: linted by their own tools, hardened, and about what is really there."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

import oracle_hub
from oracle_hub.cli import COMMANDS
from oracle_hub.config import parse_config
from tests.deploy.shipped import DEPLOY, ROOT, Tree, run, tree

IMAGE = f"oracle-hub:{oracle_hub.__version__}"
COMPOSE = tree(DEPLOY / "compose.yaml")
MANIFESTS: list[Tree] = [
    document
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text("utf-8"))
]
NAMES = [f"{one['kind']}-{one['metadata']['name']}" for one in MANIFESTS]
KUBERNETES = "1.33"
"""The oldest version that is supported when this is shipped; what it takes, later ones take."""


def manifest(kind: str, name: str) -> Tree:
    (found,) = (one for one in MANIFESTS if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


WORKLOADS = [manifest("StatefulSet", "oracle-hub"), manifest("Deployment", "oracle-hub-charts")]


def test_yaml_is_in_one_style() -> None:
    run("yamllint", "--strict", "-c", DEPLOY / ".yamllint.yaml", DEPLOY)


# The image.


def test_the_dockerfile_has_no_known_fault() -> None:
    run("hadolint", DEPLOY / "Dockerfile")


def test_what_the_dockerfile_copies_is_not_ignored() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")]
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    sources = [source for line in copies for source in line.split()]
    assert len(sources) > 5
    for source in sources:
        assert (ROOT / source).exists() and source in allowed, source


# Docker Compose.


def test_the_compose_file_is_one() -> None:
    run("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_is_pinned_hardened_and_looked_after(name: str) -> None:
    service = COMPOSE["services"][name]
    assert service["image"] == IMAGE or re.search(r":v?\d+\.\d+\.\d+$", service["image"])
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged") and not re.match("0(:|$)", service["user"])
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["mem_limit"] and service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"][0] == "CMD"


def test_volumes_exist_and_files_are_mounted_read_only() -> None:
    named: set[str] = set()
    for service in COMPOSE["services"].values():
        for mount in service["volumes"]:
            source = re.sub(r"^\$\{\w+:-(.+?)\}", r"\1", mount).split(":")[0]
            if source.startswith("./"):
                assert (DEPLOY / source).exists(), source
                assert mount.endswith(":ro")
            else:
                named.add(source)
    assert named == COMPOSE["volumes"].keys()


def test_prometheus_looks_where_the_services_are() -> None:
    jobs = tree(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    targets = {target for job in jobs for one in job["static_configs"] for target in one["targets"]}
    assert targets == {"hub:8080", "charts:8081", "alertmanager:9093", "localhost:9090"}
    for target in targets:
        host, port = target.replace("localhost", "prometheus").split(":")
        assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"][host]["ports"]
    source = tree(DEPLOY / "grafana/provisioning/datasources/prometheus.yaml")["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    provider = tree(DEPLOY / "grafana/provisioning/dashboards/oracle-hub.yaml")["providers"][0]
    mounts = COMPOSE["services"]["grafana"]["volumes"]
    assert f"./grafana/dashboards:{provider['options']['path']}:ro" in mounts


# Kubernetes.


@pytest.mark.parametrize("document", MANIFESTS, ids=NAMES)
def test_a_manifest_is_valid(document: Tree) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["kind"])
def test_a_pod_may_do_nothing_but_its_work(workload: Tree) -> None:
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"] == IMAGE
    assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
    assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda one: one["kind"])
def test_a_pod_is_asked_whether_it_lives_and_whether_it_is_ready(workload: Tree) -> None:
    pod = workload["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "http"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "http"}
    assert pod["terminationGracePeriodSeconds"] >= 10  # the hub's own bounds add up to less than two
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", ())}
    assert mounted == claims | {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("document", MANIFESTS, ids=NAMES)
def test_selectors_select(document: Tree) -> None:
    labels = [one["spec"]["template"]["metadata"]["labels"] for one in WORKLOADS]
    spec = document.get("spec", {})
    selectors = [spec.get("selector") or {}, spec.get("podSelector") or {}]
    for selector in selectors:
        wanted = selector.get("matchLabels", selector)
        assert not wanted or any(wanted.items() <= one.items() for one in labels), wanted


def test_two_hubs_on_two_machines_one_of_which_stays() -> None:
    hub = WORKLOADS[0]["spec"]
    assert hub["replicas"] == 2 and hub["minReadySeconds"] >= 10
    (rule,) = hub["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert rule["topologyKey"] == "kubernetes.io/hostname"
    assert manifest("PodDisruptionBudget", "oracle-hub")["spec"]["minAvailable"] == 1
    assert [claim["metadata"]["name"] for claim in hub["volumeClaimTemplates"]] == ["state"]


def test_the_mounted_configuration_is_the_preset() -> None:
    text = manifest("ConfigMap", "oracle-hub")["data"]["hub.toml"]
    assert text == (DEPLOY / "jupiter-mainnet.toml").read_text("utf-8")
    assert parse_config(text, origin="hub.toml").roles.primary == "doves"


# What is started, wherever it is started.


def commands() -> list[list[str]]:
    """The arguments of every oracle-hub that is started by compose file, manifests, units and the image."""
    found = [COMPOSE["services"][name]["command"] for name in ("hub", "charts")]
    found += [one["spec"]["template"]["spec"]["containers"][0]["args"] for one in WORKLOADS]
    for path in sorted(DEPLOY.glob("*.service")):
        line = re.findall(r"^ExecStart=(.+)$", path.read_text("utf-8"), re.MULTILINE)
        found += [shlex.split(one)[1:] for one in line]
    image = re.findall(r"^CMD \[(.+)\]$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.MULTILINE)
    return found + [[word.strip(' "') for word in one.split(",")] for one in image]


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_what_is_started_exists(arguments: list[str]) -> None:
    command, *rest = arguments
    parser = argparse.ArgumentParser()
    importlib.import_module(f"oracle_hub.cli.{COMMANDS[command].module}").arguments(parser)
    options = parser.parse_args(rest)
    assert Path(options.config).as_posix() == "/etc/oracle-hub/hub.toml"


def test_units_are_shut_in_alike() -> None:
    """Both units end with the same list of what they may not."""
    tails = [
        (DEPLOY / name).read_text("utf-8").partition("CapabilityBoundingSet=")[2]
        for name in ("oracle-hub.service", "oracle-hub-charts.service")
    ]
    assert tails[0] == tails[1] and "ProtectSystem=strict" in tails[0]
