"""A worker in this process that is the bot of an engine; its guests are fake.

`bot` runs one. `action_of` makes the blobs of an action.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from pathlib import Path

from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import Blob, Digest, InputFile
from hpcc.ports import SystemClock
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.tree import build_tree
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.base.engine_config import EngineConfig
from hpcc.worker.base.metrics import WorkerMetrics
from hpcc.worker.serve_bot import serve_bot
from hpcc_testkit.engine.scripted import ScriptedEngine
from hpcc_testkit.farm.in_process import IMAGE, FakeImages
from hpcc_testkit.farm.memory_audit import MemoryAuditLog
from hpcc_testkit.guests.fake_runtime import FakeRuntime

TENANT = "acme"
_DIRECTORIES = ("keys", "store", "audit", "images", "guest_assets", "state")


@dataclass(slots=True)
class Bot:
    """A running bot and what a test looks at."""

    config: WorkerConfig
    runtime: FakeRuntime
    audit: MemoryAuditLog
    metrics: WorkerMetrics

    async def wait_guests(self, count: int) -> None:
        """Wait until so many guests exist."""
        while len(self.runtime.running) != count:  # noqa: ASYNC110 - filled by a worker's tasks
            await asyncio.sleep(0.01)

    async def wait_rows(self, count: int) -> None:
        """Wait until so many rows were written."""
        while len(self.audit.rows) < count:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.01)

    def failed(self) -> dict[str, str]:
        """Return the conditions of the worker's health that fail, with the reasons."""
        return {c.name: c.reason for c in self.metrics.service.health.conditions().failed()}


def bot_config(
    directory: Path, endpoint: str, name: str = "w1", instance: str = "main", **fields: object
) -> WorkerConfig:
    """Return a bot's config; `fields` are of the section if it has them, else of the config."""
    base = directory / name
    known = {field.name for field in dataclass_fields(EngineConfig)}
    section = {
        "endpoint": endpoint,
        "instance": instance,
        "tenant": TENANT,
        "images": [IMAGE.platform_value],
        **{k: v for k, v in fields.items() if k in known},
    }
    values: dict[str, object] = {
        "worker_id": name,
        **{d: base / d for d in _DIRECTORIES},
        "image_digests": (IMAGE.digest.value,),
        "drain_seconds": 30.0,
        "engine": section,
        **{k: v for k, v in fields.items() if k not in known},
    }
    return WorkerConfig(**values)  # type: ignore[arg-type]  # built by name just above


@asynccontextmanager
async def bot(config: WorkerConfig) -> AsyncGenerator[Bot]:
    """Run a bot while the block runs."""
    for name in _DIRECTORIES:
        getattr(config, name).mkdir(parents=True, exist_ok=True)
    guests = config.state.parent / "guests"
    guests.mkdir(exist_ok=True)
    engine = config.engine_or_none
    assert engine is not None
    audit, metrics, runtime = MemoryAuditLog(), WorkerMetrics("1"), FakeRuntime(guests)
    async with serve_bot(
        config,
        engine,
        runtime=runtime,
        images=FakeImages(config.state.parent / "image"),
        audit=audit,
        clock=SystemClock(),
        progress=lambda _: None,
        metrics=metrics,
    ):
        yield Bot(config, runtime, audit, metrics)
    assert not runtime.running


@asynccontextmanager
async def scripted_bot(
    directory: Path, engine: ScriptedEngine, **fields: object
) -> AsyncGenerator[Bot]:
    """Run the bot of a scripted engine under a hang guard."""
    fields.setdefault("busy_seconds", 0.05)
    config = bot_config(directory, engine.endpoint, "w1", "main", **fields)
    async with asyncio.timeout(60), bot(config) as running:
        yield running


async def until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, under the guard of the caller."""
    while not is_so():  # noqa: ASYNC110 - of several tasks
        await asyncio.sleep(0.01)


def action_of(
    script: str,
    *,
    outputs: Iterable[str] = ("a.o",),
    files: Iterable[tuple[str, bytes]] = (("a.c", b"int x;\n"),),
    properties: Iterable[tuple[str, str]] = (("container-image", IMAGE.platform_value),),
    root: Digest | None = None,
    seconds: int = 60,
) -> list[Blob]:
    """Return the blobs of an action that runs a script of sh, the action last.

    Nothing about it is checked. `root` is another input root than that of `files`.
    """
    contents = [Blob.of(data) for _, data in files]
    names = [name for name, _ in files]
    tree = build_tree(
        InputFile(n, b.digest, is_executable=n.endswith(".sh"))
        for n, b in zip(names, contents, strict=True)
    )
    platform = pb.Platform(
        properties=[pb.Platform.Property(name=n, value=v) for n, v in sorted(properties)]
    )
    command = pb.Command(
        arguments=["sh", "-c", script],
        environment_variables=[pb.Command.EnvironmentVariable(name="PATH", value="/usr/bin:/bin")],
        output_paths=sorted(outputs),
        platform=platform,
    )
    named = Blob.of(command.SerializeToString(deterministic=True))
    action = pb.Action(
        command_digest=digest_to_proto(named.digest),
        input_root_digest=digest_to_proto(root or tree.root),
        platform=platform,
    )
    action.timeout.seconds = seconds
    directories = [Blob.of(data) for data in tree.directories.values()]
    data = action.SerializeToString(deterministic=True)
    return [*contents, *directories, named, Blob.of(data)]
