"""The process that `hpcc up` leaves running: writes configs and farm.json, starts services."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Final, Literal

from hpcc.cli.base.lock import held_lock, lock_file
from hpcc.cli.base.terminal import emit
from hpcc.cli.base.up_process import watch_for_stop
from hpcc.config.farm import Farm
from hpcc.config.paths import Paths
from hpcc.config.private_file import write_private_file
from hpcc.config.settings import Settings, load_settings
from hpcc.core import HpccError, ImageRef, Isolation
from hpcc.identity.keys import load_or_create_secret
from hpcc.ports import SystemClock
from hpcc.runtime.registry.table import LINUX, WINDOWS, row_or_none
from hpcc.scheduler.base.config import SchedulerConfig
from hpcc.scheduler.serve import open_enrolment
from hpcc.supervisor.process import ChildSpec, Ready, SupervisorError
from hpcc.supervisor.run import Supervisor
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.identity import IDENTITY_NAME

# The one static tenant of a single machine.
TENANT: Final = "local"
_WORKER: Final = "local-worker"
# The worker of the same supervisor uses the token at once.
_TOKEN_SECONDS: Final = 600.0
# A KVM probe, then twice the time of a guest's answer, then the questions to the compilers.
WORKER_READY_SECONDS: Final = 630.0


def supervise(paths: Paths, image: str) -> int:
    """Run the farm of one machine until somebody stops it; returns the exit status."""
    with held_lock(lock_file(paths)):
        # Only the holder of the lock may cut the log: another `hpcc up` may have lost the race.
        with suppress(OSError):
            os.ftruncate(sys.stderr.fileno(), 0)
        try:
            farm = _LocalFarm(paths, load_settings(paths.config_file), ImageRef.parse(image))
            asyncio.run(farm.run())
        except HpccError as error:
            # `hpcc up` shows the last line of the log, so it must not be a traceback's.
            emit(f"hpcc: {error}", file=sys.stderr)
            return 1
        finally:
            paths.farm_file.unlink(missing_ok=True)
    return 0


def say(facts: Mapping[str, object]) -> None:
    """Write one JSON line to `hpcc up`, which may have ended."""
    with suppress(OSError, ValueError):
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()


class _LocalFarm:
    """Scheduler and worker of one machine; their secrets are generated at the first start."""

    def __init__(self, paths: Paths, settings: Settings, image: ImageRef) -> None:
        self._paths, self._settings, self._image = paths, settings, image
        self._tenant_secret = load_or_create_secret(paths.keys / "tenant.secret")
        self._was_ready = False
        self._scheduler_port = 0

    async def run(self) -> None:
        stop = asyncio.Event()
        with watch_for_stop(self._paths, stop):
            await self._serve(stop)

    async def _serve(self, stop: asyncio.Event) -> None:
        if sys.platform != "win32":  # guests there are containers of the image itself
            from hpcc.runtime.assets.bundle import open_assets

            bundle = self._settings.worker.guest_bundle
            await open_assets(self._paths.guest_assets, bundle, self._progress)
        supervisor = Supervisor(
            [("scheduler", self._scheduler), ("worker", self._worker)],
            clock=SystemClock(),
            progress=self._progress,
            on_ready=self._on_ready,
        )
        await supervisor.run(stop)

    def _progress(self, line: str) -> None:
        if self._was_ready:
            emit(line, file=sys.stderr, flush=True)
        else:
            say({"progress": line})

    def _scheduler(self, _ready: Mapping[str, Ready]) -> ChildSpec:
        return self._spec("scheduler", self._scheduler_config(), ready_seconds=60.0)

    def _scheduler_config(self) -> SchedulerConfig:
        return SchedulerConfig(
            keys=self._paths.keys,
            state=self._paths.state / "scheduler",
            tenant=TENANT,
            tenant_secret=self._tenant_secret,
            minimum_isolation=_minimum(self._settings.worker.runtime).value,
            port=self._scheduler_port,
            images=(self._image.digest.value,),
        )

    def _token_file(self) -> Path:
        """Write a new token, so that the worker enrols at each start; return its file.

        A kept identity would be unknown to a scheduler whose state was deleted.
        """
        (self._paths.keys / IDENTITY_NAME).unlink(missing_ok=True)
        config = self._scheduler_config()

        async def make() -> str:
            async with open_enrolment(config, SystemClock()) as enrolment:
                return await enrolment.new_token(_WORKER, _TOKEN_SECONDS)

        # This thread already runs an event loop, which waits for the next service anyway.
        with ThreadPoolExecutor(1) as pool:
            token = pool.submit(asyncio.run, make()).result()
        file = self._paths.state / "worker.token"
        write_private_file(file, token.encode())
        return file

    def _worker(self, ready: Mapping[str, Ready]) -> ChildSpec:
        facts, worker = ready["scheduler"].facts, self._settings.worker
        config = WorkerConfig(
            worker_id=_WORKER,
            keys=self._paths.keys,
            store=self._paths.cache / "worker",
            audit=self._paths.audit,
            images=self._paths.images,
            guest_assets=self._paths.guest_assets,
            state=self._paths.state / "runtime",
            scheduler=f"127.0.0.1:{_port(facts, 'worker_port')}",
            scheduler_certificate_pem=str(facts["certificate_pem"]),
            enrol_at=f"127.0.0.1:{_port(facts)}",
            enrol_token_file=str(self._token_file()),
            image_digests=(self._image.digest.value,),
            pull_images=(str(self._image),) if sys.platform == "win32" else (),
            runtime=worker.runtime,
            accelerator=worker.accelerator,
            containerd=worker.containerd,
            guest_memory_mib=worker.guest_memory_mib,
            vcpus=worker.vcpus,
            max_guests=worker.max_guests,
            memory_mib=worker.memory_mib,
            guest_reuse=worker.guest_reuse,
            guest_mitigations=worker.guest_mitigations,
            guest_bundle=worker.guest_bundle,
            idle_seconds=worker.idle_seconds,
            session_seconds=worker.session_seconds,
            ahead_guests=worker.ahead_guests,
            park_after_starts=worker.park_after_starts,
            park_seconds=worker.park_seconds,
            drain_seconds=worker.drain_seconds,
            max_queue=worker.max_queue,
            boot_timeout_seconds=worker.boot_timeout_seconds,
            warm_start=worker.warm_start,
            prewarm_tenant=TENANT,
            prewarm_principal=_principal(),
        )
        return self._spec("worker", config, ready_seconds=WORKER_READY_SECONDS)

    def _spec(
        self,
        name: Literal["scheduler", "worker"],
        config: SchedulerConfig | WorkerConfig,
        *,
        ready_seconds: float,
    ) -> ChildSpec:
        file = self._paths.state / f"{name}.json"
        write_private_file(file, json.dumps(asdict(config), default=_plain).encode())
        return ChildSpec(
            name=name,
            argv=(sys.executable, "-m", f"hpcc.{name}", "--config", str(file)),
            env={
                **_environment(),
                # Children of these services are other programs, so gRPC need not survive a fork.
                "GRPC_ENABLE_FORK_SUPPORT": "0",
            },
            log=self._paths.state / f"{name}.log",
            ready_seconds=ready_seconds,
        )

    def _on_ready(self, ready: Mapping[str, Ready]) -> None:
        scheduler, worker = ready["scheduler"].facts, ready["worker"].facts
        # A restarted scheduler keeps its address, so that clients find it.
        self._scheduler_port = _port(scheduler)
        isolation = Isolation(str(worker["isolation"]))
        farm = Farm(
            scheduler=f"127.0.0.1:{self._scheduler_port}",
            scheduler_certificate_pem=str(scheduler["certificate_pem"]),
            tenant=TENANT,
            principal=_principal(),
            secret=self._tenant_secret,
            image=str(self._image),
            isolation=isolation.value,
            pid=os.getpid(),
        )
        write_private_file(self._paths.farm_file, farm.to_json().encode())
        if not self._was_ready:
            self._was_ready = True
            say(
                {
                    "up": True,
                    "isolation": farm.isolation,
                    "image": farm.image,
                    "scheduler": farm.scheduler,
                    "worker": f"127.0.0.1:{_port(worker)}",
                    "audit": str(self._paths.audit),
                }
            )


def _port(facts: Mapping[str, object], name: str = "port") -> int:
    port = facts.get(name)
    if not isinstance(port, int):
        raise SupervisorError("a service did not report its port")
    return port


def _minimum(runtime: str) -> Isolation:
    """Return the weakest virtual machine, or containers if the user's settings select them."""
    row = row_or_none(WINDOWS if sys.platform == "win32" else LINUX, runtime)
    return row.labels[0] if row is not None and row.is_container else Isolation.QEMU_TCG


def _environment() -> dict[str, str]:
    """Return the variables that the services get."""
    if sys.platform == "win32":
        from hpcc.daemon.windows_client import daemon_environment

        return daemon_environment(os.environ)
    keep = ("PATH", "HOME", "HPCC_DIR", "LANG", "LC_ALL", "TMPDIR")
    return {key: os.environ[key] for key in keep if key in os.environ}


def _principal() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        # A uid without a name, as in many containers; on Windows, no USERNAME.
        return "user" if sys.platform == "win32" else f"uid-{os.getuid()}"


def _plain(value: object) -> str:
    assert isinstance(value, Path)
    return str(value)


def main(argv: Sequence[str]) -> int:
    """Run `python -m hpcc.cli.farm.supervise IMAGE`, which `hpcc up` starts."""
    try:
        return supervise(Paths.from_env(os.environ), argv[0])
    except HpccError as error:
        emit(f"hpcc: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
