"""Moves packs between a place and this machine: pull the nearest one, push what is missing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hpcc.cache.packs.chunks import PackRecord, pack_chunks, unpack_chunk
from hpcc.cache.packs.index import (
    MAX_CHUNKS,
    MAX_INDEX_OBJECT_BYTES,
    MAX_ROWS,
    Chunk,
    PackError,
    PackIndex,
    index_name,
    open_index,
    sign_index,
)
from hpcc.cache.packs.local import LocalPacks
from hpcc.cache.signed.entry import Judge
from hpcc.core import IntegrityError, NotFoundError
from hpcc.core.reasons.remote_cache import RefusedPack
from hpcc.identity.cache_keys import SigningKey
from hpcc.store.objects import Objects

# The client sends 32 requests at once. Compiles need some of them meanwhile.
_AT_ONCE: Final = 12
# Of packs that others may have put where the nearest ones should be.
_MAX_REFUSED: Final = 4
_MAX_MERGES: Final = 4
# Between the upload of an index and the look whether it is still there. Another job that read the
# old one before has uploaded its own by then.
SETTLE_SECONDS: Final = 2.0
# What a pack unpacks to at most. A reader's limit is usually lower: a quarter of the cache.
MAX_PACK_BYTES: Final = 4 << 30


class Team(NamedTuple):
    """Where packs are and whose count. One request may take `seconds`."""

    namespace: str
    judge: Judge
    seconds: float = 60.0


@dataclass(slots=True)
class Transfer:
    """What a pull or push did. `absent` are chunks that the place does not have."""

    commit: str = ""
    entries: int = 0
    chunks: int = 0
    moved_chunks: int = 0
    moved_bytes: int = 0
    raw_bytes: int = 0
    requests: int = 0
    absent: int = 0
    refused: list[RefusedPack] = field(default_factory=list)


class _Calls:
    """Requests of one transfer: limited in time, counted."""

    def __init__(self, objects: Objects, team: Team, report: Transfer) -> None:
        self._objects, self._team, self._report = objects, team, report

    async def get(self, name: str, limit: int) -> bytes:
        self._report.requests += 1
        async with self._limit():
            return await self._objects.get(name, limit)

    async def put(self, name: str, data: bytes) -> None:
        self._report.requests += 1
        async with self._limit():
            await self._objects.put(name, data)

    async def has(self, name: str) -> bool:
        self._report.requests += 1
        async with self._limit():
            return await self._objects.has(name)

    def _limit(self) -> asyncio.Timeout:
        return asyncio.timeout(self._team.seconds)


async def commits_with_packs(
    objects: Objects, team: Team, commits: Sequence[str], report: Transfer, most: int
) -> list[str]:
    """Return those of the commits for which the place claims to have a pack, in their order."""
    calls, found = _Calls(objects, team, report), []
    for start in range(0, len(commits), _AT_ONCE):
        batch, there = commits[start : start + _AT_ONCE], set[str]()

        async def ask(commit: str, there: set[str] = there) -> None:
            if await calls.has(index_name(team.namespace, commit)):
                there.add(commit)

        await _each(batch, ask)
        found += [commit for commit in batch if commit in there]
        if len(found) >= most:
            break
    return found[:most]


async def pull(
    objects: Objects,
    team: Team,
    packs: LocalPacks,
    root: str,
    commits: Sequence[str],
    make_room: Callable[[int], None],
) -> Transfer:
    """Fetch the pack of the first of the commits that has one, and make it usable by a root.

    The caller holds `LocalPacks.pulling`. `make_room` frees that many bytes of the cache.

    Raises:
        PackError: a pack or a chunk was refused; nothing of it is used.
        NotFoundError: no commit has a pack.
        InfrastructureError, TimeoutError, OSError: the place or the disk does not work.
    """
    report = Transfer()
    calls = _Calls(objects, team, report)
    names = await commits_with_packs(objects, team, commits, report, _MAX_REFUSED)
    data, index = await _first_index(calls, team, names, report, packs.max_bytes)
    report.commit, report.entries = index.commit, index.entries
    report.chunks, report.raw_bytes = len(index.chunks), index.raw_bytes
    await asyncio.to_thread(lambda: make_room(packs.make_room(index)))

    async def fetch(chunk: Chunk) -> None:
        try:
            packed = await calls.get(chunk.object_name(team.namespace), chunk.packed_bytes)
        except NotFoundError:
            report.absent += 1
            return
        except IntegrityError as error:
            raise PackError(RefusedPack.CHUNK) from error
        raw = await asyncio.to_thread(unpack_chunk, chunk, packed)
        await asyncio.to_thread(packs.put_chunk, chunk, raw)
        report.moved_chunks += 1
        report.moved_bytes += len(packed)

    missing = [chunk for chunk in index.chunks if not packs.has_chunk(chunk)]
    await _each(missing, fetch)
    await asyncio.to_thread(packs.put_pack, root, index, data)
    return report


async def _first_index(
    calls: _Calls, team: Team, commits: Sequence[str], report: Transfer, max_raw_bytes: int
) -> tuple[bytes, PackIndex]:
    refusal: PackError | None = None
    for commit in commits:
        try:
            data = await calls.get(index_name(team.namespace, commit), MAX_INDEX_OBJECT_BYTES)
            return data, open_index(data, commit, team.namespace, team.judge, max_raw_bytes)[1]
        except NotFoundError:
            continue
        except PackError as error:
            refusal = error
        except IntegrityError:
            refusal = PackError(RefusedPack.TOO_LARGE, " (its index)")
        # An older commit's pack is better than none.
        report.refused.append(refusal.refusal)
    raise refusal or NotFoundError("none of these commits has a pack", reason="no-pack")


async def push(
    objects: Objects,
    team: Team,
    signing: SigningKey,
    commit: str,
    records: Iterable[PackRecord],
    *,
    sends_all: bool,
) -> Transfer:
    """Upload the chunks that the place lacks, then the index of a commit.

    What other jobs pushed for the same commit stays in it. `sends_all` also uploads chunks that
    the place has, so that they are as new as the pack.

    Raises:
        InfrastructureError, TimeoutError: the place does not work; an older pack is unchanged.
    """
    report = Transfer(commit=commit)
    calls = _Calls(objects, team, report)
    chunks: list[Chunk] = []

    async def send(made: tuple[Chunk, bytes]) -> None:
        chunk, packed = made
        name = chunk.object_name(team.namespace)
        if sends_all or not await calls.has(name):
            await calls.put(name, packed)
            report.moved_chunks += 1
            report.moved_bytes += len(packed)
        chunks.append(chunk)

    await _each(pack_chunks(records), send)
    if not chunks:
        raise NotFoundError("no result of this run is here any more", reason="no-pack")
    # Uploads end in any order, and equal builds must give equal indexes.
    own = sorted(chunks, key=lambda chunk: chunk.digest)
    name = index_name(team.namespace, commit)
    for _ in range(_MAX_MERGES):
        there = b""
        with suppress(NotFoundError, IntegrityError):
            there = await calls.get(name, MAX_INDEX_OBJECT_BYTES)
        others = _others(there, commit, team)
        index = PackIndex(commit, _merged(own, others))
        report.entries, report.chunks = index.entries, len(index.chunks)
        report.raw_bytes = index.raw_bytes
        # Of two jobs at once, the one whose index was replaced writes both. No service has to know
        # conditional writes for that.
        if {*index.chunks} <= {*others}:
            break
        await calls.put(name, sign_index(index, team.namespace, signing))
        await asyncio.sleep(SETTLE_SECONDS)
    return report


def _others(data: bytes, commit: str, team: Team) -> tuple[Chunk, ...]:
    try:
        index = open_index(data, commit, team.namespace, team.judge, MAX_PACK_BYTES)[1]
    except PackError:
        return ()
    return index.chunks


def _merged(own: Sequence[Chunk], others: Sequence[Chunk]) -> tuple[Chunk, ...]:
    """Return both without chunks that add no record, within the limits of an index."""
    found: list[Chunk] = []
    names, rows, size = set[bytes](), 0, 0
    for chunk in (*own, *others):
        its = {row.name for row in chunk.rows}
        is_full = len(found) >= MAX_CHUNKS or rows + len(chunk.rows) > MAX_ROWS
        if its <= names or is_full or size + chunk.raw_bytes > MAX_PACK_BYTES:
            continue
        found.append(chunk)
        names |= its
        rows += len(chunk.rows)
        size += chunk.raw_bytes
    return tuple(found)


async def _each[T](items: Iterable[T], call: Callable[[T], Awaitable[None]]) -> None:
    """Call for each item, some at once; the first error ends all. Items are made in a thread."""
    source = iter(items)
    turn = asyncio.Lock()

    async def work() -> None:
        while True:
            async with turn:
                item = await asyncio.to_thread(next, source, None)
            if item is None:
                return
            await call(item)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(work())
    except* Exception as errors:  # noqa: BLE001 - raised again, without the group
        raise _first(errors) from None


def _first(errors: ExceptionGroup[Exception]) -> Exception:
    first = errors.exceptions[0]
    return _first(first) if isinstance(first, ExceptionGroup) else first
