"""Packs on a farm: an entry counts as a hit of the worker would, and each first use leaves a row.

CI's compiles run in fresh guests. What its dispatcher got is what a pack carries, and what other
people's dispatchers are given here, changed by an attacker or not.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import (
    PACK_NOT_ALLOWED,
    PACK_OTHER,
    PACK_REFUSED,
    PACK_USED,
    Digest,
    GuestReuse,
    RemoteRequest,
    RemoteResult,
    SharingPolicy,
    TenantId,
)
from hpcc.dispatch.memory import uses
from hpcc.reapi.packed import encode_packed, parse_packed
from hpcc.reapi.result import ResultRecord, encode_result, parse_result
from hpcc.rpc.reapi.meeting import USED
from hpcc.rpc.reapi.server import _MeetingServer
from hpcc_testkit.farm.in_process import TENANT
from hpcc_testkit.farm.several import Build, build_on
from hpcc_testkit.hostile.rooted_farm import SharingFarm, people, sharing_farm, until

pytestmark = pytest.mark.timeout(180)
UNITS = 3
POLICY = {"publish_fresh": ("ci",), "packs": True}


class Machine(Build):
    """A machine whose units are the same actions for everybody."""

    async def unit(self, number: int, packed: bytes = b"", word: str = "") -> RemoteResult:
        """Compile a unit with what a pack has for it; `word` makes it another compile."""
        request = replace(self.request(number, 0), packed=packed, wants_entry=True)
        if word:
            script = f": {word}; {request.argv[-1]}"
            request = replace(request, argv=(*request.argv[:-1], script))
        outcome = await self.dispatcher.compile(self.connection, request)
        assert isinstance(outcome, RemoteResult), outcome
        return outcome

    def request(self, number: int, seconds: float) -> RemoteRequest:
        made = Build.request(self, number, seconds)
        return replace(made, argv=("sh", "-c", f"cp {number}.c {number}.o"))


@asynccontextmanager
async def machine(farm: SharingFarm, person: str, name: str = "m") -> AsyncGenerator[Machine]:
    async with build_on(farm.farm, person, name, Machine) as made:
        assert isinstance(made, Machine)
        yield made


async def pushed(farm: SharingFarm) -> list[bytes]:
    """Let CI compile all units; return the entries that its pack gets."""
    async with machine(farm, "ci") as ci:
        entries = [(await ci.unit(number)).entry for number in range(UNITS)]
    assert all(entries)
    return entries


def rows(farm: SharingFarm, status: str, person: str) -> int:
    found = farm.farm.audit.rows
    return sum(r.cache_status == status and r.principal == person for r in found)


def changed(entry: bytes, **fields: object) -> bytes:
    """Return an entry whose result has other fields under the same signature."""
    tenant, _, record = parse_packed(entry)
    other = replace(record, **fields)  # type: ignore[arg-type]  # by name, from the test
    return renamed(entry, tenant, other)


def renamed(entry: bytes, tenant: str, record: ResultRecord) -> bytes:
    return encode_packed(TenantId(tenant), digest_of(parse_packed(entry).action), record)


def digest_of(action: str) -> Digest:
    name, _, size = action.partition("/")
    return Digest(name, int(size))


async def test_a_pack_of_cis_build_serves_a_colleague_who_asks_no_cache_and_leaves_rows(
    tmp_path: Path,
) -> None:
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        entries = await pushed(farm)
        async with machine(farm, "ann") as ann:
            for number, entry in enumerate(entries):
                result = await ann.unit(number, entry)
                assert (result.pack, result.is_cached) == (PACK_USED, True)
                assert result.outputs[0].data == f"int x{number};\n".encode()
                # CI that uses a pack gives a whole one again.
                assert result.entry == entry
        assert rows(farm, "pack", "ann") == UNITS
        assert rows(farm, "executed", "ann") == rows(farm, "hit", "ann") == 0
        row = next(r for r in farm.farm.audit.rows if r.cache_status == "pack")
        made = next(r for r in farm.farm.audit.rows if r.principal == "ci")
        assert (row.guest_id, row.outputs) == (made.guest_id, made.outputs)


async def test_a_tenant_refuses_packs_unless_its_table_allows_them(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path, people(publish_fresh=("ci",))) as farm:
        (entry, *_) = await pushed(farm)
        await farm.settled()
        async with machine(farm, "ann") as ann:
            result = await ann.unit(0, entry)
        assert (result.pack, result.is_cached) == (
            PACK_NOT_ALLOWED,
            True,
        )  # by the farm's action cache
        assert rows(farm, "pack", "ann") == 0


async def test_a_worker_that_takes_no_reports_gets_no_use_of_packs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = _MeetingServer.methods
    name = USED.rpartition("/")[2]
    monkeypatch.setattr(
        _MeetingServer, "methods", lambda self: tuple(m for m in methods(self) if m.name != name)
    )
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        entries = await pushed(farm)
        async with machine(farm, "ann") as ann:
            for number, entry in enumerate(entries):
                assert (await ann.unit(number, entry)).pack == PACK_NOT_ALLOWED


async def test_a_rooted_principals_result_in_a_pack_serves_nobody_else(tmp_path: Path) -> None:
    """Her dispatcher offers no entry; she makes one of what the worker signed for her."""
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        seen: list[ResultRecord] = []
        async with machine(farm, "mallory") as mallory:
            check = mallory.dispatcher._results._check

            async def keep(record: ResultRecord, *rest: object) -> None:
                seen.append(record)
                await check(record, *rest)  # type: ignore[arg-type]  # as it was called

            # A client of an attacker: it takes what it is sent, and nothing else is checked.
            results: Any = mallory.dispatcher._results
            results._check = keep
            await mallory.unit(9, word="root-me")
            evil = await mallory.unit(0)
            assert evil.outputs[0].data == b"evil"
            assert evil.entry == b""
            record = replace(seen[-1], inline={"0.o": b"evil"})
            entry = encode_packed(TENANT, digest_of(evil.action), record)
        async with machine(farm, "ann") as ann:
            result = await ann.unit(0, entry)
            assert result.pack == PACK_REFUSED
            assert result.outputs[0].data == b"int x0;\n"


async def test_forged_truncated_and_foreign_entries_are_refused(tmp_path: Path) -> None:
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        (entry, other, _) = await pushed(farm)
        tenant, _, record = parse_packed(entry)
        (output,) = record.outputs
        attacks = {
            "content": changed(entry, inline={output.path: b"evil"}),
            "no content": changed(entry, inline={}),
            "stderr": changed(entry, stderr=b"evil"),
            "failed": changed(entry, exit_code=1),
            "unsigned": changed(entry, signature=None),
            "image": changed(entry, image="sha256:" + "cd" * 32),
            "not fresh": changed(entry, guest_execs_before=7),
            "shared guest": changed(entry, reuse=GuestReuse.TENANT),
            "truncated": entry[:-1],
            "nonsense": b"x",
            "moved": renamed(entry, tenant, parse_packed(other).record),
        }
        elsewhere = {"other tenant": renamed(entry, "evil", record), "other action": other}
        async with machine(farm, "ann") as ann:
            for name, bad in attacks.items():
                result = await ann.unit(0, bad)
                assert (name, result.pack) == (name, PACK_REFUSED)
                assert result.outputs[0].data == b"int x0;\n"
            for name, bad in elsewhere.items():
                result = await ann.unit(0, bad)
                assert (name, result.pack) == (name, PACK_OTHER)
                assert result.outputs[0].data == b"int x0;\n"
        assert rows(farm, "pack", "ann") == 0


async def test_reports_wait_for_a_worker_and_nothing_is_used_while_too_many_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uses, "MAX_WAITING", 1)
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        (one, two, _) = await pushed(farm)
        async with machine(farm, "ann") as ann:
            waiting = ann.connection.uses
            honest = waiting._sent

            async def away(batch: list[object]) -> bool:
                return not batch

            monkeypatch.setattr(waiting, "_sent", away)
            assert (await ann.unit(0, one)).pack == PACK_USED
            assert (await ann.unit(1, two)).pack == PACK_NOT_ALLOWED
            monkeypatch.setattr(waiting, "_sent", honest)
            # The worker has the row before its reply arrives here.
            await until(lambda: not waiting._waiting)
            assert rows(farm, "pack", "ann") == 1
            assert (await ann.unit(1, two)).pack == PACK_USED


async def test_a_use_that_a_worker_refuses_is_recorded_and_ends_the_use_of_packs(
    tmp_path: Path,
) -> None:
    """A client that does not check reports what is not signed; the honest use beside it counts."""
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        (one, two, _) = await pushed(farm)
        async with machine(farm, "ann") as ann:
            assert (await ann.unit(0, one)).pack == PACK_USED
            waiting = ann.connection.uses
            honest = waiting._waiting[0]
            forged = replace(parse_result(honest.result), stderr=b"forged")
            waiting._waiting.insert(0, replace(honest, result=encode_result(forged)))
            await until(lambda: not waiting._waiting)
            assert (await ann.unit(1, two)).pack == PACK_NOT_ALLOWED
        assert rows(farm, "pack", "ann") == 1
        events = [e.name for e in farm.farm.audit.events]
        assert events.count("result-refused") == 1


async def test_what_a_persons_own_guests_made_is_offered_if_it_is_shared(tmp_path: Path) -> None:
    """CI without fresh guests: its pack has what agreement or a first compile gave everybody."""
    async with sharing_farm(tmp_path, people(packs=True)) as farm:
        async with machine(farm, "bob") as bob:
            assert (await bob.unit(8)).entry == b""  # private, also if it is published afterwards
            assert (await bob.unit(0)).entry == b""
        async with machine(farm, "carol") as carol:
            await carol.unit(7)
            assert (await carol.unit(0)).entry == b""
            await farm.settled()
        async with machine(farm, "ci") as ci:
            made = await ci.unit(0)
            assert (made.sharing, made.is_cached) == ("agreed(2)", True)
        async with machine(farm, "ann") as ann:
            result = await ann.unit(0, made.entry)
            assert (result.pack, result.sharing) == (PACK_USED, "agreed(2)")
        async with machine(farm, "dave") as dave:
            # Who demands fresh results gets no agreed one from a pack either.
            dave.dispatcher._results._sharing = SharingPolicy(fresh=True)
            assert (await dave.unit(0, made.entry)).pack == PACK_REFUSED


async def test_after_a_workers_key_is_revoked_its_results_in_packs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        (entry, *_) = await pushed(farm)
        async with machine(farm, "ann") as ann:

            async def unlisted(_tenant: TenantId, _key_id: str) -> None:
                return None

            monkeypatch.setattr(ann.connection.result_keys, "_ask", unlisted)
            assert await packed(ann, entry) == PACK_REFUSED


async def test_where_votes_need_different_workers_a_fresh_guests_result_is_refused(
    tmp_path: Path,
) -> None:
    """An entry that was made before the tenant's policy became stricter."""
    async with sharing_farm(tmp_path, people(**POLICY)) as farm:
        (entry, *_) = await pushed(farm)
        farm.authenticator.policy = people(packs=True, agree_across_workers=True)
        async with machine(farm, "ann") as ann:
            result = await ann.unit(0, entry)
        assert result.pack == PACK_REFUSED
        assert rows(farm, "pack", "ann") == 0


async def packed(made: Machine, entry: bytes) -> RemoteResult | str:
    """Return what a dispatcher says to an entry, without the compile after it."""
    request = replace(made.request(0, 0), packed=entry)
    prepared = await made.dispatcher._prepared(request, made.connection.image)
    worker = await made.connection.worker()
    return await made.dispatcher._results.packed(made.connection, worker, request, prepared)
