"""A bot whose engine's CAS is lost, refuses its calls, or sends more than the worker can keep."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots

from hpcc.core import Blob
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.limits import MAX_TREE_BYTES
from hpcc_testkit.engine.bots import action_of, scripted_bot
from hpcc_testkit.engine.scripted import ScriptedEngine, scripted_engine

pytestmark = pytest.mark.timeout(120)

OK, INVALID, UNAVAILABLE = 0, 3, 14


def wide(count: int, files: int, name_chars: int) -> list[Blob]:
    """Return an action whose root has so many directories, each with other names of files."""
    node = pb.Digest(hash="0" * 64, size_bytes=3)
    directories = [
        Blob.of(
            pb.Directory(
                files=[
                    pb.FileNode(name=f"{number:03}-{n:05}".ljust(name_chars, "n"), digest=node)
                    for n in range(files)
                ]
            ).SerializeToString()
        )
        for number in range(count)
    ]
    nodes = [
        pb.DirectoryNode(name=f"{number:03}", digest=digest_to_proto(blob.digest))
        for number, blob in enumerate(directories)
    ]
    root = Blob.of(pb.Directory(directories=nodes).SerializeToString())
    return [*directories, root, *action_of("true", root=root.digest)]


async def test_the_directories_of_a_level_are_bounded_before_they_are_fetched(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    blobs = wide(20, 12_000, 250)
    assert sum(b.digest.size_bytes for b in blobs[:20]) > MAX_TREE_BYTES
    engine.give("1", engine.add(*blobs))
    async with scripted_bot(tmp_path, engine) as running:
        lease = await engine.end_of("1")
    assert (lease.status.code, running.runtime.booted) == (INVALID, 0)
    assert "too large" in lease.status.message
    assert sum(len(engine.blobs[name]) for name in engine.read) < 1 << 20


async def test_directories_that_the_store_has_displaced_are_no_fault_of_the_action(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.give("1", engine.add(*wide(40, 1_000, 9)))
    async with scripted_bot(tmp_path, engine, max_store_bytes=1 << 20):
        lease = await engine.end_of("1")
    assert lease.status.code == UNAVAILABLE, lease.status
    assert "max_store_bytes" in lease.status.message


async def test_another_server_of_the_cas_is_asked_after_one_that_is_gone(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    async with scripted_engine() as other:
        gone = other.endpoint
    action = engine.add(*action_of("cp a.c a.o"))
    engine.give("1", action)
    async with scripted_bot(tmp_path, engine, cas=f"{gone},{engine.endpoint}"):
        assert (await engine.end_of("1")).status.code == UNAVAILABLE
        engine.give("2", action)
        assert (await engine.end_of("2")).status.code == OK


@pytest.mark.parametrize(
    ("code", "rests"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, True),
        (grpc.StatusCode.PERMISSION_DENIED, True),
        (grpc.StatusCode.NOT_FOUND, False),
        (grpc.StatusCode.UNIMPLEMENTED, False),
    ],
)
async def test_what_the_cas_refuses_to_the_bot_is_no_fault_of_the_action(
    tmp_path: Path, engine: ScriptedEngine, code: grpc.StatusCode, *, rests: bool
) -> None:
    engine.cas_refuses = code
    engine.give("1", engine.add(*action_of("cp a.c a.o")))
    async with scripted_bot(tmp_path, engine):
        lease = await engine.end_of("1")
        assert lease.status.code == UNAVAILABLE, lease.status
        assert (engine.updated[-1].status == bots.BotStatus.UNHEALTHY) == rests
        engine.cas_refuses = None
        engine.give("2", engine.add(*action_of("cp a.c a.o")))
        assert (await engine.end_of("2")).status.code == OK
