"""A real scheduler process under a simulated farm: routes and heartbeats over loopback gRPC.

Scheduler, workers and daemons are processes on this machine and share its cores. The CPU time of
the crowds is printed beside the scheduler's share. Everything is bounded in count and in time.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

from _farm_crowd import IMAGE, TENANT, Busy, Crowd
from _farm_process import CoreUse, Process, started
from _farm_rows import Figure, quantile
from _measure import BenchError, own_seconds

from hpcc.config.service_file import load_service_file
from hpcc.ports import SystemClock
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import open_enrolment

LEASE_SECONDS: Final = 10.0
# Heartbeats of a worker in one lease, whose length the scheduler sets.
BEATS_IN_A_LEASE: Final = 4
_SETTLE_SECONDS: Final = 2.0
P99_GOAL_MS: Final = 20.0
# What other programs may have of the scheduler's core. With more of them a quantile of the latency
# shows how long the scheduler waited for its core.
MOST_OTHERS_PERCENT: Final = 3.0
# What the status of workers may add to the scheduler's CPU for a heartbeat.
FACTS_GOAL: Final = 1.05
# Of heartbeats with that status and without.
_PAIRS: Final = 4
# The share of calls that may fail; with more failures the load would be another one.
MAX_FAILED: Final = 0.05
_JOIN_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The size of the farm and how long it is kept busy."""

    workers: int = 2000
    daemons: int = 50
    routes_per_minute: float = 20_000
    seconds: float = 30.0
    # The scheduler gets a core that nothing else of the benchmark uses.
    is_pinned: bool = False


async def tokens(config_file: Path, count: int) -> tuple[str, ...]:
    """Return enrolment tokens, made as an operator makes them."""
    config = load_service_file(config_file, SchedulerConfig)
    async with open_enrolment(config, SystemClock()) as enrolment:
        return tuple([await enrolment.new_token("", 3600.0) for _ in range(count)])


class LoadBench:
    """Measures one scheduler with two crowds."""

    # How much longer than a load's its processes may live.
    more_seconds = 0.0

    def __init__(self, load: Load, directory: Path, show: Callable[[Figure], None]) -> None:
        self._load, self._directory, self._show = load, directory, show
        self._secret = secrets.token_urlsafe(32)
        self._stack = ExitStack()
        # Of the scheduler, as taskset takes it; "": any.
        self._core = ""

    def run(self) -> None:
        """Start the farm, keep it busy, and report the cost.

        Raises:
            BenchError: a process ended, or calls failed.
        """
        with self._stack:
            self._pin()
            scheduler = self._scheduler()
            self._facts = scheduler.hear()
            workers = self._workers(scheduler)
            daemons = self._crowd("daemons", self._load.daemons)
            daemons.hear()
            lease_seconds = self._settled(workers)
            rate = BEATS_IN_A_LEASE * self._load.workers / lease_seconds
            self._show(Figure("a lease", lease_seconds, "s"))
            without = self._beats_alone(scheduler, workers, rate)
            self._busy(
                scheduler, {workers: rate, daemons: self._load.routes_per_minute / 60}, without
            )

    def _scheduler(self) -> Process:
        file = self._file = self._directory / "scheduler.json"
        file.touch(mode=0o600)
        config = {
            "keys": str(self._directory / "keys"),
            "state": str(self._directory / "state"),
            "tenant": TENANT.value,
            "tenant_secret": self._secret,
            # One machine plays the whole farm.
            "connections_per_address": 0,
            "minimum_isolation": "qemu/tcg",
            "images": [IMAGE.digest.value],
            "lease_seconds": LEASE_SECONDS,
        }
        file.write_text(json.dumps(config))
        argv = [sys.executable, "-m", "hpcc.scheduler", "--config", str(file)]
        return self._start(["taskset", "-c", self._core, *argv] if self._core else argv)

    def _pin(self) -> None:
        """Leave the first core to the scheduler; this process and its children use the others.

        Raises:
            BenchError: there is only one core.
        """
        if not self._load.is_pinned:
            return
        every = os.sched_getaffinity(0)
        first, *others = sorted(every)
        if not others:
            raise BenchError("--pin needs two cores")
        self._core = str(first)
        os.sched_setaffinity(0, others)
        self._stack.callback(os.sched_setaffinity, 0, every)

    def _start(self, argv: list[str]) -> Process:
        # Two crowds join one after the other; then the workers are busy, then all.
        seconds = 2 * _JOIN_SECONDS + 4 * self._load.seconds + 60 + self.more_seconds
        return self._stack.enter_context(started(argv, seconds, self._directory / "log"))

    def _crowd(self, kind: str, count: int) -> Process:
        daemons_port = f"127.0.0.1:{self._facts['port']}"
        is_worker = kind == "workers"
        crowd = Crowd(
            kind=kind,
            count=count,
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
        crowd = self._crowd("workers", count)
        seconds = crowd.hear()["seconds"]
        per_worker = (scheduler.rss_bytes - memory) / count / 1024
        joined_ms = 1e3 * (own_seconds(scheduler.pid) - cpu) / count
        self._show(Figure("workers", count, "with a connection each"))
        self._show(Figure("until all of them are registered", seconds, "s"))
        self._show(Figure("enrolling and registering one: the scheduler's CPU", joined_ms, "ms"))
        self._show(Figure("memory for each worker", per_worker, "KiB"))
        return crowd

    def _settled(self, workers: Process) -> float:
        """Wait until workers and scheduler are idle; return the present lease in seconds."""
        every = LEASE_SECONDS / BEATS_IN_A_LEASE
        workers.tell(busy_line(self._load.workers / every, 2 * every))
        seconds: float = workers.hear()["lease_seconds"]
        time.sleep(_SETTLE_SECONDS)
        return seconds

    def _beats_alone(self, scheduler: Process, workers: Process, rate: float) -> float:
        """Return the scheduler's share of one core without route requests.

        Heartbeats with and without what a worker says of its machine take turns.
        """
        costs: dict[bool, list[float]] = {True: [], False: []}
        shares = []
        for number in range(2 * _PAIRS):
            facts = number % 4 in {0, 3}  # neither is always the first of its pair
            cpu, begun = own_seconds(scheduler.pid), time.monotonic()
            workers.tell(busy_line(rate, self._load.seconds / _PAIRS, facts=facts))
            beats = len(workers.hear()["taken"])
            wall, cpu = time.monotonic() - begun, own_seconds(scheduler.pid) - cpu
            costs[facts].append(cpu / max(beats, 1))
            shares += [cpu / wall] if facts else []
        what = "a heartbeat: the scheduler's CPU, with all that it does beside them"
        self._show(Figure(what, 1e6 * median(costs[True]), "us"))
        pairs = [with_ / without for with_, without in zip(*costs.values(), strict=True)]
        what = "beside one that says nothing of the worker's machine"
        self._show(Figure(what, median(pairs), "times", FACTS_GOAL))
        return median(shares)

    def _busy(self, scheduler: Process, rates: Mapping[Process, float], without: float) -> None:
        """Run all crowds at once; `without` is the scheduler's share of a core without routes."""
        cpu, begun = own_seconds(scheduler.pid), time.monotonic()
        waited = scheduler.waited_seconds
        core = CoreUse.now(self._core) if self._core else None
        for crowd, rate in rates.items():
            crowd.tell(busy_line(rate, self._load.seconds))
        beats, routes = (crowd.hear() for crowd in rates)
        wall = time.monotonic() - begun
        cpu, waited = own_seconds(scheduler.pid) - cpu, scheduler.waited_seconds - waited
        load = os.getloadavg()[0]
        p99_goal = self._alone_goal(core, cpu, wall) if core is not None else P99_GOAL_MS
        for name, said in (("heartbeats", beats), ("routes", routes)):
            failed = sum(said["failures"].values())
            if failed > MAX_FAILED * (failed + len(said["taken"])):
                raise BenchError(f"{name} failed: {said['failures']}")
            self._show(Figure(f"{name} that failed", failed, "calls", 0))
        taken = [1e3 * s for s in routes["taken"]]
        show = self._show
        show(Figure("routes a minute", 60 * len(taken) / wall, "routes"))
        show(Figure("heartbeats a second", len(beats["taken"]) / wall, "heartbeats"))
        show(Figure("a route, half of them", quantile(taken, 0.50), "ms"))
        show(Figure("a route, 99 of 100", quantile(taken, 0.99), "ms", p99_goal))
        show(Figure("the slowest route", max(taken), "ms"))
        show(Figure("a heartbeat, 99 of 100", 1e3 * quantile(beats["taken"], 0.99), "ms"))
        show(Figure("the scheduler's share of one core", 100 * cpu / wall, "%"))
        route = 1e6 * (cpu - without * wall) / max(len(taken), 1)
        show(Figure("a route: the scheduler's CPU", route, "us"))
        crowds = beats["cpu_seconds"] + routes["cpu_seconds"]
        show(Figure("the crowds' share of one core", 100 * crowds / wall, "%"))
        # Of one load this is the same on a slower machine, as long as the code is.
        show(Figure("the scheduler's CPU by the crowds'", cpu / crowds, "times"))
        show(Figure("the scheduler waited for a core, its threads summed up", waited, "s"))
        show(Figure("the machine's load meanwhile", load, "processes"))
        show(Figure("the scheduler's memory", scheduler.rss_bytes / (1 << 20), "MiB"))

    def _alone_goal(self, before: CoreUse, cpu: float, wall: float) -> float | None:
        """Show what else ran on the scheduler's core; return the goal of a quantile.

        It is None if the core had other work: then the quantile is not the scheduler's.
        """
        now = CoreUse.now(self._core)
        others = 100 * max(now.programs - before.programs - cpu, 0.0) / wall
        stolen = 100 * (now.stolen - before.stolen) / wall
        what = "other programs' share of the scheduler's core"
        self._show(Figure(what, others, "%", MOST_OTHERS_PERCENT))
        what = "what the machine's host took of it"
        self._show(Figure(what, stolen, "%", MOST_OTHERS_PERCENT))
        return P99_GOAL_MS if others + stolen <= MOST_OTHERS_PERCENT else None


def busy_line(rate: float, seconds: float, *, facts: bool = True) -> str:
    return json.dumps(asdict(Busy(calls_per_second=rate, seconds=seconds, facts=facts)))
