"""A farm of real processes that can be killed: scheduler, worker and dispatchers, with fake guests.

Commands are run as an operator runs them, beside the running scheduler.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import (
    ImageDigest,
    ImageRef,
    Isolation,
    RemoteFailure,
    RemoteInput,
    RemoteRequest,
    RemoteResult,
)
from hpcc.dispatch.remote import DispatcherClient, start_remote
from hpcc_testkit.hostile.canaries import check_logs, plant
from hpcc_testkit.suite.pipes import gone

IMAGE: Final = ImageRef("test/gcc", ImageDigest("sha256:" + "ab" * 32))
_SECRET: Final = "canary-of-a-tenant-" * 3
# What every compile of such a farm runs.
_COMMAND: Final = "cp a.c a.o"
_READY_SECONDS: Final = 60.0


@dataclass(slots=True)
class Load:
    """Compiles without a pause in some threads until `stop`. Its counts say how they ended."""

    farm: ProcessFarm
    client: DispatcherClient
    name: str
    made: int = 0
    failures: list[RemoteFailure] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _is_over: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, jobs: int = 1) -> None:
        for job in range(jobs):
            thread = threading.Thread(target=self._run, args=(job,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _run(self, job: int) -> None:
        number = 0
        while not self._is_over.is_set():
            name = f"{self.name}-{job}-{number}"
            outcome = self.client.compile(self.farm.request(name), lambda: False)
            with self._lock:
                if isinstance(outcome, RemoteResult):
                    self.made += 1
                    if not is_right(outcome, name):
                        self.wrong.append(name)
                elif isinstance(outcome, RemoteFailure):
                    self.failures.append(outcome)
            number += 1
            self._is_over.wait(0.05)

    async def until(self, count: int) -> None:
        """Wait until `count` further compiles have ended well."""
        goal = self.made + count
        while self.made < goal:  # noqa: ASYNC110 - the counter belongs to threads
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)


def is_right(result: RemoteResult, name: str) -> bool:
    """Return whether a compile of `ProcessFarm.request(name)` gave the object of this source."""
    return [o.data for o in result.outputs] == [text_of(name).encode()]


def text_of(name: str) -> str:
    """Return the source of a name; no two names have the same."""
    return f"int {name.replace('-', '_')};\n"


@dataclass(slots=True)
class ProcessFarm:
    """The processes of a farm, and what their files hold."""

    directory: Path
    worker_fields: dict[str, object] = field(default_factory=dict)
    scheduler_fields: dict[str, object] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=dict)
    worker_ready: dict[str, Any] = field(default_factory=dict)
    scheduler: asyncio.subprocess.Process | None = None
    worker: asyncio.subprocess.Process | None = None
    _clients: int = 0

    @property
    def scheduler_file(self) -> Path:
        return self.directory / "scheduler.json"

    @property
    def worker_keys(self) -> Path:
        return self.directory / "worker/keys"

    async def start_scheduler(self) -> None:
        """Start it, from the second time on at the same ports."""
        ports = {name: self.ready.get(name, 0) for name in ("port", "worker_port")}
        self._write(
            self.scheduler_file,
            {
                "keys": str(self.directory / "scheduler/keys"),
                "state": str(self.directory / "scheduler/state"),
                "tenant": "acme",
                "tenant_secret": _SECRET,
                "minimum_isolation": "local/none",
                **self.scheduler_fields,
                **ports,
            },
        )
        self.scheduler, said = await self._start("scheduler", self.scheduler_file)
        self.ready = self.ready or said

    async def start_worker(self) -> None:
        base = self.directory / "worker"
        token = base / "token"
        if not (self.worker_keys / "farm-identity.pem").exists():
            text = await self.hpcc("scheduler", "enrol-token", "--name", "w1")
            token.parent.mkdir(parents=True, exist_ok=True)
            self._write_text(token, plant(text.strip().splitlines()[-1]))
        names = ("keys", "store", "audit", "images", "state")
        file = self.directory / "worker.json"
        host = self.ready["host"]
        self._write(
            file,
            {
                "worker_id": "w1",
                **{name: str(base / name) for name in names},
                "guest_assets": str(base / "assets"),
                "scheduler": f"{host}:{self.ready['worker_port']}",
                "scheduler_certificate_pem": self.ready["certificate_pem"],
                "enrol_at": f"{host}:{self.ready['port']}",
                "enrol_token_file": str(token),
                "image_digests": [IMAGE.digest.value],
                "drain_seconds": 5.0,
                **self.worker_fields,
            },
        )
        self.worker, self.worker_ready = await self._start("worker", file)

    async def kill(self, which: str) -> None:
        """Kill the scheduler or the worker, as `kill -9` does."""
        process = self.scheduler if which == "scheduler" else self.worker
        assert process is not None
        process.kill()
        await gone(process)

    async def hpcc(self, *argv: str, code: int = 0, output: bool = False) -> str:
        """Run a command with the scheduler's config file; return what it printed.

        Of a command that ends with another `code` than 0 that is its error, without `output`.
        """
        command = [sys.executable, "-m", "hpcc.cli", *argv, "--config", str(self.scheduler_file)]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 or output else done.stderr

    def request(self, name: str) -> RemoteRequest:
        """Return a compile whose object is its source, a text that only this name has."""
        source = self.directory / "sources" / f"{name}.c"
        source.parent.mkdir(exist_ok=True)
        source.write_text(text_of(name))
        return RemoteRequest(
            argv=("sh", "-c", _COMMAND),
            env=(("PATH", "/usr/bin:/bin"),),
            cwd="",
            inputs=(RemoteInput("a.c", str(source), is_executable=False),),
            outputs=("a.o",),
        )

    def farm(self, principal: str = "ann") -> Farm:
        """Return what a machine's farm file holds."""
        return Farm(
            scheduler=f"{self.ready['host']}:{self.ready['port']}",
            scheduler_certificate_pem=self.ready["certificate_pem"],
            tenant="acme",
            principal=principal,
            secret=_SECRET,
            image=str(IMAGE),
            isolation=Isolation.LOCAL_NONE.value,
        )

    @contextmanager
    def client(self) -> Iterator[DispatcherClient]:
        """Yield a new user's dispatcher process, which remembers nothing."""
        self._clients += 1
        base = self.directory / f"user{self._clients}"
        paths = Paths(cache=base / "c", state=base / "s", config=base / "o", run=base / "r")
        paths.state.mkdir(parents=True)
        paths.farm_file.write_text(self.farm().to_json())
        client = start_remote(paths, Settings())
        try:
            yield client
        finally:
            client.close()

    async def compiled(self, names: list[str]) -> list[bool]:
        """Compile these one after the other as a new user; return for each whether it was a hit."""

        def run() -> list[bool]:
            found = []
            with self.client() as client:
                for name in names:
                    outcome = client.compile(self.request(name), lambda: False)
                    assert isinstance(outcome, RemoteResult), outcome
                    assert is_right(outcome, name), name
                    found.append(outcome.is_cached)
            return found

        return await asyncio.to_thread(run)

    async def back(self) -> None:
        """Wait until compiles have a worker again."""

        def run() -> None:
            with self.client() as client:
                request = self.request(f"back-{self._clients}")
                while not isinstance(client.compile(request, lambda: False), RemoteResult):
                    time.sleep(0.2)

        async with asyncio.timeout(_READY_SECONDS):
            await asyncio.to_thread(run)

    async def _start(
        self, what: str, file: Path
    ) -> tuple[asyncio.subprocess.Process, dict[str, Any]]:
        with (self.directory / f"{what}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", f"hpcc_testkit.farm.{what}", "--config", str(file),
                stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        assert process.stdout is not None
        async with asyncio.timeout(_READY_SECONDS):
            while line := await process.stdout.readline():
                said: dict[str, Any] = json.loads(line)
                if said.get("ready"):
                    return process, said
        raise AssertionError((self.directory / f"{what}.log").read_text()[-2000:])

    def _write(self, file: Path, values: dict[str, object]) -> None:
        self._write_text(file, json.dumps(values))

    def _write_text(self, file: Path, text: str) -> None:
        file.touch(mode=0o600)
        file.write_text(text)

    async def end(self) -> None:
        for process in (self.worker, self.scheduler):
            if process is None:
                continue
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(30):
                await gone(process)


@asynccontextmanager
async def process_farm(
    directory: Path, *, scheduler: dict[str, object] | None = None, **worker_fields: object
) -> AsyncGenerator[ProcessFarm]:
    """Run a scheduler and a worker while the block runs; `scheduler` is for its config file."""
    farm = ProcessFarm(directory, dict(worker_fields), dict(scheduler or {}))
    try:
        await farm.start_scheduler()
        await farm.start_worker()
        yield farm
    finally:
        await farm.end()
    # No secret, no command line, no name of a source and no source, whatever the test did.
    check_logs(directory, (_SECRET, _COMMAND, str(directory / "sources")))
