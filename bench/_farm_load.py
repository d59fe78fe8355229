"""A real scheduler process under a simulated farm: routes and heartbeats over loopback gRPC.

Scheduler, workers and daemons are processes of this machine and share its cores; what the crowds
took is printed beside the scheduler's share. Everything is bounded in count and in time.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from _farm_crowd import IMAGE, TENANT, Crowd
from _farm_process import Process, started
from _farm_rows import Figure, quantile
from _measure import BenchError, own_seconds

from hpcc.config import load_service_file
from hpcc.ports import SystemClock
from hpcc.scheduler import SchedulerConfig, open_enrolment

# What a worker does: four heartbeats in a lease.
LEASE_SECONDS: Final = 10.0
P99_GOAL_MS: Final = 20.0
# Of the calls; with more, the figures would be of another load.
MAX_FAILED: Final = 0.05
_JOIN_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How large the farm is and how long it is kept busy."""

    workers: int = 2000
    daemons: int = 50
    routes_per_minute: float = 20_000
    seconds: float = 30.0

    @property
    def beats_per_second(self) -> float:
        return self.workers / (LEASE_SECONDS / 4)


async def tokens(config_file: Path, count: int) -> tuple[str, ...]:
    """Make enrolment tokens as the operator does."""
    config = load_service_file(config_file, SchedulerConfig)
    async with open_enrolment(config, SystemClock()) as enrolment:
        return tuple([await enrolment.new_token("", 3600.0) for _ in range(count)])


class LoadBench:
    """One scheduler, two crowds."""

    def __init__(self, load: Load, directory: Path, show: Callable[[Figure], None]) -> None:
        self._load, self._directory, self._show = load, directory, show
        self._secret = secrets.token_urlsafe(32)
        self._stack = ExitStack()

    def run(self) -> None:
        """Bring the farm up, keep it busy, say what it cost.

        Raises:
            BenchError: a process ended, or calls failed.
        """
        with self._stack:
            scheduler = self._scheduler()
            self._facts = scheduler.hear()
            workers = self._workers(scheduler)
            daemons = self._crowd("daemons", self._load.daemons, self._load.routes_per_minute / 60)
            daemons.hear()
            self._busy(scheduler, workers, daemons)

    def _scheduler(self) -> Process:
        file = self._file = self._directory / "scheduler.json"
        file.touch(mode=0o600)
        config = {
            "keys": str(self._directory / "keys"),
            "state": str(self._directory / "state"),
            "tenant": TENANT.value,
            "tenant_secret": self._secret,
            "minimum_isolation": "qemu/tcg",
            "images": [IMAGE.digest.value],
            "lease_seconds": LEASE_SECONDS,
        }
        file.write_text(json.dumps(config))
        argv = [sys.executable, "-m", "hpcc.scheduler", "--config", str(file)]
        return self._start(argv)

    def _start(self, argv: list[str]) -> Process:
        # Two crowds join one after the other, then all are busy.
        seconds = 2 * _JOIN_SECONDS + self._load.seconds + 60
        return self._stack.enter_context(started(argv, seconds))

    def _crowd(self, kind: str, count: int, rate: float) -> Process:
        daemons_port = f"127.0.0.1:{self._facts['port']}"
        is_worker = kind == "workers"
        crowd = Crowd(
            kind=kind,
            count=count,
            calls_per_second=rate,
            seconds=self._load.seconds,
            scheduler=f"127.0.0.1:{self._facts['worker_port']}" if is_worker else daemons_port,
            certificate_pem=self._facts["certificate_pem"],
            secret="" if is_worker else self._secret,
            enrol_at=daemons_port if is_worker else "",
            tokens=asyncio.run(tokens(self._file, count)) if is_worker else (),
        )
        process = self._start([sys.executable, str(Path(__file__).with_name("_farm_crowd.py"))])
        process.tell(json.dumps(asdict(crowd)))
        return process

    def _workers(self, scheduler: Process) -> Process:
        memory, cpu = scheduler.rss_bytes, own_seconds(scheduler.pid)
        count = self._load.workers
        crowd = self._crowd("workers", count, self._load.beats_per_second)
        seconds = crowd.hear()["seconds"]
        per_worker = (scheduler.rss_bytes - memory) / count / 1024
        joined_ms = 1e3 * (own_seconds(scheduler.pid) - cpu) / count
        self._show(Figure("workers", count, "with a connection each"))
        self._show(Figure("until all of them are registered", seconds, "s"))
        self._show(Figure("enrolling and registering one: the scheduler's CPU", joined_ms, "ms"))
        self._show(Figure("memory for each worker", per_worker, "KiB"))
        return crowd

    def _busy(self, scheduler: Process, workers: Process, daemons: Process) -> None:
        cpu, begun = own_seconds(scheduler.pid), time.monotonic()
        for crowd in (workers, daemons):
            crowd.tell("go")
        beats, routes = workers.hear(), daemons.hear()
        wall = time.monotonic() - begun
        cpu = own_seconds(scheduler.pid) - cpu
        for name, said in (("heartbeats", beats), ("routes", routes)):
            failed = sum(said["failures"].values())
            if failed > MAX_FAILED * (failed + len(said["taken"])):
                raise BenchError(f"{name} failed: {said['failures']}")
            self._show(Figure(f"{name} that failed", failed, "calls", 0))
        taken = [1e3 * s for s in routes["taken"]]
        calls = len(taken) + len(beats["taken"])
        show = self._show
        show(Figure("routes a minute", 60 * len(taken) / wall, "routes"))
        show(Figure("heartbeats a second", len(beats["taken"]) / wall, "heartbeats"))
        show(Figure("a route, half of them", quantile(taken, 0.50), "ms"))
        show(Figure("a route, 99 of 100", quantile(taken, 0.99), "ms", P99_GOAL_MS))
        show(Figure("the slowest route", max(taken), "ms"))
        show(Figure("a heartbeat, 99 of 100", 1e3 * quantile(beats["taken"], 0.99), "ms"))
        show(Figure("the scheduler's share of one core", 100 * cpu / wall, "%"))
        show(Figure("a call: the scheduler's CPU", 1e6 * cpu / calls, "us"))
        crowds = beats["cpu_seconds"] + routes["cpu_seconds"]
        show(Figure("the crowds' share of one core", 100 * crowds / wall, "%"))
        show(Figure("the scheduler's memory", scheduler.rss_bytes / (1 << 20), "MiB"))
