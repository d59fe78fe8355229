"""Helm's own code renders and lints the chart; Kubernetes' schemas and hpcc's readers check it.

helm-python-sdk is a C interface to Helm 4's Go packages, not the `helm` program. The code that
reads charts, values and schemas is the same.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from hpcc.cli.main import build_parser
from hpcc.config.service_file import parse_service_file
from hpcc.core import TenantId
from hpcc.gateway.config import GatewayConfig
from hpcc.identity.keys import load_or_create_tls
from hpcc.identity.tls import PinnedPeer
from hpcc.obs.health.health import Health
from hpcc.ports import SystemClock
from hpcc.routing.load import Load
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.health import SchedulerSources, watch_scheduler
from hpcc.scheduler.tenants.table import parse_tenants
from hpcc.worker.base.config import WorkerConfig
from hpcc_testkit.packages.helm_chart import CHART, ROOT, of_kind, pods, render, value_files

pytestmark = pytest.mark.timeout(300)

_REFUSED: Final[dict[str, dict[str, Any]]] = {
    "an image by its tag": {"image": {"service": "registry.acme.example/hpcc:latest"}},
    "a toolchain by its tag": {"worker": {"images": ["registry.acme.example/gcc:14"]}},
    "a password in the values": {
        "scheduler": {"database": "postgresql://a:secret@db/hpcc?sslmode=verify-full"}
    },
    "a database without TLS": {"migrate": {"database": "postgresql://a@db/hpcc"}},
    "a tenant's secret in the values": {"scheduler": {"config": {"tenant_secret": "x" * 40}}},
    "a private key in the values": {
        "scheduler": {"certificate": "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----"}
    },
    "schedulers that reach everything": {
        "networkPolicy": {"identityProviders": [{"cidr": "0.0.0.0/0", "port": 443}]}
    },
    "workers that reach everything": {
        "networkPolicy": {"workerEgress": [{"cidr": "::/0", "port": 443}]}
    },
    "workers that reach the database": {
        "networkPolicy": {"workerEgress": [{"cidr": "192.0.2.5/32", "port": 5432}]}
    },
    "a misspelt value": {"networkPolicy": {"client": []}},
    "workers without an image": {"image": {"worker": ""}},
    "a scheduler without a limit of its memory": {
        "scheduler": {"resources": {"limits": {"memory": None}}}
    },
    "a gateway without a limit of its memory": {
        "gateway": {"resources": {"limits": {"memory": None}}}
    },
    "workers without a limit of their memory": {
        "worker": {"resources": {"limits": {"memory": None, "cpu": "8"}}}
    },
    "workers on every node": {"worker": {"nodeSelector": None}},
    "metrics for everybody": {"metrics": {"enabled": True, "podLabels": None}},
    "metrics on a node's address": {
        "metrics": {"enabled": True},
        "worker": {"hostNetwork": True},
    },
}


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    sets = value_files()
    full = sets.pop("full")
    return render({
        **sets, "full": full,
        "defaults": {"gateway": {"enabled": False}, "worker": {"instances": [], "stores": {}}},
        "host-network": {"worker": {"hostNetwork": True, "storage": {"className": "fast"}}},
        "metrics": {"metrics": {"enabled": True, "podMonitor": True, "farm": "farm-1"}},
        "bad": {"scheduler": {"resources": {"requests": {}, "limits": {}, "limit": {}}}},
        **{f"refused: {name}": values for name, values in _REFUSED.items()},
    })  # fmt: skip


_GOOD: Final = ("service", "full", "defaults", "host-network", "metrics")


@pytest.mark.parametrize("case", _GOOD)
def test_helm_renders_and_lints_it_and_kubernetes_knows_every_field(
    rendered: dict[str, Any], case: str
) -> None:
    answer = rendered[case]
    assert "refused" not in answer, answer
    assert answer["lint"] == []
    assert answer["faults"] == []


@pytest.mark.parametrize("name", _REFUSED)
def test_values_that_open_a_hole_are_refused(rendered: dict[str, Any], name: str) -> None:
    assert rendered[f"refused: {name}"].get("refused")


def test_a_field_that_kubernetes_does_not_have_is_noticed(rendered: dict[str, Any]) -> None:
    assert any("limit" in fault for fault in rendered["bad"]["faults"])


def test_hpcc_reads_every_config_file_and_table(rendered: dict[str, Any]) -> None:
    kinds = {
        "scheduler.json": SchedulerConfig, "owner.json": SchedulerConfig,
        "gateway.json": GatewayConfig, "worker.json": WorkerConfig,
    }  # fmt: skip
    seen = []
    for item in of_kind(rendered["full"], "ConfigMap").values():
        for name, text in item["data"].items():
            seen.append(name)
            if name == "tenants.toml":
                assert set(parse_tenants(text.encode(), source=name)) == {TenantId("acme")}
                continue
            parse_service_file(text.encode(), kinds[name], source=name)
    assert sorted(set(seen)) == sorted([*kinds, "tenants.toml"])


def test_every_container_runs_a_command_that_exists(rendered: dict[str, Any]) -> None:
    parser = build_parser()
    for name, pod in pods(rendered["full"]):
        for container in [*pod["containers"], *pod["initContainers"]]:
            if container["name"] != "files":
                assert hasattr(parser.parse_args(container["args"]), "handler"), name


def test_only_a_worker_is_privileged_and_nothing_has_a_token_of_the_cluster(
    rendered: dict[str, Any],
) -> None:
    privileged = set()
    for name, pod in pods(rendered["full"]):
        assert pod["automountServiceAccountToken"] is False
        for container in [*pod["containers"], *pod["initContainers"]]:
            assert re.fullmatch(r".+@sha256:[0-9a-f]{64}", container["image"])
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            if security.get("privileged"):
                privileged.add((name, container["name"]))
                continue
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"]["drop"] == ["ALL"]
            if not name.startswith("farm-w"):
                assert pod["securityContext"]["runAsNonRoot"] is True
    assert privileged == {("farm-w1", "worker"), ("farm-w2", "worker")}
    assert all(
        a["automountServiceAccountToken"] is False
        for a in of_kind(rendered["full"], "ServiceAccount").values()
    )


def _degradations(answer: dict[str, Any]) -> list[str]:
    """Return the conditions that a scheduler with the chart's config serves without."""
    text = of_kind(answer, "ConfigMap")["farm-scheduler"]["data"]["scheduler.json"]
    config = parse_service_file(text.encode(), SchedulerConfig, source="chart")
    health = Health()
    sources = SchedulerSources(
        store_trouble=lambda: "",
        tenants_trouble=lambda: "",
        certificate_ends_at=lambda: 0.0,
        load=lambda: Load(live=0, stale=0, capacity=0, running=0, queued=0),
    )
    watch_scheduler(health, config, sources, SystemClock())
    return [condition.name for condition in health.conditions().all if not condition.is_fault]


def test_probes_ask_the_admin_port_which_no_policy_opens(rendered: dict[str, Any]) -> None:
    """Schedulers do without their database: if probes counted it, all of them would be gone."""
    asked = {}
    for name, pod in pods(rendered["full"]):
        for container in pod["containers"]:
            probes = {k: v for k, v in container.items() if k.endswith("Probe")}
            assert all(probe["httpGet"]["port"] == "admin" for probe in probes.values())
            assert {"name": "admin", "containerPort": 9464} in container.get(
                "ports", []
            ) or not probes
            asked[name] = {k: probe["httpGet"]["path"] for k, probe in probes.items()}
    started = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    names = "".join(f"&exclude={name}" for name in _degradations(rendered["full"]))
    degradations = {"readinessProbe": f"/readyz?{names[1:]}"}
    assert f"`{degradations['readinessProbe']}`" in (ROOT / "docs/operate.md").read_text()
    assert asked == {
        "farm-scheduler": started | degradations, "farm-w1": started, "farm-w2": started,
        "farm-gateway": {k: v for k, v in started.items() if k != "startupProbe"},
        "farm-migrate": {},
    }  # fmt: skip
    configs = [
        json.loads(text)
        for item in of_kind(rendered["full"], "ConfigMap").values()
        for name, text in item["data"].items()
        if name.endswith(".json") and name != "owner.json"
    ]
    assert [config["admin"] for config in configs] == ["0.0.0.0:9464"] * 4
    for policy in of_kind(rendered["full"], "NetworkPolicy").values():
        assert "9464" not in json.dumps(policy)


_UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


@pytest.mark.parametrize("case", _GOOD)
def test_no_pod_may_fill_its_nodes_memory(rendered: dict[str, Any], case: str) -> None:
    """What a stranger's calls could cost before login ends the container, and not the node."""
    limits = {}
    for name, pod in pods(rendered[case]):
        for container in [*pod["containers"], *pod["initContainers"]]:
            text = container["resources"]["limits"]["memory"]
            limits[name, container["name"]] = int(text[:-2]) * _UNITS[text[-2:]]
    assert ("farm-scheduler", "scheduler") in limits
    workers = {limits.pop(key) for key in list(limits) if key[1] == "worker"}
    assert max(limits.values()) <= 4 << 30
    # A worker's limit has room for all its guests, which it counts, and for itself.
    for config in of_kind(rendered[case], "ConfigMap").values():
        guests = json.loads(config["data"].get("worker.json", "{}")).get("memory_mib", 0)
        assert not guests or guests << 20 < min(workers)


def test_secrets_are_named_and_each_pod_mounts_only_its_own(rendered: dict[str, Any]) -> None:
    assert of_kind(rendered["full"], "Secret") == {}
    mounted = {
        name: sorted(v["secret"]["secretName"] for v in pod["volumes"] if "secret" in v)
        for name, pod in pods(rendered["full"])
    }
    assert mounted == {
        "farm-scheduler": ["hpcc-scheduler"], "farm-migrate": ["hpcc-owner"],
        "farm-gateway": ["hpcc-gateway"],
        "farm-w1": ["hpcc-s3", "hpcc-w1"], "farm-w2": ["hpcc-s3", "hpcc-w2"],
    }  # fmt: skip


def _egress(answer: dict[str, Any], policy: str) -> set[tuple[str, int]]:
    rules = of_kind(answer, "NetworkPolicy")[policy]["spec"]["egress"]
    assert all(rule.get("to") and rule.get("ports") for rule in rules)
    return {
        (peer["ipBlock"]["cidr"], port["port"])
        for rule in rules for peer in rule["to"] if "ipBlock" in peer for port in rule["ports"]
    }  # fmt: skip


def test_schedulers_do_not_reach_s3_nor_workers_the_database(rendered: dict[str, Any]) -> None:
    full = rendered["full"]
    database, provider = ("192.0.2.5/32", 5432), ("198.51.100.7/32", 443)
    shared = {("203.0.113.0/28", 443), ("203.0.113.16/32", 5000), ("203.0.113.32/32", 80)}
    assert _egress(full, "farm-scheduler") == {database, provider}
    assert _egress(full, "farm-migrate") == {database}
    assert _egress(full, "farm-worker") == shared
    assert _egress(full, "farm-gateway") == {("192.0.2.16/28", 7445)}


def test_what_no_policy_allows_is_denied(rendered: dict[str, Any]) -> None:
    full = rendered["full"]
    policies = of_kind(full, "NetworkPolicy")
    default = policies["farm-default-deny"]["spec"]
    assert default["policyTypes"] == ["Ingress", "Egress"]
    assert not {"ingress", "egress"} & set(default)
    for kind in ("Deployment", "StatefulSet", "Job"):
        for item in of_kind(full, kind).values():
            labels = item["spec"]["template"]["metadata"]["labels"]
            chosen = [
                name for name, p in policies.items()
                if p["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
            ]  # fmt: skip
            assert len(chosen) == 2, item["metadata"]["name"]
    for policy in policies.values():
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
        assert all(rule.get("from") for rule in policy["spec"].get("ingress", []))


def test_only_prometheus_reaches_the_metrics_and_it_finds_each_service(
    rendered: dict[str, Any],
) -> None:
    answer = rendered["metrics"]
    (rule,) = of_kind(answer, "NetworkPolicy")["farm-metrics"]["spec"]["ingress"]
    (peer,) = rule["from"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 9464}]
    assert peer["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "monitoring"}
    assert peer["podSelector"]["matchLabels"] == {"app.kubernetes.io/name": "prometheus"}
    for config in of_kind(answer, "ConfigMap").values():
        for name, text in config["data"].items():
            if name.removesuffix(".json") in {"scheduler", "gateway", "worker"}:
                assert json.loads(text)["admin"] == "0.0.0.0:9464", name
    monitor = of_kind(answer, "PodMonitor")["farm-metrics"]["spec"]
    chosen = set()
    for kind in ("Deployment", "StatefulSet"):
        for name, item in of_kind(answer, kind).items():
            pod = item["spec"]["template"]
            assert monitor["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
            (container,) = pod["spec"]["containers"]
            ports = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert ports[monitor["podMetricsEndpoints"][0]["port"]] == 9464
            chosen.add(name)
    assert chosen == {"farm-scheduler", "farm-gateway", "farm-w1", "farm-w2"}
    relabelled = monitor["podMetricsEndpoints"][0]["relabelings"]
    given = {r["targetLabel"]: r.get("replacement") for r in relabelled}
    assert given == {"job": "hpcc", "farm": "farm-1", "instance": None}


def test_two_schedulers_are_on_two_machines_and_one_stays(rendered: dict[str, Any]) -> None:
    spec = of_kind(rendered["full"], "Deployment")["farm-scheduler"]["spec"]
    assert spec["replicas"] == 2
    term = spec["template"]["spec"]["affinity"]["podAntiAffinity"]
    (rule,) = term["preferredDuringSchedulingIgnoredDuringExecution"]
    labels = spec["template"]["metadata"]["labels"]
    chosen = rule["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert chosen.items() <= labels.items()
    assert (
        of_kind(rendered["full"], "PodDisruptionBudget")["farm-scheduler"]["spec"]["maxUnavailable"]
        == 1
    )


def test_the_files_that_a_pod_gets_are_its_own_with_mode_0600(
    rendered: dict[str, Any], tmp_path: Path
) -> None:
    """Runs the init container's script on the test's directories, and again without the token."""
    pod = dict(pods(rendered["full"]))["farm-w1"]
    (script,) = pod["initContainers"][0]["args"]
    for place, name, text in (
        ("from/config", "worker.json", of_kind(rendered["full"], "ConfigMap")["farm-w1"]["data"]["worker.json"]),
        ("from/secret", "enrol.token", "token"),
        ("from/s3", "acme.json", "{}"),
    ):  # fmt: skip
        directory = tmp_path / place
        directory.mkdir(parents=True)
        (directory / f".{name}").write_text(text)
        (directory / name).symlink_to(f".{name}")
    run = tmp_path / "run/hpcc"
    run.mkdir(parents=True)
    local = script.replace("/from/", f"{tmp_path}/from/").replace("/run/hpcc", str(run))
    subprocess.run(
        ["/bin/sh", "-euc", local], env={"PATH": "/usr/bin:/bin", "POD_IP": "10.1.2.3", "POD_NAME": "w1"},
        check=True, timeout=60,
    )  # fmt: skip
    (tmp_path / "from/secret/enrol.token").unlink()
    subprocess.run(
        ["/bin/sh", "-euc", local], env={"PATH": "/usr/bin:/bin", "POD_IP": "10.1.2.3", "POD_NAME": "w1"},
        check=True, timeout=60,
    )  # fmt: skip
    files = [p for p in run.rglob("*") if p.is_file()]
    assert sorted(p.name for p in files) == ["acme.json", "enrol.token", "worker.json"]
    assert {p.stat().st_mode & 0o777 for p in files} == {0o600}
    assert json.loads((run / "worker.json").read_text())["host"] == "10.1.2.3"


def test_the_certificate_that_the_page_makes_is_used_as_it_is(tmp_path: Path) -> None:
    page = re.sub(r"\s*\\\n\s*", " ", (CHART / "README.md").read_text())
    (command,) = re.findall(r"^ *(openssl req .*)$", page, re.MULTILINE)
    subprocess.run(
        shlex.split(command), cwd=tmp_path, check=True, capture_output=True, timeout=60
    )  # fmt: skip
    name = "scheduler.hpcc.internal"
    for suffix in ("key", "crt"):
        (tmp_path / f"{name}.{suffix}").chmod(0o600)
    made = (tmp_path / f"{name}.crt").read_bytes()
    identity = load_or_create_tls(tmp_path, name, clock=SystemClock())
    assert identity.certificate_pem == made
    assert PinnedPeer.from_pem(made).name == name
