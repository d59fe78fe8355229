"""A worker process for the scale-out bench: its guests' compiler is a program that sleeps.

`_farm_sleeper.py --config FILE`, as `hpcc_testkit.farm.worker`. HPCC_BENCH_SLEEP is the time in
seconds. Each run adds a line of JSON to the file that HPCC_BENCH_RUNS names: the worker, and the
monotonic times at which the program started and ended.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from dataclasses import replace
from pathlib import Path

from hpcc.core import ExecEvent, ExecRequest, ResultEvent
from hpcc.rpc.base.process import ServiceProcess, run_service
from hpcc_testkit.farm import worker
from hpcc_testkit.guests.fake_runtime import FakeGuest


def stub(request: ExecRequest, seconds: float) -> str:
    """Return a script that sleeps and copies the source into each output; a `.d` gets a rule."""
    source = next(argument for argument in request.argv if argument.endswith(".c"))
    steps = [f"sleep {seconds}"]
    for path in request.outputs:
        target = os.path.relpath(path, request.cwd or ".")
        if path.endswith(".d"):
            rule = f"{Path(target).stem}.o: {source}"
            steps.append(f"echo {shlex.quote(rule)} > {shlex.quote(target)}")
        else:
            steps.append(f"cp {shlex.quote(source)} {shlex.quote(target)}")
    return " && ".join(steps)


class SleepingGuest(FakeGuest):
    """Runs the stub instead of the compiler."""

    async def _run(
        self, root: Path, request: ExecRequest, number: int
    ) -> tuple[list[ExecEvent], ResultEvent]:
        script = stub(request, float(os.environ["HPCC_BENCH_SLEEP"]))
        started = time.monotonic()
        found = await super()._run(root, replace(request, argv=("/bin/sh", "-c", script)), number)
        note([os.getpid(), started, time.monotonic()])
        return found


def note(run: list[float]) -> None:
    with Path(os.environ["HPCC_BENCH_RUNS"]).open("a") as runs:
        runs.write(json.dumps(run) + "\n")


async def main(process: ServiceProcess) -> None:
    """Serve as the testkit's worker does."""
    await worker.main(process, SleepingGuest)


if __name__ == "__main__":
    raise SystemExit(run_service("worker", main))
