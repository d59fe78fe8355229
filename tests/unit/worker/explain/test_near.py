"""Which action is nearest, and what a difference reveals."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.cache.signed.outline import OutlineDifference
from hpcc.core import (
    Blob,
    Digest,
    GuestReuse,
    ImageDigest,
    InputFile,
    Isolation,
    NotFoundError,
)
from hpcc.reapi.action import ActionSpec
from hpcc.reapi.command import CommandSpec
from hpcc.reapi.result import ResultRecord
from hpcc.reapi.tree import build_tree
from hpcc.store.memory import MemoryBlobStore
from hpcc.worker.explain.near import OwnAction, find_nearest, name_of
from hpcc.worker.stores.near_actions import MAX_NEAR, NearActions, is_near, noted

IMAGE = ImageDigest("sha256:" + "ab" * 32)
OTHER_IMAGE = ImageDigest("sha256:" + "cd" * 32)
ARGV = ("/usr/bin/gcc", "-O2", "-DTOKEN=secret", "-c", "src/a.c", "-o", "a.o")


class Actions:
    """An `ActionCache` in memory."""

    def __init__(self) -> None:
        self.records: dict[Digest, bytes] = {}

    async def get(self, action: Digest) -> bytes:
        if action not in self.records:
            raise NotFoundError("none")
        return self.records[action]

    async def put(self, action: Digest, record: bytes) -> None:
        self.records[action] = record


class World:
    """A tenant's store with actions, of which some are shared."""

    def __init__(self) -> None:
        self.blobs, self.cache, self.near = MemoryBlobStore(), Actions(), NearActions()
        self.actions: dict[Digest, OwnAction] = {}
        self.shared: dict[Digest, ResultRecord] = {}

    async def add(
        self,
        name: str,
        files: dict[str, bytes],
        argv: tuple[str, ...] = ARGV,
        *,
        is_shared: bool = True,
        is_noted: bool = True,
        at: float = 1000.0,
    ) -> Digest:
        tree = build_tree(InputFile(n, Digest.of(data)) for n, data in files.items())
        for data in tree.directories.values():
            await self.blobs.put(Blob.of(data))
        command = CommandSpec(
            argv=argv, env=(("PATH", "/bin"),), cwd="", outputs=("a.o",), image=None
        )
        action = ActionSpec(command=Digest.of(b"c"), input_root=tree.root, image=None, salt=b"s")
        digest = Digest.of(name.encode())
        self.actions[digest] = OwnAction(action, command)
        if is_shared:
            self.shared[digest] = record(at)
        if is_noted and (key := name_of(command, IMAGE)) is not None:
            await self.near.note("acme", self.cache, key, digest)
        return digest

    async def nearest(self, own: Digest) -> OutlineDifference | None:
        async def shared(digest: Digest) -> ResultRecord:
            if digest not in self.shared:
                raise NotFoundError("not for this caller")
            return self.shared[digest]

        async def read(digest: Digest) -> OwnAction:
            return self.actions[digest]

        found = await find_nearest(
            (own, self.actions[own]), IMAGE, self.cache, self.blobs, shared=shared, read=read
        )
        return None if found is None else found[0]


def record(at: float) -> ResultRecord:
    return ResultRecord(
        exit_code=0, stdout=b"", stderr=b"", outputs=(), isolation=Isolation.QEMU_KVM,
        reuse=GuestReuse.EXEC, guest_id="g", guest_execs_before=0, worker="w", image="i",
        completed_at=at,
    )  # fmt: skip


FILES = {"src/a.c": b"a", "config.h": b"1", "same.h": b"s"}


async def test_the_nearest_of_the_shared_actions_is_compared() -> None:
    world = World()
    await world.add("far", FILES | {"config.h": b"2", "same.h": b"t", "src/a.c": b"b"})
    await world.add("near", FILES | {"config.h": b"2", "theirs.h": b"x"})
    own = await world.add("own", FILES | {"mine.h": b"m"}, is_shared=False, is_noted=False)
    found = await world.nearest(own)
    assert found is not None
    assert (found.paths, found.flags, found.equal) == (("config.h",), (), 2)
    assert (found.only_here, found.only_there) == (1, 1)
    assert not any((found.is_other_compiler, found.is_other_directory, found.is_other_environment))
    # The name of a file that only the other side has is in nothing.
    assert "theirs.h" not in repr(found)


async def test_a_value_of_a_flag_is_in_nothing_that_is_told() -> None:
    world = World()
    theirs = tuple(word.replace("secret", "theirs") for word in ARGV)
    await world.add("there", FILES, theirs)
    found = await world.nearest(await world.add("own", FILES, is_noted=False))
    assert found is not None
    assert found.flags == ("-D",)
    assert "theirs" not in repr(found)


async def test_an_action_counts_only_if_its_result_serves_the_caller() -> None:
    world = World()
    await world.add("private", FILES | {"config.h": b"2"}, is_shared=False)
    own = await world.add("own", FILES, is_noted=False)
    assert await world.nearest(own) is None


async def test_a_list_that_somebody_forged_names_no_action_of_another_source() -> None:
    world = World()
    other = await world.add("other", FILES, tuple(w.replace("a.c", "b.c") for w in ARGV))
    own = await world.add("own", FILES, is_noted=False)
    name = name_of(world.actions[own].command, IMAGE)
    assert name is not None
    await world.near.note("acme", world.cache, name, other)
    assert await world.nearest(own) is None


async def test_a_tree_that_is_gone_or_too_large_is_compared_with_nothing() -> None:
    world = World()
    many = FILES | {f"h{n}.h": b"" for n in range(4096)}
    await world.add("large", many)
    gone = await world.add("gone", FILES | {"config.h": b"gone"})
    spec = world.actions[gone].action
    lost = replace(spec, input_root=Digest.of(b"nothing here"))
    world.actions[gone] = world.actions[gone]._replace(action=lost)
    own = await world.add("own", FILES, is_noted=False)
    assert await world.nearest(own) is None
    with pytest.raises(NotFoundError):
        await world.nearest(gone)


def command(*argv: str, cwd: str = "") -> CommandSpec:
    return CommandSpec(argv=argv, env=(), cwd=cwd, outputs=("a.o",), image=None)


def test_a_name_is_of_source_compiler_and_image() -> None:
    name = name_of(command(*ARGV), IMAGE)
    assert name is not None
    assert name == name_of(command("gcc", "-O3", "-c", "../src/a.c", "-o", "b.o", cwd="x"), IMAGE)
    assert name != name_of(command(*ARGV), OTHER_IMAGE)
    assert name != name_of(command("g++", "-c", "src/a.c", "-o", "a.o"), IMAGE)
    assert name != name_of(command("gcc", "-c", "src/b.c", "-o", "a.o"), IMAGE)
    assert name_of(command("sh", "-c", "cp a.c a.o"), IMAGE) is None


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1))
def test_any_command_has_a_name_or_none(argv: list[str]) -> None:
    for first in ("gcc", "cl.exe", "clang-cl", argv[0] or "x"):
        name = name_of(command(first, *argv[1:]), IMAGE)
        assert name is None or len(name) == 32


async def test_a_list_has_the_newest_actions_each_once() -> None:
    cache, near = Actions(), NearActions()
    digests = [Digest.of(bytes([n])) for n in range(MAX_NEAR + 2)]
    for digest in (*digests, digests[-2]):
        await near.note("acme", cache, b"n" * 32, digest)
    expected = (digests[-2], digests[-1], *digests[-3:1:-1])[:MAX_NEAR]
    assert await noted(cache, b"n" * 32) == expected
    assert all(map(is_near, cache.records.values()))
    # Another tenant's list of the same name does not continue this one.
    await near.note("other", cache, b"n" * 32, digests[0])
    assert await noted(cache, b"n" * 32) == (digests[0],)


@given(st.binary(max_size=200))
async def test_any_bytes_in_the_store_are_a_list_of_few_actions(data: bytes) -> None:
    cache, near = Actions(), NearActions()
    await near.note("acme", cache, b"n" * 32, Digest.of(b""))
    (place,) = cache.records
    for record_ in (data, b"hpcc-near-actions-1\n" + data):
        cache.records[place] = record_
        assert len(await noted(cache, b"n" * 32)) <= MAX_NEAR
