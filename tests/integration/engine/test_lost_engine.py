"""A bot whose engine takes leases back, falls silent, refuses calls, or is one of two servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb
from buildgrid.common.protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots

from hpcc_testkit.engine.bots import action_of, bot, bot_config, scripted_bot, until
from hpcc_testkit.engine.scripted import ScriptedEngine
from hpcc_testkit.farm.in_process import IMAGE, OTHER_IMAGE

pytestmark = pytest.mark.timeout(120)

OK, UNAVAILABLE = 0, 14


@pytest.mark.parametrize("way", ["left out", "cancelled"])
async def test_a_lease_that_the_engine_takes_back_ends_its_guest(
    tmp_path: Path, engine: ScriptedEngine, way: str
) -> None:
    engine.give("1", engine.add(*action_of("sleep 600")))
    async with scripted_bot(tmp_path, engine) as running:
        await running.wait_guests(1)
        if way == "left out":
            del engine.leases["1"]
        else:

            def cancel(session: bots.BotSession) -> None:
                for lease in session.leases:
                    lease.state = bots.LeaseState.CANCELLED

            engine.edit = cancel
        await running.wait_guests(0)
        await running.wait_rows(1)
    (row,) = running.audit.rows
    assert (row.cache_status, row.reason, row.lease) == ("abandoned", "cancelled", "1")
    assert engine.ended == {}


@pytest.mark.parametrize(
    "code", [grpc.StatusCode.NOT_FOUND, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.INTERNAL]
)
async def test_a_session_that_the_engine_refuses_keeps_no_guest(
    tmp_path: Path, engine: ScriptedEngine, code: grpc.StatusCode
) -> None:
    engine.give("1", engine.add(*action_of("sleep 600")))
    async with scripted_bot(tmp_path, engine) as running:
        await running.wait_guests(1)
        engine.refuses = code
        engine.leases.clear()
        await running.wait_guests(0)
        assert "engine" in running.failed()
        engine.refuses = None
        engine.give("2", engine.add(*action_of("cp a.c a.o")))
        assert (await engine.end_of("2")).status.code == OK
        assert running.failed() == {}
    assert len(engine.created) >= 2


def break_twice(session: bots.BotSession) -> None:
    session.leases.extend([*session.leases])


def break_name(session: bots.BotSession) -> None:
    if session.leases:
        session.name = "main/other"


def break_state(session: bots.BotSession) -> None:
    for lease in session.leases:
        lease.state = bots.LeaseState.LEASE_STATE_UNSPECIFIED


@pytest.mark.parametrize("edit", [break_twice, break_name, break_state])
async def test_an_engine_that_breaks_the_protocol_keeps_no_guest(
    tmp_path: Path, engine: ScriptedEngine, edit: Callable[[bots.BotSession], None]
) -> None:
    engine.give("1", engine.add(*action_of("sleep 600")))
    async with scripted_bot(tmp_path, engine) as running:
        await running.wait_guests(1)
        engine.edit = edit
        await running.wait_guests(0)
        assert "broke RWAPI" in running.failed()["engine"]


@pytest.mark.parametrize("trouble", ["silent", "unavailable"])
async def test_without_answers_no_guest_is_kept_for_longer_than_allowed(
    tmp_path: Path, engine: ScriptedEngine, trouble: str
) -> None:
    engine.give("1", engine.add(*action_of("sleep 600")))
    async with scripted_bot(tmp_path, engine, call_seconds=0.3, lost_seconds=1.0) as running:
        await running.wait_guests(1)
        if trouble == "silent":
            engine.is_silent = True
        else:
            engine.refuses = grpc.StatusCode.UNAVAILABLE
        await running.wait_guests(0)
        engine.leases.clear()
        engine.is_silent, engine.refuses = False, None
        engine.give("2", engine.add(*action_of("cp a.c a.o")))
        assert (await engine.end_of("2")).status.code == OK


async def test_a_short_silence_ends_nothing(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.give(
        "1",
        engine.add(*action_of("while [ ! -e {} ]; do sleep 0.05; done".format(tmp_path / "go"))),
    )
    async with scripted_bot(tmp_path, engine) as running:
        await running.wait_guests(1)
        engine.refuses = grpc.StatusCode.UNAVAILABLE
        seen = len(engine.updated)
        await until(lambda: len(engine.updated) >= seen + 2)
        (tmp_path / "go").touch()
        engine.refuses = None
        assert (await engine.end_of("1")).status.code == OK
    assert (len(engine.created), running.runtime.booted) == (1, 1)


async def test_more_leases_than_places_and_expired_ones_go_back(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    action = engine.add(*action_of("sleep 0.5"))
    for name in "abc":
        engine.give(name, action)
    old = bots.Lease(id="old", state=bots.LeaseState.ACTIVE)
    old.payload.Pack(pb.Action.FromString(action.data))
    old.expire_time.seconds = 1
    engine.leases = {"old": old, **engine.leases}
    async with scripted_bot(tmp_path, engine, max_guests=2) as running:
        ends = {name: await engine.end_of(name) for name in ("old", "a", "b", "c")}
    codes = {name: lease.status.code for name, lease in ends.items()}
    assert codes["old"] == UNAVAILABLE
    assert "compare the clocks" in ends["old"].status.message
    assert sorted(codes[n] for n in "abc") in (
        [OK, OK, UNAVAILABLE],
        [OK, UNAVAILABLE, UNAVAILABLE],
    )
    assert running.runtime.booted <= 2


async def test_a_lease_that_expires_ends_its_guest(tmp_path: Path, engine: ScriptedEngine) -> None:
    engine.give("1", engine.add(*action_of("sleep 600")))
    # Long enough for a loaded host's guest to be there before.
    engine.leases["1"].expire_time.seconds = int(time.time()) + 12
    async with scripted_bot(tmp_path, engine) as running:
        await running.wait_guests(1)
        lease = await engine.end_of("1")
        await running.wait_guests(0)
    assert (lease.status.code, lease.status.message) == (UNAVAILABLE, "the lease expired")


async def test_an_engine_that_answers_at_once_is_not_called_in_a_loop(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.holds = False
    async with scripted_bot(tmp_path, engine):
        await until(lambda: bool(engine.updated))
        seen = len(engine.updated)
        await asyncio.sleep(2.0)
        assert len(engine.updated) - seen <= 8


async def test_an_engine_that_refuses_every_call_is_not_called_in_a_loop(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.refuses = grpc.StatusCode.PERMISSION_DENIED
    async with scripted_bot(tmp_path, engine) as running:
        await asyncio.sleep(2.0)
        assert 1 <= len(engine.created) <= 4
        assert "engine" in running.failed()


async def test_a_bot_that_ends_says_so_and_a_running_lease_is_finished(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.give("1", engine.add(*action_of("sleep 1; cp a.c a.o")))
    async with scripted_bot(tmp_path, engine) as running:
        await running.wait_guests(1)
    assert engine.ended["1"].status.code == OK
    last = engine.updated[-1]
    assert last.status == bots.BotStatus.BOT_TERMINATING
    assert [lease.state for lease in last.leases] == [bots.LeaseState.COMPLETED]


async def test_what_runs_over_the_time_of_a_stop_goes_to_another_bot(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    engine.give("1", engine.add(*action_of("sleep 600")))
    async with scripted_bot(tmp_path, engine, drain_seconds=0.5) as running:
        await running.wait_guests(1)
    assert engine.ended["1"].status.code == UNAVAILABLE
    (row,) = running.audit.rows
    assert row.cache_status == "abandoned"


async def test_two_actions_share_no_guest_unless_the_operator_says_so(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    for reuse, booted in (("principal", 2), ("tenant", 1)):
        config = bot_config(tmp_path, engine.endpoint, name=reuse, guest_reuse=reuse)
        engine.ended.clear()
        async with asyncio.timeout(60), bot(config) as running:
            for number in range(2):
                engine.give(f"{reuse}{number}", engine.add(*action_of(f"echo {number}")))
                await engine.end_of(f"{reuse}{number}")
        assert running.runtime.booted == booted
        assert {r.reuse for r in running.audit.rows} == {"exec" if booted == 2 else "tenant"}


async def test_a_second_server_is_called_when_the_first_is_gone(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    gone = "grpc://127.0.0.1:1"
    engine.give("1", engine.add(*action_of("cp a.c a.o")))
    config = bot_config(tmp_path, f"{gone},{engine.endpoint}")
    async with asyncio.timeout(60), bot(config):
        assert (await engine.end_of("1")).status.code == OK


async def test_a_replaced_credential_is_used_without_a_new_start(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    file = tmp_path / "engine.json"
    file.touch(mode=0o600)
    file.write_text('{"token": "one"}')
    async with scripted_bot(tmp_path, engine, credentials=str(file)):
        await until(lambda: bool(engine.updated))
        assert engine.tokens == {"Bearer one"}
        file.write_text('{"token": "two"}')
        engine.refuses = grpc.StatusCode.UNAUTHENTICATED
        await until(lambda: "Bearer two" in engine.tokens)
        engine.refuses = None


async def test_a_bot_whose_guests_do_not_start_takes_no_more_leases_for_a_while(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    """It would get each lease of the engine, because it is never busy."""
    action = engine.add(*action_of("cp a.c a.o"))
    async with scripted_bot(tmp_path, engine) as running:
        running.runtime.faults.boot_error = "no KVM"
        engine.give("1", action)
        lease = await engine.end_of("1")
        assert (lease.status.code, lease.status.message) == (UNAVAILABLE, "no KVM")
        (said,) = [u for u in engine.updated if u.leases and u.leases[0].state == 4]
        assert said.status == bots.BotStatus.UNHEALTHY, "with the end itself: engines answer it"
        running.runtime.faults.boot_error = ""
        engine.give("2", action)
        assert (await engine.end_of("2")).status.code == OK
        assert running.runtime.failed_boots == 1


async def test_an_image_that_is_not_prepared_here_is_no_end_for_the_client(
    tmp_path: Path, engine: ScriptedEngine
) -> None:
    """Another worker of the engine may have it."""
    engine.give(
        "1", engine.add(*action_of("true", properties=[("container-image", str(OTHER_IMAGE))]))
    )
    images = [IMAGE.platform_value, OTHER_IMAGE.platform_value]
    digests = (IMAGE.digest.value, OTHER_IMAGE.digest.value)
    async with scripted_bot(tmp_path, engine, images=images, image_digests=digests):
        lease = await engine.end_of("1")
    assert (lease.status.code, lease.status.message) == (UNAVAILABLE, "no such image")
