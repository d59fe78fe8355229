"""A pool of the chart: one StatefulSet, scaled by demand, whose pods enrol with their own token.

Helm's code renders it. Kubernetes' schemas, KEDA's types and hpcc's own readers check it. No
cluster ran it.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from hpcc.cli.main import build_parser
from hpcc.config.service_file import parse_service_file
from hpcc.ports import SystemClock
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.base.pod_tokens import MAX_POD_TOKEN_SECONDS
from hpcc.scheduler.base.scale import PATH, ScaleBook
from hpcc.worker.base.config import WorkerConfig
from hpcc_testkit.packages.helm_chart import (
    ROOT,
    keda_types,
    of_kind,
    pods,
    render,
    value_files,
)

pytestmark = pytest.mark.timeout(300)

_JWKS: Final = '{"keys": [{"kty": "RSA", "kid": "k", "n": "AQAB", "e": "AQAB"}]}'
_POOL: Final[dict[str, Any]] = {
    "enabled": True, "minWorkers": 2, "maxWorkers": 24, "jwks": _JWKS,
    "issuer": "https://kubernetes.default.svc.cluster.local",
}  # fmt: skip


_REFUSED: Final[dict[str, dict[str, Any]]] = {
    "a pool whose tokens nobody can check": {"worker": {"pool": {"enabled": True}}},
    "a pool of a cluster without TLS": {
        "worker": {"pool": {"enabled": True, "issuer": "http://c.example", "jwks": "{}"}}
    },
    "a private key among the cluster's keys": {
        "worker": {"pool": {"jwks": '{"keys": [{"kty": "EC", "d": "x"}]}'}}
    },
    "demand for everybody in the cluster": {
        "worker": {"pool": {"enabled": True, "scaler": "keda", "keda": {"podLabels": None}}}
    },
    "demand without a token": {
        "worker": {
            "pool": {"enabled": True, "scaler": "keda", "issuer": "https://c.example", "jwks": "{}"}
        }
    },
    "fewer workers at most than at least": {"worker": {"pool": {"minWorkers": 9}}},
    "a worker with the pool's name": {
        "worker": {"instances": [{"name": "pool", "tokenSecret": "hpcc-pool"}]}
    },
}


@pytest.fixture(scope="module")
def rendered() -> dict[str, Any]:
    return render({
        "full": value_files()["full"],
        "pool": {"worker": {"pool": _POOL}},
        "pool-hpa": {"worker": {"pool": _POOL | {"scaler": "hpa"}, "config": {"drain_seconds": 90}}},
        "pool-keda": {
            "scheduler": {"tenants": ""},
            "worker": {
                "instances": [],
                "pool": _POOL | {"scaler": "keda", "keda": {"tokenSecret": "hpcc-scale"}},
            },
        },
        **{f"refused: {name}": values for name, values in _REFUSED.items()},
    })  # fmt: skip


@pytest.mark.parametrize("case", ["pool", "pool-hpa", "pool-keda"])
def test_a_pool_is_rendered_and_every_field_is_known(rendered: dict[str, Any], case: str) -> None:
    answer = rendered[case]
    assert "refused" not in answer, answer
    assert answer["lint"] == []
    assert answer["faults"] == []


@pytest.mark.parametrize("name", _REFUSED)
def test_values_that_open_a_hole_are_refused(rendered: dict[str, Any], name: str) -> None:
    assert rendered[f"refused: {name}"].get("refused")


_PODS: Final = ("farm-w1", "farm-w2", "farm-pool")


def _config(answer: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a service's config as the pod with number 0 sees it."""
    (text,) = (
        text for file, text in of_kind(answer, "ConfigMap")[name]["data"].items()
        if file in {"worker.json", "scheduler.json"}
    )  # fmt: skip
    found: dict[str, Any] = json.loads(text.replace("@POD_NAME@", f"{name}-0"))
    return found


@pytest.mark.parametrize(
    ("case", "scaler"), [("pool", ""), ("pool-hpa", "HorizontalPodAutoscaler"), ("pool-keda", "ScaledObject")]
)  # fmt: skip
def test_a_pool_is_one_stateful_set_that_grows_with_demand(
    rendered: dict[str, Any], case: str, scaler: str
) -> None:
    answer = rendered[case]
    spec = of_kind(answer, "StatefulSet")["farm-pool"]["spec"]
    assert spec["podManagementPolicy"] == "Parallel"
    assert spec.get("replicas") == (None if scaler else 2), "a scaler's number is not reset"
    assert of_kind(answer, "PodDisruptionBudget")["farm-pool"]["spec"]["maxUnavailable"] == 1
    kinds = ("HorizontalPodAutoscaler", "ScaledObject", "TriggerAuthentication")
    assert {kind for kind in kinds if of_kind(answer, kind)} == (
        {scaler, "TriggerAuthentication"} if scaler == "ScaledObject" else {scaler} - {""}
    )
    if not scaler:
        return
    scaled = of_kind(answer, scaler)["farm-pool"]["spec"]
    assert scaled["scaleTargetRef"] == {
        "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "farm-pool",
    }  # fmt: skip
    limits = (scaled["minReplicas"], scaled["maxReplicas"]) if "minReplicas" in scaled else (
        scaled["minReplicaCount"], scaled["maxReplicaCount"],
    )  # fmt: skip
    assert limits == (2, 24)
    behaviour = (
        scaled.get("behavior") or scaled["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
    )
    assert behaviour["scaleUp"]["stabilizationWindowSeconds"] == 0
    assert behaviour["scaleDown"]["stabilizationWindowSeconds"] == 900


def test_the_scalers_ask_for_what_the_schedulers_say(rendered: dict[str, Any]) -> None:
    answer = rendered["pool-keda"]
    (trigger,) = of_kind(answer, "ScaledObject")["farm-pool"]["spec"]["triggers"]
    config = parse_service_file(
        json.dumps(_config(answer, "farm-scheduler")).encode(), SchedulerConfig, source="chart"
    )
    (pool,) = config.worker_pools
    assert (pool.has("farm-pool-23"), pool.has("farm-pool-24")) == (True, False)
    assert config.tenants == "control-store"
    assert config.scale_token_file == "/run/hpcc/scale.token"
    clock = SystemClock()
    book = ScaleBook(
        config.worker_pools, members=list, is_store_up=lambda: True, lease_seconds=0.0, clock=clock
    )
    found: Any = json.loads(book.page().body)
    for name in trigger["metadata"]["valueLocation"].split("."):
        found = found[name]
    assert found == 2, "the least of the pool"
    url = urlsplit(trigger["metadata"]["url"])
    assert url.path == PATH
    service = of_kind(answer, "Service")["farm-scale"]["spec"]
    assert (url.hostname, url.port) == ("farm-scale.hpcc.svc", service["ports"][0]["port"])
    labels = of_kind(answer, "Deployment")["farm-scheduler"]["spec"]["template"]["metadata"][
        "labels"
    ]
    assert service["selector"].items() <= labels.items()
    assert trigger["metadata"]["authMode"] == "bearer"
    login = of_kind(answer, "TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"]
    assert login["secretTargetRef"] == [
        {"parameter": "token", "name": "hpcc-scale", "key": "token"}
    ]
    (rule,) = of_kind(answer, "NetworkPolicy")["farm-scale"]["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 9464}]
    assert len(rule["from"]) == 1
    # The metric of an HPA is one that schedulers have.
    (metric,) = of_kind(rendered["pool-hpa"], "HorizontalPodAutoscaler")["farm-pool"]["spec"][
        "metrics"
    ]
    name = metric["external"]["metric"]["name"]
    assert f"| `{name}` | gauge | `pool` |" in (ROOT / "docs/metrics.md").read_text()
    assert metric["external"]["metric"]["selector"]["matchLabels"]["pool"] == pool.name


def test_a_pod_of_the_pool_proves_itself_to_its_schedulers_and_to_nothing_else(
    rendered: dict[str, Any],
) -> None:
    answer = rendered["pool"]
    pod = dict(pods(answer))["farm-pool"]
    (volume,) = (v for v in pod["volumes"] if "projected" in v)
    assert volume["projected"]["defaultMode"] == 0o400, "else hpcc refuses the file"
    (source,) = (s["serviceAccountToken"] for s in volume["projected"]["sources"])
    (container,) = pod["containers"]
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == volume["name"])
    config = parse_service_file(
        json.dumps(_config(answer, "farm-pool")).encode(), WorkerConfig, source="chart"
    )
    assert config.worker_id == "farm-pool-0"
    assert config.enrol_pod_token_file == f"{mount['mountPath']}/{source['path']}"
    scheduler = parse_service_file(
        json.dumps(_config(answer, "farm-scheduler")).encode(), SchedulerConfig, source="chart"
    )
    (pool,) = scheduler.worker_pools
    assert pool.has(config.worker_id)
    assert pool.slots_per_worker == config.max_guests
    enrol = pool.enrol
    assert enrol is not None
    assert source["audience"] == enrol.audience
    assert 600 <= source["expirationSeconds"] <= MAX_POD_TOKEN_SECONDS
    assert (enrol.namespace, enrol.service_account) == ("hpcc", pod["serviceAccountName"])
    keys = of_kind(answer, "ConfigMap")["farm-scheduler-tenants"]["data"][
        Path(enrol.keys_file).name
    ]
    assert json.loads(keys) == json.loads(_JWKS)
    # Only a pool's pods have one, and none of Kubernetes' API.
    for name, other in pods(answer):
        assert other["automountServiceAccountToken"] is False
        assert any("projected" in v for v in other["volumes"]) is (name == "farm-pool")


@pytest.mark.parametrize(("case", "seconds"), [("full", 660), ("pool", 660), ("pool-hpa", 150)])
def test_a_pod_that_ends_has_the_time_to_drain(
    rendered: dict[str, Any], case: str, seconds: int
) -> None:
    parser, seen = build_parser(), set()
    for name, pod in pods(rendered[case]):
        if name not in _PODS:
            continue
        seen.add(name)
        config = parse_service_file(
            json.dumps(_config(rendered[case], name)).encode(), WorkerConfig, source="chart"
        )
        assert pod["terminationGracePeriodSeconds"] == config.drain_seconds + 60 == seconds
        (container,) = pod["containers"]
        _, *argv = container["lifecycle"]["preStop"]["exec"]["command"]
        args = parser.parse_args(argv)
        assert args.wait
        assert str(args.worker_config) == container["args"][-1]
    assert seen >= {"farm-w1"} if case == "full" else "farm-pool" in seen


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pollingIntervals": 15}, "has no field pollingIntervals"),
        ({"minReplicaCount": "2"}, "minReplicaCount is not int"),
        ({"minReplicaCount": True}, "minReplicaCount is not int"),
        ({"scaleTargetRef": {"kind": "StatefulSet"}}, "scaleTargetRef lacks name"),
        ({"triggers": {}}, "triggers is not a list"),
        ({"triggers": [{"metadata": {"a": 1}, "type": "x"}]}, "metadata.a is not str"),
    ],
)
def test_a_field_that_keda_does_not_have_is_noticed(
    rendered: dict[str, Any], change: dict[str, Any], said: str
) -> None:
    sys.path.insert(0, str(ROOT / "tests/helm"))
    try:
        keda = importlib.import_module("keda")
    finally:
        sys.path.pop(0)
    models = keda.Models(keda_types())
    good = of_kind(rendered["pool-keda"], "ScaledObject")["farm-pool"]
    assert models.faults(good) == []
    faults = models.faults(good | {"spec": good["spec"] | change})
    assert any(said in fault for fault in faults), faults
    assert models.faults({"kind": "ScaledObjects"}) == ["KEDA has no kind ScaledObjects"]
