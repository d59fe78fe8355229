"""What people who look at a farm cost its scheduler: ten `hpcc web`, each with an open page.

Each viewer is a real `hpcc web` process with its own login and its own TLS connection. A client
asks its page every two seconds, as the page's script does. The scheduler's CPU is taken in turns,
with nobody who looks and with all of them; the workers' heartbeats are the same in both. So the
difference is what the viewers cost with their transport.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from _farm_crowd import IMAGE, TENANT
from _farm_load import BEATS_IN_A_LEASE, Load, LoadBench, busy_line
from _farm_process import Process
from _farm_rows import Figure
from _measure import BenchError, own_seconds

from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc_testkit.services.web import Fetched, web_pages

VIEWERS: Final = 10
GOAL_PERCENT: Final = 1.0
# As the page's script asks.
_EVERY_SECONDS: Final = 2.0
# With more workers a page is made less often.
MOST_WORKERS: Final = 200


class ViewersBench(LoadBench):
    """Measures the scheduler's CPU for the viewers of one farm."""

    # Ten programs start, and several rounds follow.
    more_seconds = 600.0

    def __init__(
        self, load: Load, directory: Path, show: Callable[[Figure], None], rounds: int = 3
    ) -> None:
        super().__init__(load, directory, show)
        self._rounds = rounds

    def run(self) -> None:
        """Start the farm and the viewers, and report what these cost.

        Raises:
            BenchError: a process ended, or a page did not show the farm.
        """
        with self._stack:
            self._pin()
            scheduler = self._scheduler()
            self._facts = scheduler.hear()
            # First: simulated workers that send no heartbeats meanwhile would be given up.
            viewers = [_Viewer(self._stack, self._home(number)) for number in range(VIEWERS)]
            workers = self._workers(scheduler)
            rate = BEATS_IN_A_LEASE * self._load.workers / self._settled(workers)
            without, beside = [], []
            for _ in range(self._rounds):
                without.append(self._share(scheduler, workers, rate))
                with _all_looking(viewers):
                    # Logins and first pictures are not what a look costs.
                    _beat(workers, rate, 2 * _EVERY_SECONDS)
                    beside.append(self._share(scheduler, workers, rate))
                _beat(workers, rate, _EVERY_SECONDS)
            for viewer in viewers:
                viewer.check()
            costs = [b - w for b, w in zip(beside, without, strict=True)]
            show = self._show
            show(Figure("the scheduler's share of one core, heartbeats only", median(without), "%"))
            show(Figure(f"the same with {VIEWERS} viewers", median(beside), "%"))
            show(
                Figure(f"what {VIEWERS} viewers cost of one core", median(costs), "%", GOAL_PERCENT)
            )
            show(Figure("the least of it", min(costs), "%"))
            show(Figure("the most of it", max(costs), "%"))
            show(Figure("pages that were asked for", sum(v.asked for v in viewers), "pages"))

    def _share(self, scheduler: Process, workers: Process, rate: float) -> float:
        """Return the scheduler's share of one core in percent, while workers send heartbeats."""
        cpu, begun = own_seconds(scheduler.pid), time.monotonic()
        _beat(workers, rate, self._load.seconds)
        return 100 * (own_seconds(scheduler.pid) - cpu) / (time.monotonic() - begun)

    def _home(self, number: int) -> dict[str, str]:
        env = {"HPCC_DIR": str(self._directory / f"viewer-{number}"), "PATH": os.environ["PATH"]}
        paths = Paths.from_env(env)
        paths.state.mkdir(parents=True)
        farm = Farm(
            scheduler=f"127.0.0.1:{self._facts['port']}",
            scheduler_certificate_pem=self._facts["certificate_pem"],
            tenant=TENANT.value, principal=f"viewer{number}", secret=self._secret,
            image=str(IMAGE), isolation="qemu/tcg",
        )  # fmt: skip
        paths.farm_file.touch(0o600)
        paths.farm_file.write_text(farm.to_json())
        return env


class _Viewer:
    """One `hpcc web` and a client that asks its first page while `looks` is set."""

    def __init__(self, stack: ExitStack, env: dict[str, str]) -> None:
        self._client = Fetched(stack.enter_context(web_pages(env, local=False)))
        self.looks, self._is_over = threading.Event(), threading.Event()
        self.asked, self._text = 0, ""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        stack.callback(thread.join, 60)
        stack.callback(self._end)

    def check(self) -> None:
        """Refuse to count pages that do not show the farm.

        Raises:
            BenchError: the last one has no workers.
        """
        if " workers take compiles" not in self._text:
            raise BenchError(f"a viewer saw no farm: {self._text[:2000]}")

    def _end(self) -> None:
        self._is_over.set()
        self.looks.set()

    def _look(self) -> None:
        while True:
            self.looks.wait()
            if self._is_over.is_set():
                return
            due = time.monotonic() + _EVERY_SECONDS
            self._text = self._client.page(f"{self._client.root}/")[0]
            self.asked += 1
            time.sleep(max(0.0, due - time.monotonic()))


@contextmanager
def _all_looking(viewers: list[_Viewer]) -> Iterator[None]:
    for viewer in viewers:
        viewer.looks.set()
    try:
        yield
    finally:
        for viewer in viewers:
            viewer.looks.clear()


def _beat(workers: Process, rate: float, seconds: float) -> None:
    """Let the workers send heartbeats: a silent worker is given up."""
    workers.tell(busy_line(rate, seconds))
    workers.hear()
