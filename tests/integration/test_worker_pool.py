"""The worker's guest pool: what ran in a guest before, how long guests live, reports of deaths."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from pathlib import Path

from hpcc.core import (
    Blob,
    ExecEvent,
    ExecRequest,
    GuestReuse,
    InputFile,
    OutputEvent,
)
from hpcc.ports import BlobSource
from hpcc.reapi.action import ActionSpec, encode_action
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import build_tree
from hpcc.rpc.base.errors import BusyError, UnavailableError
from hpcc.rpc.reapi.client import ReapiClient
from hpcc_testkit.farm.in_process import IMAGE, FarmUnderTest, farm_under_test
from hpcc_testkit.guests.fake_runtime import FakeGuest

GOOD, EVIL = b"int x;\n", b"evil"


class RootableGuest(FakeGuest):
    """A guest that one compile can take over; afterwards it makes the attacker's outputs."""

    is_rooted = False

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        self.is_rooted |= "root-me" in request.argv
        async for event in super().exec(request, blobs):
            if self.is_rooted and isinstance(event, OutputEvent):
                yield replace(event, data=EVIL)
            else:
                yield event


def made(script: str) -> list[Blob]:
    source = Blob.of(GOOD)
    tree = build_tree([InputFile("a.c", source.digest)])
    argv = ("sh", "-c", script, *(["root-me"] if "root" in script else []))
    spec = CommandSpec(argv=argv, env=(("PATH", "/usr/bin:/bin"),), cwd="", outputs=("a.o",), image=IMAGE)  # fmt: skip
    command = Blob.of(encode_command(spec))
    action = ActionSpec(command=command.digest, input_root=tree.root, image=IMAGE, salt=b"t")
    directories = [Blob.of(d) for d in tree.directories.values()]
    return [source, *directories, command, Blob.of(encode_action(action))]


async def run(client: ReapiClient, script: str = "cp a.c a.o") -> tuple[bytes, bool]:
    blobs = made(script)
    await client.upload(blobs)
    record, is_cached = await client.execute(blobs[-1].digest, ["a.o"])
    return record.inline["a.o"], is_cached


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - of other processes and tasks, without an event
            await asyncio.sleep(0.02)


async def after_a_root(farm: FarmUnderTest) -> list[tuple[bytes, bool]]:
    """Let Ann take over her guest and compile, then let Bob compile the same twice."""
    farm.runtime.guest_class = RootableGuest
    async with farm.client(principal="ann") as ann:
        await run(ann, "cp a.c a.o; : root")
        results = [await run(ann)]
    async with farm.client(principal="bob") as bob:
        results += [await run(bob), await run(bob)]
    return results


async def test_a_guest_rooted_by_one_principal_cannot_poison_a_colleague(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving():
        results = await after_a_root(farm)
    # Her own results are her own affair; neither her guest nor her cache ever serves him.
    assert results == [(EVIL, False), (GOOD, False), (GOOD, True)]
    executed = [r for r in farm.audit.rows if r.cache_status == "executed"]
    assert [(r.principal, r.guest_execs_before) for r in executed] == [
        ("ann", 0),
        ("ann", 1),
        ("bob", 0),
    ]
    assert {r.reuse for r in farm.audit.rows} == {"principal"}


async def test_with_reuse_exec_a_rooted_guest_poisons_nobody_not_even_its_own_principal(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path, guest_reuse="exec") as farm, farm.serving():
        results = await after_a_root(farm)
    # What a fresh guest made may be shared, so Bob has Ann's.
    assert results == [(GOOD, False), (GOOD, True), (GOOD, True)]
    executed = [r for r in farm.audit.rows if r.cache_status == "executed"]
    assert len({r.guest_id for r in executed}) == len(executed) == 2
    assert {(r.guest_execs_before, r.reuse) for r in farm.audit.rows} == {(0, "exec")}


async def test_with_reuse_tenant_a_rooted_guest_poisons_colleagues_and_every_label_says_so(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path, guest_reuse="tenant") as farm, farm.serving():
        results = await after_a_root(farm)
        async with farm.client(principal="bob") as bob:
            record, _ = await bob.execute(made("cp a.c a.o")[-1].digest, [])
    assert results == [(EVIL, False), (EVIL, True), (EVIL, True)]
    assert record.reuse is GuestReuse.TENANT
    assert {r.reuse for r in farm.audit.rows} == {"tenant"}


async def test_results_of_one_reuse_class_are_not_found_in_another(tmp_path: Path) -> None:
    executed = []
    for reuse in ("tenant", "principal", "exec", "tenant"):
        async with farm_under_test(tmp_path / reuse, guest_reuse=reuse) as farm:
            farm.worker_fields["store"] = tmp_path / "store"
            # The same worker: results of a key that nobody lists are misses whatever their class.
            keys = farm.worker_config().keys
            keys.mkdir(parents=True, mode=0o700)
            if executed:
                shutil.copy(tmp_path / "result.key", keys / "result-signing.key")
            async with farm.serving(), farm.client() as client:
                executed.append(not (await run(client))[1])
            shutil.copy(keys / "result-signing.key", tmp_path / "result.key")
        (tmp_path / reuse).rename(tmp_path / f"old-{len(executed)}")
    assert executed == [True, True, True, False]


async def test_an_idle_guest_is_ended_and_the_next_compile_has_a_fresh_one(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path, idle_seconds=0.2) as farm,
        farm.serving(),
        farm.client() as client,
    ):
        await run(client)
        await until(lambda: not farm.runtime.running)
        await run(client, "cp a.c a.o; :")
    assert [r.guest_execs_before for r in farm.audit.rows] == [0, 0]


async def test_a_guest_that_is_too_old_ends_after_its_last_compile(tmp_path: Path) -> None:
    async with (
        farm_under_test(tmp_path, session_seconds=0.3) as farm,
        farm.serving(),
        farm.client() as client,
    ):
        assert (await run(client, "sleep 0.6; cp a.c a.o"))[0] == GOOD
        await until(lambda: not farm.runtime.running)
    assert farm.audit.names() == []


async def test_a_full_queue_is_said_at_once(tmp_path: Path) -> None:
    limits = {"max_guests": 1, "vcpus": 1, "max_queue": 1}
    async with (
        farm_under_test(tmp_path, **limits) as farm,
        farm.serving(),
        farm.client() as client,
        asyncio.TaskGroup() as group,
    ):
        started = tmp_path / "started"
        slow = group.create_task(run(client, f"touch {started}; sleep 1; cp a.c a.o"))
        await until(started.exists)
        others = [group.create_task(result_of(client, f"cp a.c a.o; : {i}")) for i in range(3)]
    assert slow.result()[0] == GOOD
    assert sorted(t.result() for t in others) == ["busy", "busy", "done"]


async def test_a_boot_that_fails_is_told_to_everybody_who_waits(tmp_path: Path) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving(), farm.client() as client:
        farm.runtime.faults.boot_error = "no VMM"
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(result_of(client, f"cp a.c a.o; : {i}")) for i in range(5)]
        assert [t.result() for t in tasks] == ["guest-boot"] * 5


async def result_of(client: ReapiClient, script: str) -> str:
    try:
        await run(client, script)
    except (BusyError, UnavailableError) as error:
        return error.reason
    return "done"
