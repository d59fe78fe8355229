"""A bot whose engine lies, forgets, floods or falls silent. Every byte of it is hostile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots
from buildgrid.common.protos.google.rpc import error_details_pb2

from hpcc.core import Blob, Digest, ResultEvent
from hpcc.reapi.digests import digest_to_proto
from hpcc.reapi.limits import MAX_ACTION_BYTES, MAX_DIRECTORY_BYTES, MAX_TREE_DEPTH
from hpcc_testkit.engine.bots import action_of, scripted_bot, until
from hpcc_testkit.engine.scripted import ScriptedEngine
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE
from hpcc_testkit.guests.fake_runtime import FakeGuest

pytestmark = pytest.mark.timeout(120)

OK, INVALID, UNAVAILABLE, PRECONDITION = 0, 3, 14, 9


def result_of(lease: bots.Lease) -> pb.ActionResult:
    result = pb.ActionResult()
    assert lease.status.code == OK, lease.status
    assert lease.result.Unpack(result)
    return result


async def test_an_action_is_run_and_its_outputs_are_there_before_its_result(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    blobs = action_of(
        "echo said; cp d/a.c a.o; mkdir o; echo in > o/f",
        outputs=("a.o", "o"), files=[("d/a.c", b"int y;\n"), ("e.sh", b"")],
    )  # fmt: skip
    engine.give("main/1", engine.add(*blobs))
    async with scripted_bot(tmp_path, engine) as running:
        result = result_of(await engine.end_of("main/1"))
        (row,) = running.audit.rows
    assert (result.exit_code, result.stdout_raw) == (0, b"said\n")
    (file,), (directory,) = result.output_files, result.output_directories
    assert engine.blobs[file.digest.hash] == b"int y;\n"
    tree = pb.Tree.FromString(engine.blobs[directory.tree_digest.hash])
    assert engine.blobs[tree.root.files[0].digest.hash] == b"in\n"
    assert (row.engine, row.lease) == (f"{engine.endpoint}/main", "main/1")
    assert (row.tenant, row.principal, row.build_id) == ("acme", "engine:main", "")
    assert (row.cache_status, row.reuse, row.scheduler) == ("executed", "exec", "")
    assert row.action_digest == str(blobs[-1].digest)
    assert not any(b"signature" in m.value for m in result.execution_metadata.auxiliary_metadata)


async def test_a_failed_command_and_long_messages_are_a_result(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    action = engine.add(*action_of("head -c 200000 /dev/zero; exit 3"))
    engine.give("1", action)
    async with scripted_bot(tmp_path, engine):
        result = result_of(await engine.end_of("1"))
    assert (result.exit_code, result.stdout_raw) == (3, b"")
    assert engine.blobs[result.stdout_digest.hash] == bytes(200_000)


async def test_a_lease_with_the_digest_of_an_action_runs(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    action = engine.add(*action_of("cp a.c a.o"))
    engine.give("1", action)
    engine.leases["1"].payload.Pack(digest_to_proto(action.digest))
    async with scripted_bot(tmp_path, engine):
        assert result_of(await engine.end_of("1")).exit_code == 0


def other_image(blobs: list[Blob]) -> list[Blob]:
    """Return the action with another image than its command's."""
    action = pb.Action.FromString(blobs[-1].data)
    action.platform.properties[0].value = OTHER_IMAGE.platform_value
    return [*blobs[:-1], Blob.of(action.SerializeToString())]


def with_symlink() -> list[Blob]:
    link = pb.Directory(symlinks=[pb.SymlinkNode(name="out", target="/etc")])
    root = Blob.of(link.SerializeToString())
    return [root, *action_of("true", root=root.digest)]


def deep() -> list[Blob]:
    blobs = [Blob.of(b"")]
    for _ in range(MAX_TREE_DEPTH + 2):
        child = digest_to_proto(blobs[-1].digest)
        node = pb.Directory(directories=[pb.DirectoryNode(name="d", digest=child)])
        blobs.append(Blob.of(node.SerializeToString()))
    return [*blobs, *action_of("true", root=blobs[-1].digest)]


def naming(size: int) -> list[Blob]:
    """Return an action whose one input says that it has so many bytes."""
    named = pb.Digest(hash="0" * 64, size_bytes=size)
    root = Blob.of(pb.Directory(files=[pb.FileNode(name="f", digest=named)]).SerializeToString())
    return [root, *action_of("true", root=root.digest)]


PLATFORM = ("container-image", IMAGE.platform_value)


@pytest.mark.parametrize(
    ("blobs", "code", "says"),
    [
        (lambda: action_of("true", properties=[PLATFORM, ("network", "on")]), PRECONDITION,
         "remove it from the client's execution properties"),
        (lambda: action_of("true", properties=[PLATFORM, ("OSFamily", "windows")]), PRECONDITION,
         "OSFamily is 'windows', and this worker is linux"),
        (lambda: action_of("true", properties=[("container-image", "docker://r/gcc:9")]),
         PRECONDITION, "not pinned"),
        (lambda: action_of("true", properties=[]), PRECONDITION, "exactly one container-image"),
        (lambda: action_of("true", properties=[("container-image", str(OTHER_IMAGE))]),
         PRECONDITION, IMAGE.platform_value),
        (lambda: other_image(action_of("true")), PRECONDITION, "exactly one"),
        (lambda: action_of("true", outputs=["/etc/passwd"]), INVALID, "leaves the input root"),
        (lambda: action_of("true", outputs=["../x"]), INVALID, "leaves the input root"),
        (with_symlink, INVALID, "symlinks are not allowed"),
        (deep, INVALID, "too deep"),
        (lambda: naming(257 << 20), INVALID, "max_file_bytes"),
        (lambda: naming(101), INVALID, "max_input_bytes"),
        (lambda: naming(-1), INVALID, "size"),
        (lambda: action_of("true", root=Digest("0" * 64, MAX_DIRECTORY_BYTES + 1)), INVALID,
         "too large"),
        (lambda: action_of("true", seconds=100_000), INVALID, "timeout"),
    ],
)  # fmt: skip
async def test_an_action_that_may_not_run_is_refused_with_words_and_runs_nothing(
    tmp_path: Path,
    engine: ScriptedEngine,
    blobs: Callable[[], list[Blob]],
    code: int,
    says: str,
) -> None:
    engine.give("1", engine.add(*blobs()))
    async with scripted_bot(tmp_path, engine, max_input_bytes=100) as running:
        lease = await engine.end_of("1")
    assert lease.status.code == code, lease.status
    assert says in lease.status.message
    assert (running.runtime.booted, running.audit.rows, engine.uploaded) == (0, [], [])


async def test_missing_inputs_are_named_for_the_client(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    source, *rest = action_of("true")
    engine.add(*rest)
    engine.give("1", rest[-1])
    async with scripted_bot(tmp_path, engine):
        lease = await engine.end_of("1")
    assert lease.status.code == PRECONDITION
    failure = error_details_pb2.PreconditionFailure()
    assert any(d.Unpack(failure) for d in lease.status.details)
    assert [v.subject for v in failure.violations] == [f"blobs/{source.digest}"]


@pytest.mark.parametrize(("number", "size"), [(0, 7), (0, 5 << 20), (1, 7), (2, 8)])
async def test_bytes_that_are_not_those_of_their_digest_are_refused(
    tmp_path: Path, engine: ScriptedEngine, number: int, size: int
) -> None:
    """The input, its directory, and the command; of another length, too."""
    blobs = action_of("true")
    engine.give("1", engine.add(*blobs))
    engine.lies[blobs[number].digest.hash] = bytes(size)
    async with scripted_bot(tmp_path, engine) as running:
        lease = await engine.end_of("1")
    assert lease.status.code in {INVALID, UNAVAILABLE}, lease.status
    assert (running.runtime.booted, engine.uploaded) == (0, [])


async def test_a_payload_of_another_kind_ends_its_lease_and_no_other(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    action = engine.add(*action_of("sleep 0.3; cp a.c a.o"))
    engine.give("good", action)
    engine.give("bad", action)
    engine.leases["bad"].payload.value = bytes(MAX_ACTION_BYTES + 1)
    engine.give("none", action)
    engine.leases["none"].ClearField("payload")
    async with scripted_bot(tmp_path, engine, max_guests=3):
        ends = [await engine.end_of(name) for name in ("bad", "none", "good")]
    assert [lease.status.code for lease in ends] == [INVALID, INVALID, OK]
    assert len(engine.created) == 1


async def test_inputs_that_no_guest_can_stage_do_not_keep_a_worker_from_its_work(
    tmp_path: Path, engine: ScriptedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client can cause this at will, for example with a working directory that is a file."""

    async def unstaged(*_: object) -> tuple[list[object], ResultEvent]:
        return [], ResultEvent(exit_code=125, reason="agent-error")

    monkeypatch.setattr(FakeGuest, "_run", unstaged)
    engine.give("1", engine.add(*action_of("true")))
    async with scripted_bot(tmp_path, engine):
        assert (await engine.end_of("1")).status.code == UNAVAILABLE
        assert engine.updated[-1].status == bots.BotStatus.OK


async def test_a_result_without_a_row_is_never_uploaded(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.give("1", engine.add(*action_of("cp a.c a.o; echo new > a.o")))
    async with scripted_bot(tmp_path, engine) as running:
        running.audit.is_broken = True
        lease = await engine.end_of("1")
        assert running.runtime.booted == 1
    assert lease.status.code == UNAVAILABLE
    assert not lease.HasField("result")
    assert engine.uploaded == []


async def test_a_trail_without_room_takes_no_leases(tmp_path: Path, engine: ScriptedEngine) -> None:
    async with scripted_bot(tmp_path, engine) as running:
        running.audit.is_full = True
        await until(
            lambda: (
                not (engine.updated[-1:] == [] or engine.updated[-1].status == bots.BotStatus.OK)
            )
        )
        engine.give("1", engine.add(*action_of("true")))
        await asyncio.sleep(0.5)
        assert "1" in engine.leases, "an engine gives no lease to a bot that is not well"
        running.audit.is_full = False
        assert (await engine.end_of("1")).status.code == OK
