"""Several schedulers' answers make one picture, whose health says what an operator must do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from hpcc.core import HpccError
from hpcc.rpc.base.errors import UnavailableError
from hpcc.rpc.scheduler.farm_picture import EXIT_CODES
from hpcc.rpc.scheduler.observe import FarmStatus
from hpcc_testkit.services.pictures import picture, status, worker

PAGE = Path(__file__).parents[4] / "docs/spec/farm-status.md"


AWAY = UnavailableError("no answer in time")


def test_each_worker_is_as_the_scheduler_that_hears_it_shows_it() -> None:
    one = status(worker("w1", running=3), worker("w2", running=0, is_heard=False, is_stale=True))
    two = status(worker("w1", running=0, is_heard=False), worker("w2", running=4))
    for answers in ((one, two), (two, one)):
        found = picture(*answers)
        assert [(w.worker_id, w.running, w.is_stale) for w in found.workers] == [
            ("w1", 3, False), ("w2", 4, False),
        ]  # fmt: skip
        assert (found.live, found.stale, found.health) == (2, 0, "healthy")
    (tenant,) = picture(one, two).tenants
    assert (tenant.daemons, tenant.wanted, tenant.granted) == (4, 3, 1), "daemons are added up"
    assert [(r.result, r.count) for r in tenant.routes] == [("no-worker", 6), ("ok", 18)]


@pytest.mark.parametrize(
    ("answers", "health", "codes"),
    [
        ([status(worker("w1"))], "healthy", []),
        ([status(worker("w1")), AWAY], "degraded", ["scheduler-silent"]),
        ([status(worker("w1"), is_store_up=False)], "degraded", ["control-store"]),
        ([status(worker("w1"), worker("w2", is_stale=True))], "degraded", ["worker-stale"]),
        ([status(worker("w1"), has_room=False)], "healthy", ["no-room"]),
        ([status(worker("w1"), worker("w2", drain="drained"))], "healthy", []),
        (
            [status(worker("w1"), worker("w2", drain="drained", drain_by="olga", is_stale=True))],
            "healthy",
            ["worker-drained"],
        ),
        (
            [
                status(
                    worker("w1"),
                    worker(
                        "w2",
                        drain="drained",
                        drain_by="the schedulers",
                        drain_reason="audit-history-changed: it has 4 records, and had 9",
                    ),
                )
            ],
            "degraded",
            ["audit-history-changed"],
        ),
        ([status(worker("w1", drain="draining"))], "down", ["no-worker"]),
        ([status(worker("w1")), status(version="2")], "healthy", ["several-versions"]),
        ([status(worker("w1")), status(scheduler_id="t")], "degraded", ["several-farms"]),
        ([status()], "down", ["no-worker"]),
        ([AWAY, AWAY], "down", ["scheduler-silent", "scheduler-silent"]),
        ([status(live=1, is_operator=False)], "healthy", []),
        ([status(live=1, stale=1, is_operator=False)], "degraded", []),
        ([status(live=0, is_operator=False)], "down", ["no-worker"]),
    ],
)
def test_health_and_warnings(
    answers: list[FarmStatus | HpccError], health: str, codes: list[str]
) -> None:
    found = picture(*answers)
    assert (found.health, [w.code for w in found.warnings]) == (health, codes)
    assert all(w.remedy for w in found.warnings)
    assert EXIT_CODES[found.health] == ["healthy", "degraded", "down"].index(health)


def test_a_members_document_has_no_list_of_workers() -> None:
    document = picture(status(live=1, is_operator=False)).document()
    assert document["view"] == "tenant"
    assert document["workers"] == {"live": 1, "stale": 0, "draining": 0, "has_room": True}


@pytest.mark.parametrize(
    "answers",
    [
        [status(worker("w1"), worker("w2", is_stale=True)), AWAY],
        [status(worker("w1", drain="drained", drain_seconds=1.0, drain_by="o", drain_reason="r"))],
        [status(live=1, is_operator=False)],
        [AWAY],
        [status()],
    ],
)
def test_the_document_fits_its_schema(answers: list[FarmStatus | HpccError]) -> None:
    schema = json.loads(PAGE.with_suffix(".schema.json").read_bytes())
    jsonschema.Draft202012Validator.check_schema(schema)
    document = picture(*answers).document()
    jsonschema.validate(json.loads(json.dumps(document)), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "health": "well"}, schema)


def test_the_page_describes_every_field_of_the_document() -> None:
    rows = set(re.findall(r"^\| `([\w.\[\]]+)` \|", PAGE.read_text(), re.M))
    document = json.dumps(picture(status(worker("w1")), AWAY).document())
    found = set(_paths(json.loads(document)))
    assert rows == found
    words = PAGE.read_text().partition("| code | when |")[2]
    codes = set(re.findall(r"^\| `([a-z-]+)` \|", words, re.M))
    source = (Path(__file__).parents[4] / "src/hpcc/rpc/scheduler/farm_picture.py").read_text()
    assert codes == set(re.findall(r'FarmWarning\(\s*"([a-z-]+)"', source))


def _paths(value: Any, prefix: str = "") -> list[str]:
    if isinstance(value, list):
        return [p for item in value for p in _paths(item, f"{prefix}[]")]
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in _paths(v, f"{prefix}.{k}" if prefix else k)]
    return [prefix]
