"""A bot whose engine's CAS has more than the worker can keep."""

from __future__ import annotations

from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import Blob
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.limits import MAX_TREE_BYTES
from hpcc_testkit.engine.bots import action_of, scripted_bot
from hpcc_testkit.engine.scripted import ScriptedEngine

pytestmark = pytest.mark.timeout(120)

INVALID = 3


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
