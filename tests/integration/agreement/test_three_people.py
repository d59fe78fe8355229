"""Ann, Bob, Carol and CI build the same: who gets whose result, and who never does."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest
from buildgrid.common.protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as pb

from hpcc.core import PRIVATE_ONLY, Digest, SharingPolicy
from hpcc.store.disk_actions import sharing_directory
from hpcc.worker.execute import session
from hpcc_testkit.farm.actions import made_action, run_script
from hpcc_testkit.farm.in_process import TENANT
from hpcc_testkit.hostile.rooted_farm import (
    EVIL,
    GOOD,
    LABEL,
    SCRIPT,
    SharingFarm,
    people,
    scheduling,
    sharing_farm,
    until,
)

ACTION = made_action("cp a.c a.o")[-1].digest


async def all_warm(farm: SharingFarm, *names: str) -> None:
    for name in names:
        await farm.warm(name)
    await farm.settled()


async def test_after_anns_and_bobs_equal_executions_carol_hits(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        await all_warm(farm, "ann", "bob", "carol")
        assert await farm.build("ann") == (GOOD, False)
        assert await farm.build("bob") == (GOOD, False)
        await farm.settled()
        assert await farm.build("carol") == (GOOD, True)
        assert farm.labels() == ["agreed(2)"]
        # Carol's row names an execution and guest that are not hers.
        assert farm.farm.audit.rows[-1].principal == "carol"
        assert farm.farm.audit.rows[-1].guest_execs_before > 0


async def test_the_first_execution_of_a_guest_serves_at_once(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        assert await farm.build("ann") == (GOOD, False)
        await farm.settled()
        assert await farm.build("bob") == (GOOD, True)
        assert farm.labels("executed") == ["fresh"]
        assert farm.labels() == ["fresh"]


async def test_what_a_rooted_guest_gives_serves_nobody_else(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        await all_warm(farm, "bob", "carol", "dave")
        await farm.root("ann")
        assert await farm.build("ann") == (EVIL, False)
        await farm.settled()
        assert await farm.build("bob") == (GOOD, False)
        await farm.settled()
        assert await farm.build("carol") == (GOOD, False)
        await farm.settled()
        # Others agree without her. She keeps what her own guest made.
        assert await farm.build("dave") == (GOOD, True)
        assert await farm.build("ann") == (EVIL, True)
        assert farm.labels() == ["agreed(2)", ""]


async def test_the_rooting_compile_itself_is_fresh_and_what_follows_is_not(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        await farm.root("ann")
        assert await farm.build("ann") == (EVIL, False)
        await farm.settled()
        assert farm.labels("executed") == ["fresh", ""]
        assert await farm.build("bob") == (GOOD, False)


async def test_two_guests_of_one_principal_do_not_agree_with_each_other(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        for number in range(2):
            await farm.root("ann", f"root-me {number}")
            assert await farm.build("ann") == (EVIL, False)
            await farm.settled()
            farm.farm.runtime.running[0].kill()
            await until(lambda: not farm.farm.runtime.running)
            # Her cache forgets, so that another guest of hers makes it again.
            for entry in (farm.farm.directory / "worker/store").rglob("ac/*/principal/*/??/*"):
                entry.unlink()
        assert await farm.build("bob") == (GOOD, False)
        assert len({r.guest_id for r in farm.farm.audit.rows if r.principal == "ann"}) == 2


async def test_cis_fresh_result_serves_at_once(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path, people(publish_fresh=("ci-*",))) as farm:
        await all_warm(farm, "ann")
        assert await farm.build("ci-main", ": other; cp a.c a.o") == (GOOD, False)
        assert await farm.build("ci-main") == (GOOD, False)
        await farm.settled()
        assert await farm.build("ann") == (GOOD, True)
        rows = [r for r in farm.farm.audit.rows if r.principal == "ci-main"]
        assert [(r.reuse, r.guest_execs_before, r.sharing) for r in rows] == [
            ("exec", 0, "fresh"),
            ("exec", 0, "fresh"),
        ]


async def test_machines_are_one_voter_together(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path, people(machines=("bot-*",))) as farm:
        await all_warm(farm, "bot-1", "bot-2", "ann")
        await farm.build("bot-1")
        await farm.build("bot-2")
        await farm.settled()
        assert await farm.build("ann") == (GOOD, False)
        await farm.settled()
        assert await farm.build("bob", sharing=SharingPolicy(agree=2)) == (GOOD, True)


async def test_a_tenant_that_shares_nothing_behaves_as_before(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path, people(share="private")) as farm:
        for name in ("ann", "bob", "carol"):
            assert await farm.build(name) == (GOOD, False)
        assert farm.labels("executed") == ["", "", ""]
        for kind in ("shared", "claims"):
            store = farm.farm.directory / "worker/store"
            assert not sharing_directory(store, TENANT, LABEL, kind).exists()


async def test_a_client_may_demand_more_than_the_tenant_grants_and_never_less(
    tmp_path: Path,
) -> None:
    async with sharing_farm(tmp_path, people(share="fresh")) as farm:
        await farm.build("ann")
        await farm.settled()
        assert await farm.build("bob", sharing=PRIVATE_ONLY) == (GOOD, False)
        assert await farm.build("carol", sharing=SharingPolicy(agree=2)) == (GOOD, False)
        assert await farm.build("dave") == (GOOD, True)
        assert farm.farm.audit.names() == []


async def test_a_demand_that_a_result_does_not_meet_is_a_miss_and_no_security_event(
    tmp_path: Path,
) -> None:
    async with sharing_farm(tmp_path) as farm:
        await farm.build("ann")
        await farm.settled()
        assert await farm.build("bob", sharing=SharingPolicy(agree=2)) == (GOOD, False)
        assert farm.farm.audit.names() == []


async def test_three_who_disagree_are_settled_by_a_fresh_execution(tmp_path: Path) -> None:
    script = "echo $$-$RANDOM-`cat /proc/sys/kernel/random/uuid` > a.o"
    async with sharing_farm(tmp_path) as farm:
        names = ("ann", "bob", "carol", "dave", "erin")
        await all_warm(farm, *names)
        for name in names[:3]:
            assert not (await farm.build(name, script))[1]
            await farm.settled()
        settling, is_hit = await farm.build("dave", script)
        assert not is_hit
        await farm.settled()
        assert await farm.build("erin", script) == (settling, True)
        assert farm.labels() == ["fresh"]


async def test_a_first_execution_beside_another_one_is_private(tmp_path: Path) -> None:
    scripts = [f": {n}; sleep 1; cp a.c a.o" for n in range(2)]
    async with sharing_farm(tmp_path) as farm, farm.person("ann") as client:
        async with asyncio.TaskGroup() as group:
            for script in scripts:
                group.create_task(run_script(client, script))
        assert len({r.guest_id for r in farm.farm.audit.rows}) == 1
        assert farm.labels("executed") == ["", ""]
        await farm.settled()
        assert not (await farm.build("bob", scripts[0]))[1]


async def test_a_private_entry_in_the_shared_place_is_a_miss_and_an_event(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path) as farm:
        await farm.root("ann")
        assert await farm.build("ann") == (EVIL, False)
        await farm.settled()
        store = farm.farm.directory / "worker/store"
        (own,) = (f for f in store.rglob("ac/*/principal/*/??/*") if ACTION.hash in f.name)
        shared = sharing_directory(store, TENANT, LABEL, "shared") / own.parent.name / own.name
        shared.parent.mkdir(parents=True, exist_ok=True)
        shared.write_bytes(own.read_bytes())
        farm.farm.audit.events.clear()
        assert await farm.build("bob") == (GOOD, False)
        events = [(e.name, dict(e.fields)["reason"]) for e in farm.farm.audit.events]
        assert events == [("result-refused", "result-class")]


async def test_a_private_result_that_was_made_past_the_cache_never_touches_the_shared_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing_farm(tmp_path) as farm:
        assert await farm.build("ann") == (GOOD, False)
        await farm.settled()
        await farm.root("mallory")
        async with farm.person("mallory") as client:
            usual = client._execute_request

            def past(action: Digest, inline: Sequence[str]) -> pb.ExecuteRequest:
                request = usual(action, inline)
                request.skip_cache_lookup = True
                return request

            monkeypatch.setattr(client, "_execute_request", past)
            assert await run_script(client, SCRIPT) == (EVIL, False)
        await farm.settled()
        assert await farm.build("bob") == (GOOD, True)
        assert farm.labels() == ["fresh"]


async def test_claims_outlive_a_worker_that_stops_between_two_people(tmp_path: Path) -> None:
    async with scheduling(tmp_path) as farm:
        async with farm.farm.serving():
            await all_warm(farm, "ann")
            await farm.build("ann")
            await farm.settled()
        async with farm.farm.serving():
            await all_warm(farm, "bob", "carol")
            assert await farm.build("bob") == (GOOD, False)
            await farm.settled()
            assert await farm.build("carol") == (GOOD, True)
            assert farm.labels() == ["agreed(2)"]


async def test_a_third_person_waits_for_two_who_make_the_same(tmp_path: Path) -> None:
    script, names = "sleep 1; cp a.c a.o", ("ann", "bob", "carol", "dave")
    async with sharing_farm(tmp_path) as farm:
        await all_warm(farm, *names)
        farm.farm.audit.rows.clear()
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(farm.build(name, script)) for name in names]
        assert sorted(m.result()[1] for m in made) == [False, False, True, True]
        assert farm.labels() == ["agreed(2)"] * 2


async def test_no_more_than_have_to_agree_execute_an_action_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # No delay of a busy machine ends the wait.
    monkeypatch.setattr(session, "_WAIT_SECONDS", 300.0)
    script, names = "sleep 0.3; cat /proc/sys/kernel/random/uuid > a.o", "abcdef"
    async with sharing_farm(tmp_path) as farm:
        await all_warm(farm, *names)
        farm.farm.audit.rows.clear()
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(farm.build(name, script))
        rows = [r for r in farm.farm.audit.rows if r.cache_status == "executed"]
        begins = [(r.started_at, 1) for r in rows]
        ends = [(r.started_at + r.duration_seconds, -1) for r in rows]
        steps = itertools.accumulate(step for _, step in sorted(begins + ends))
        assert len(rows) > 2
        assert max(steps) == 2


async def test_who_waited_in_vain_executes(tmp_path: Path) -> None:
    script = "sleep 0.5; cat /proc/sys/kernel/random/uuid > a.o"
    async with sharing_farm(tmp_path) as farm:
        await all_warm(farm, "ann", "bob", "carol")
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(farm.build(n, script)) for n in ("ann", "bob", "carol")]
        assert [m.result()[1] for m in made] == [False] * 3
        assert len({m.result()[0] for m in made}) == 3


async def test_the_third_developer_hits_all_and_one_execution_more_of_each_was_made(
    tmp_path: Path,
) -> None:
    scripts = [f": unit {n}; cp a.c a.o" for n in range(12)]
    async with sharing_farm(tmp_path) as farm:
        await all_warm(farm, "ann", "bob", "carol")
        farm.farm.audit.rows.clear()
        hits = []
        for name in ("ann", "bob", "carol"):
            async with farm.person(name) as client:
                hits.append([(await run_script(client, script))[1] for script in scripts])
            await farm.settled()
        assert hits == [[False] * 12, [False] * 12, [True] * 12]
        executed = [r.action_digest for r in farm.farm.audit.rows if r.cache_status == "executed"]
        assert len(executed) == 2 * len(set(executed)) == 24


async def test_after_cis_build_a_developer_hits_all(tmp_path: Path) -> None:
    scripts = [f": unit {n}; cp a.c a.o" for n in range(12)]
    async with sharing_farm(tmp_path, people(publish_fresh=("ci",))) as farm:
        for name, is_hit in (("ci", False), ("ann", True)):
            async with farm.person(name) as client:
                found = [(await run_script(client, script))[1] for script in scripts]
            await farm.settled()
            assert found == [is_hit] * 12
