"""One build, counted by each part of hpcc that counts: the same numbers, reason by reason."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hpcc.config.paths import Paths
from hpcc_testkit.cache.launcher import (
    build_launcher,
    launcher_environment,
    stop_daemon,
    wait_until,
)
from hpcc_testkit.farm.processes import ProcessFarm, process_farm
from hpcc_testkit.services.scraped import Scrape, scrape
from hpcc_testkit.suite.people import hpcc

pytestmark = pytest.mark.timeout(400)
ADMIN = "127.0.0.1:0"
EXECUTE = "build.bazel.remote.execution.v2.Execution/Execute"
FOUND, EXECUTED = 4, 8
SOURCES = {
    "h.h": "int h(int);\n",
    **{f"u{n}.c": f'#include "h.h"\nint u{n}(int x) {{ return h(x + {n}); }}\n'
       for n in range(FOUND + EXECUTED)},
    "time.c": "const char *t = __TIME__;\n",
    "bad.c": "int bad(void) { return }\n",
    "cover.c": "int cover(int x) { return x ? 2 : 1; }\n",
}  # fmt: skip


class Person:
    """One machine of a person: a daemon, a checkout, and commands that are typed there."""

    def __init__(self, farm: ProcessFarm, directory: Path, launcher: Path) -> None:
        self.tree, self._launcher = directory / "tree", launcher
        self.env = launcher_environment(directory / "h")
        paths = Paths.from_env(self.env)
        paths.config_file.parent.mkdir(parents=True, exist_ok=True)
        paths.config_file.write_text('[remote]\nparity = "ignore"\n')
        paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
        paths.farm_file.write_text(farm.farm().to_json())
        paths.farm_file.chmod(0o600)
        (self.tree / ".git").mkdir(parents=True)
        old = time.time() - 3600
        for name, text in SOURCES.items():
            (self.tree / name).write_text(text)
            os.utime(self.tree / name, (old, old))
        self.typed = 0

    def gcc(self, *words: str, code: int = 0) -> None:
        argv = [self._launcher, "gcc", *words]
        env = {**self.env, "HPCC_BUILD": self.tree.parent.name}
        done = subprocess.run(argv, cwd=self.tree, env=env, capture_output=True, check=False)
        assert done.returncode == code, done.stderr.decode()
        self.typed += 1

    def units(self, *numbers: int) -> None:
        for n in numbers:
            self.gcc("-O1", "-c", f"u{n}.c", "-o", f"u{n}.o")

    def hpcc(self, *words: str) -> str:
        code, out, err = hpcc(self.env, *words)
        assert code == 0, err
        return out

    def json(self, *words: str) -> dict[str, Any]:
        return json.loads(self.hpcc(*words, "--json"))  # type: ignore[no-any-return]  # JSON

    def is_reported(self) -> bool:
        """Return whether the farm has a report of all of this machine's build."""
        builds = {b["build"]: b for b in self.json("farm", "builds")["builds"]}
        kept = builds.get(self.tree.parent.name, {"counts": {}})
        return sum(kept["counts"].values()) == self.typed


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What each part counted of the second machine's build, and in the end by the counters' file."""

    typed: int
    report: dict[str, Any]
    stats: dict[str, int]
    client: Scrape
    ended: dict[str, int]
    client_ended: Scrape
    reported: int
    at_farm: dict[str, Any]


def made(farm: ProcessFarm, directory: Path, launcher: Path) -> Counted:
    """Run two builds of one person; the second one finds what the first one made."""
    first, second = (Person(farm, directory / n, launcher) for n in ("first", "second"))
    try:
        for person in (first, second):
            person.hpcc("start")
        first.units(*range(FOUND))
        second.units(*range(FOUND + EXECUTED))
        for _ in range(3):  # hits: the first time looked up, then replayed
            second.units(FOUND - 1, FOUND, FOUND + 1)
            second.gcc("--coverage", "-c", str(second.tree / "cover.c"), "-o", "cover.o")
        second.gcc("-c", "time.c")
        second.gcc("-c", "bad.c", code=1)
        second.gcc("-shared", "u0.o", "u1.o", "-o", "lib.so")
        for person in (first, second):
            wait_until(person.is_reported, timeout_seconds=120.0)
        stats, client = second.json("stats"), second.hpcc("stats", "--format", "prometheus")
        report = second.json("report", "second")
    finally:
        for person in (first, second):
            stop_daemon(person.env)
    ended, later = second.json("stats"), second.hpcc("stats", "--format", "prometheus")
    (build,) = [b for b in second.json("farm", "builds")["builds"] if b["build"] == "second"]
    return Counted(
        typed=second.typed, report=report, stats=stats, client=Scrape(client.encode()),
        ended=ended, client_ended=Scrape(later.encode()), at_farm=second.json("farm", "build", build["id"]),
        reported=ended["builds.reported"] + first.json("stats")["builds.reported"],
    )  # fmt: skip


def family(stats: dict[str, int], name: str) -> dict[str, int]:
    """Return the counters of a family by what follows its name."""
    return {k.removeprefix(f"{name}."): n for k, n in stats.items() if k.startswith(f"{name}.")}


def causes(document: dict[str, Any], name: str) -> dict[str, int]:
    """Return how many compiles had each reason of a family, as a report has it."""
    return {c["reason"]: c["compiles"] for c in document["causes"] if c["family"] == name}


def counters_of(client: Scrape) -> dict[str, int]:
    """Return the counters of `hpcc stats` that metrics stand for."""
    found = {}
    for labels, value in client.values("hpcc_client_compiles_total").items():
        of = dict(labels)
        found[("hit." if of["outcome"] == "hit" else "miss.") + of["source"]] = value
    for metric, name in (
        ("bypasses", "bypass"), ("uncacheable", "uncacheable"), ("missed", "missed"),
        ("private", "private"), ("fallbacks", "fallback"), ("unasked", "launcher"),
    ):  # fmt: skip
        for labels, value in client.values(f"hpcc_client_{metric}_total").items():
            found[f"{name}.{dict(labels)['reason']}"] = value
    for labels, value in client.values("hpcc_client_events_total").items():
        found[dict(labels)["event"]] = value
    found["saved.milliseconds"] = client.value("hpcc_client_saved_seconds_total") * 1000
    for name in ("served", "stored"):
        found[f"bytes.{name}"] = client.value(f"hpcc_client_{name}_bytes_total")
    found["since"] = client.value("hpcc_client_since_timestamp_seconds")
    found["store.size_bytes"] = client.value("hpcc_client_store_bytes")
    found["store.entries"] = client.value("hpcc_client_store_entries")
    return {name: round(value) for name, value in found.items()}


def check_machine(counted: Counted) -> None:
    """Compare what one machine shows: its report, its counters, its metrics and their file."""
    report, stats = counted.report, counted.stats
    kinds = report["counts"]
    assert kinds == {
        "hit": 11, "farm-cache": FOUND, "farm": EXECUTED, "here": 1, "not-kept": 1, "failed": 1,
        "bypass": 1,
    }  # fmt: skip
    assert stats.get("front.replayed", 0) <= kinds["hit"], "these are hits, too"
    assert counters_of(counted.client) == stats
    assert counters_of(counted.client_ended) == counted.ended
    # A daemon's front counts for the daemon's time.
    assert counted.ended == {k: n for k, n in stats.items() if not k.startswith("front.")}
    misses = family(stats, "miss")
    hits = stats.get("hit.local", 0) + stats.get("hit.remote", 0)
    assert kinds["hit"] == hits
    assert kinds["farm-cache"] == misses["remote.cached"]
    assert kinds["farm"] == misses["remote.executed"]
    assert kinds["failed"] == misses["failed"]
    assert kinds["here"] + kinds["not-kept"] + kinds["failed"] == misses["local"]
    assert kinds["not-kept"] == sum(family(stats, "uncacheable").values())
    for name in ("bypass", "uncacheable", "missed", "fallback"):
        assert causes(report, name) == family(stats, name), name
    assert causes(report, "missed") == {"new-command": kinds["farm"] + kinds["here"]}
    assert causes(report, "fallback") == {"side-output": 3, "date-time": 1, "exit-code": 1}
    once = hits + sum(misses.values()) - misses["failed"] + sum(family(stats, "bypass").values())
    assert counted.typed == report["compiles"] == stats["front.requests"] == once
    assert round(report["hits_saved_seconds"] * 1000) == stats["saved.milliseconds"]


def check_farm(counted: Counted, rows: list[dict[str, Any]], worker: Scrape) -> None:
    """Compare them with the worker's rows and metrics, and with the report at the scheduler."""
    report, stats = counted.report, counted.stats
    kinds = report["counts"]
    own = Counter((r["cache_status"], r["exit_code"]) for r in rows if r["build_id"] == "second")
    fell_back = stats["fallback.exit-code"]
    assert own == {
        ("executed", 0): kinds["farm"], ("executed", 1): fell_back,
        ("hit", 0): kinds["farm-cache"],
    }  # fmt: skip
    there = {p["worker"]: p["compiles"] for p in report["places"]}
    assert there == {"w1": kinds["farm"], None: stats["miss.local"]}
    every = Counter(r["cache_status"] for r in rows)
    assert every == {"executed": FOUND + kinds["farm"] + fell_back, "hit": kinds["farm-cache"]}
    compiles = "hpcc_worker_compiles_total"
    for outcome, status in (("executed", "executed"), ("cached", "hit")):
        assert worker.total(compiles, tenant="acme", outcome=outcome) == every[status]
    assert worker.total(compiles) == len(rows)
    assert worker.value("hpcc_audit_records_total", kind="row") == len(rows)
    assert worker.value("hpcc_audit_append_seconds_count") == len(rows)
    for name in ("compile", "queue_wait"):
        count = worker.value(f"hpcc_worker_{name}_seconds_count", tenant="acme")
        assert count == every["executed"], name
    calls = worker.families["hpcc_rpc_server_seconds"].samples.items()
    executions = {
        dict(labels)["rpc_grpc_status_code"]: count
        for (name, labels), count in calls
        if name.endswith("_count") and ("rpc_method", EXECUTE) in labels
    }
    # Cancelled is one whose client had its result, and left before the stream's end.
    assert sum(executions.values()) == every["executed"], executions

    kept = counted.at_farm
    assert kept["compiles"] == counted.typed
    assert kept["counts"] == kinds
    for name in ("bypass", "uncacheable", "missed"):
        assert causes(kept, name) == causes(report, name), name
    # Of the fallbacks it has those whose result a compiler then made here.
    assert causes(kept, "fallback") == {"side-output": 1, "date-time": 1}


async def test_each_count_of_a_build_is_the_same_everywhere(tmp_path: Path) -> None:
    launcher = await asyncio.to_thread(build_launcher, tmp_path / "bin")
    async with process_farm(tmp_path, scheduler={"admin": ADMIN}, admin=ADMIN) as farm:
        counted = await asyncio.to_thread(made, farm, tmp_path, launcher)
        check_machine(counted)
        worker = await asyncio.to_thread(scrape, farm.worker_ready["admin"])
        trail = ("--directory", str(tmp_path / "worker/audit"), "--format", "jsonl")
        env = launcher_environment(tmp_path / "operator")
        code, out, err = await asyncio.to_thread(hpcc, env, "audit", "export", *trail)
        assert code == 0, err
        check_farm(counted, [json.loads(line) for line in out.splitlines()], worker)

        scheduler = await asyncio.to_thread(scrape, farm.ready["admin"])
        reports = "hpcc_scheduler_build_reports_total"
        assert scheduler.value(reports, tenant="acme", result="ok") == counted.reported
        assert scheduler.total(reports) == counted.reported
        assert scheduler.value("hpcc_scheduler_builds") == 2
        # One of each daemon, whatever it compiles, and those of `hpcc farm` here.
        assert scheduler.value("hpcc_scheduler_logins_total", tenant="acme") >= 2
        assert scheduler.total("hpcc_scheduler_routes_total") >= 2
