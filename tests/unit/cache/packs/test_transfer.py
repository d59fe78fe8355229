"""Packs between a place and a machine: whole, partial, merged, interrupted."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from hpcc.cache.packs import chunks
from hpcc.cache.packs.chunks import open_record, pack_chunks, row_name
from hpcc.cache.packs.index import index_name, open_index
from hpcc.cache.packs.local import LocalPacks
from hpcc.core import InfrastructureError, NotFoundError
from hpcc.store.objects import MemoryObjects

from .conftest import COMMIT, NAMESPACE, ROOT, Bench, entry, record, trusting

_OTHER: Final = "b" * 40
_MANY: Final = range(60)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks of a few records."""
    monkeypatch.setattr(chunks, "_USUAL_BYTES", 8 << 10)


def found(packs: LocalPacks, bench: Bench, number: int, text: str = "", root: str = ROOT) -> bool:
    """Tell whether a result is in the packs of a root, and counts."""
    name, content = entry(number, text)
    data = packs.find(root, row_name(name, NAMESPACE))
    if data is None:
        return False
    opened = open_record(data, name, NAMESPACE, trusting(bench.ci))
    assert isinstance(opened, tuple), opened
    return opened[1].result == content.result


async def test_what_was_pushed_is_found_after_a_pull(bench: Bench, small_chunks: None) -> None:
    sent = await bench.push(record(n, bench.ci) for n in _MANY)
    got = await bench.pull()
    assert (sent.entries, got.entries) == (60, 60)
    assert got.moved_chunks == sent.moved_chunks == sent.chunks > 5
    packs = bench.packs()
    assert all(found(packs, bench, n) for n in _MANY)
    assert not found(packs, bench, 60)


async def test_equal_builds_give_equal_objects_and_the_second_sends_nothing(
    bench: Bench, small_chunks: None
) -> None:
    await bench.push(record(n, bench.ci) for n in _MANY)
    before = dict(bench.objects.content)
    again = await bench.push(record(n, bench.ci) for n in reversed(_MANY))
    assert again.moved_chunks == 0
    assert bench.objects.content == before
    renewed = await bench.push((record(n, bench.ci) for n in _MANY), sends_all=True)
    assert renewed.moved_chunks == renewed.chunks


async def test_a_small_change_moves_a_small_part(bench: Bench, small_chunks: None) -> None:
    first = await bench.push(record(n, bench.ci) for n in _MANY)
    await bench.pull()
    changed = [record(n, bench.ci, "new" if n == 17 else "") for n in _MANY]
    second = await bench.push([*changed, record(99, bench.ci)], _OTHER)
    # Where chunks end depends on the key, which is another each time.
    assert 1 <= second.moved_chunks <= 4 < first.chunks
    got = await bench.pull(_OTHER)
    assert got.moved_chunks == second.moved_chunks
    packs = bench.packs()
    assert found(packs, bench, 17, "new")
    assert found(packs, bench, 99)


async def test_the_nearest_commit_with_a_pack_is_taken(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)], _OTHER)
    await bench.push([record(2, bench.ci)], "c" * 40)
    got = await bench.pull(COMMIT, _OTHER, "c" * 40)
    assert got.commit == _OTHER
    with pytest.raises(NotFoundError):
        await bench.pull("d" * 40)


async def test_a_chunk_that_is_gone_costs_its_results_only(
    bench: Bench, small_chunks: None
) -> None:
    await bench.push(record(n, bench.ci) for n in _MANY)
    gone = next(key for key in bench.objects.content if "/chunks/" in key)
    del bench.objects.content[gone]
    got = await bench.pull()
    assert got.absent == 1
    packs = bench.packs()
    there = sum(found(packs, bench, n) for n in _MANY)
    assert 0 < there < 60


async def test_two_jobs_of_one_commit_keep_both_results(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)])
    report = await bench.push([record(2, bench.ci)])
    assert report.entries == 2
    await bench.pull()
    packs = bench.packs()
    assert found(packs, bench, 1)
    assert found(packs, bench, 2)


async def test_two_pushers_at_once_lose_nothing(bench: Bench) -> None:
    """The other one's index replaces this one's between its upload and its last look."""
    rival = Bench(bench.directory / "rival", bench.ci, bench.stranger, MemoryObjects())
    name = index_name(NAMESPACE, COMMIT)

    class Racing(MemoryObjects):
        was_raced = False

        async def put(self, key: str, data: bytes) -> None:
            await super().put(key, data)
            if key == name and not self.was_raced:
                self.was_raced = True
                self.content |= rival.objects.content

    await rival.push([record(2, bench.ci)])
    bench.objects = Racing()
    await bench.push([record(1, bench.ci)])
    await bench.pull()
    packs = bench.packs()
    assert found(packs, bench, 1)
    assert found(packs, bench, 2)


async def test_a_pack_of_another_checkout_is_not_looked_into(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)])
    await bench.pull()
    assert not found(bench.packs(), bench, 1, root="f" * 32)


async def test_a_pull_in_another_process_is_noticed(bench: Bench) -> None:
    running = bench.packs()
    assert not found(running, bench, 1)
    await bench.push([record(1, bench.ci)])
    await bench.pull()
    assert found(running, bench, 1)
    assert running.size_bytes == bench.packs().size_bytes > 0


async def test_one_pull_at_a_time(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)])
    with bench.packs().pulling(), pytest.raises(InfrastructureError, match="another pull"):
        await bench.pull()


async def test_a_damaged_chunk_on_the_disk_is_refused_at_its_use(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)])
    await bench.pull()
    (path,) = (bench.directory / "packs/chunks").iterdir()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    name, _ = entry(1)
    stored = bench.packs().find(ROOT, row_name(name, NAMESPACE))
    assert stored is not None
    assert open_record(stored, name, NAMESPACE, trusting(bench.ci)) == "signature"
    path.write_bytes(data[:100])
    assert bench.packs().find(ROOT, row_name(name, NAMESPACE)) is None


async def test_old_packs_go_before_new_ones_and_a_pack_in_use_stays(bench: Bench) -> None:
    for number, commit in enumerate(("1" * 40, "2" * 40)):
        bench.at = 1000.0 + number
        await bench.push([record(number, bench.ci)], commit)
        await bench.pull(commit, root=str(number) * 32)
        (path,) = (bench.directory / f"packs/roots/{str(number) * 32}").glob("*.pack")
        os.utime(path, (bench.at, bench.at))
    packs = bench.packs()
    one = packs.size_bytes // 2
    packs.give_way(1)
    assert packs.size_bytes == 2 * one  # both were used a moment ago
    bench.at += 3600
    packs.give_way(1)
    assert not found(packs, bench, 0, root="0" * 32)
    assert found(packs, bench, 1, root="1" * 32)
    assert packs.size_bytes == one
    packs.give_way(1)
    assert packs.size_bytes == one  # the look-up was a use
    packs.clear()
    assert packs.size_bytes == 0


async def test_packs_of_all_checkouts_use_a_quarter_of_the_cache(bench: Bench) -> None:
    sizes = []
    for number in range(6):
        await bench.push([record(number, bench.ci)], f"{number}" * 40)
        bench.max_cache_bytes = max(bench.max_cache_bytes if not sizes else sizes[0] * 12, 1)
        await bench.pull(f"{number}" * 40, root=f"{number}" * 32)
        sizes.append(bench.packs().size_bytes)
    assert max(sizes) <= 3 * sizes[0] + 8
    assert found(bench.packs(), bench, 5, root="5" * 32)


def test_chunks_end_where_records_say(bench: Bench, small_chunks: None) -> None:
    """Another record in front moves no end behind it."""
    records = [record(n, bench.ci) for n in _MANY]
    before = {chunk.digest for chunk, _ in pack_chunks(records)}
    after = {chunk.digest for chunk, _ in pack_chunks([*records, record(1000, bench.ci)])}
    assert len(after - before) <= 2


_KILLED: Final = """
import asyncio, os, signal, sys
from pathlib import Path
from hpcc.cache.packs.local import LocalPacks
from hpcc.cache.packs.transfer import Team, pull
from hpcc.store.bucket.directory import DirectoryObjects
from hpcc.identity.cache_keys import parse_cache_key

place, packs, line, root, commit = sys.argv[1:]
key = parse_cache_key(line)

class Killed(DirectoryObjects):
    gets = 0
    async def get(self, name, limit):
        self.gets += 1
        if self.gets == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().get(name, limit)

async def main():
    local = LocalPacks(Path(packs), max_cache_bytes=1 << 30, now=lambda: 0.0)
    team = Team("team", lambda kid: key)
    with local.pulling():
        await pull(Killed(Path(place), max_calls=16), team, local, root, [commit], lambda n: None)

asyncio.run(main())
"""


async def test_a_pull_that_is_killed_leaves_what_the_next_one_uses(
    bench: Bench, small_chunks: None, tmp_path: Path
) -> None:
    sent = await bench.push(record(n, bench.ci) for n in _MANY)
    for name, data in bench.objects.content.items():
        path = tmp_path / "place" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    args = [str(tmp_path / "place"), str(tmp_path / "packs"), bench.ci.key.line, ROOT, COMMIT]
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", _KILLED, *args], capture_output=True, check=False
    )
    assert done.returncode == -9, done.stderr.decode()
    assert not any(found(bench.packs(), bench, n) for n in _MANY)
    left = list((tmp_path / "packs/chunks").glob("[!.]*"))
    got = await bench.pull()
    assert got.moved_chunks == sent.chunks - len(left)
    packs = bench.packs()
    assert all(found(packs, bench, n) for n in _MANY)
    assert {p.name for p in (tmp_path / "packs/chunks").iterdir()} == {
        chunk.digest.hex() for pack in packs.packs(ROOT) for chunk in pack.index.chunks
    }


@pytest.mark.parametrize("puts", [1, 3])
async def test_a_push_that_ends_halfway_leaves_the_older_pack(
    bench: Bench, small_chunks: None, puts: int
) -> None:
    await bench.push([record(1, bench.ci)])

    class Ending(MemoryObjects):
        count = 0

        async def put(self, key: str, data: bytes) -> None:
            self.count += 1
            if self.count > puts:
                raise InfrastructureError("killed", reason="store-away")
            await super().put(key, data)

    ending = Ending()
    ending.content = bench.objects.content
    bench.objects = ending
    with pytest.raises(InfrastructureError):
        await bench.push(record(n, bench.ci) for n in _MANY)
    data = bench.objects.content[index_name(NAMESPACE, COMMIT)]
    index = open_index(data, COMMIT, NAMESPACE, trusting(bench.ci), 1 << 30)[1]
    assert index.entries == 1
    await bench.pull()
    assert found(bench.packs(), bench, 1)


async def test_an_object_of_zeros_is_left_out_and_the_others_are_not(bench: Bench) -> None:
    name, content = entry(7)
    zeros = content._replace(result=content.result._replace(object_data=bytes(8 << 20)))
    data = chunks.signed_record(name, NAMESPACE, zeros.encode(), bench.ci)
    odd = chunks.PackRecord(row_name(name, NAMESPACE), (name.share_key, name.source), lambda: data)
    report = await bench.push([odd, record(1, bench.ci), record(2, bench.ci)])
    assert report.entries == 2
    await bench.pull()
    assert found(bench.packs(), bench, 2)
