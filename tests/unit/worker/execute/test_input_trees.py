"""What is remembered of input trees, for how long, and what is asked again."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from hpcc.core import Blob, Digest, InputFile, NotFoundError, TenantId
from hpcc.reapi.limits import ReapiError
from hpcc.reapi.tree import InputTree as EncodedTree
from hpcc.reapi.tree import build_tree
from hpcc.rpc.base.errors import MissingBlobsError
from hpcc.worker.execute.exec_request import ExecInputs
from hpcc.worker.execute.input_trees import PRESENT_SECONDS, ActionInputs, InputTrees
from hpcc_testkit.services.idp_tokens import FixedClock

ACME, OTHER = TenantId("acme"), TenantId("other")
UNIT, HEADER, TOOL = (Blob.of(data) for data in (b"int x;\n", b"int y;\n", b"#!/bin/sh\n"))
FILES = [
    InputFile("a.c", UNIT.digest),
    InputFile("include/deep/y.h", HEADER.digest),
    InputFile("include/y.h", HEADER.digest),
    InputFile("tool.sh", TOOL.digest, is_executable=True),
]


class Store:
    """A blob store that records what it is asked for."""

    def __init__(self, *trees: EncodedTree) -> None:
        blobs = [UNIT, HEADER, TOOL]
        blobs += [Blob.of(data) for tree in trees for data in tree.directories.values()]
        self.blobs = {b.digest: b for b in blobs}
        self.read: list[Digest] = []
        self.asked: list[frozenset[Digest]] = []

    async def get(self, digest: Digest) -> Blob:
        self.read.append(digest)
        if digest not in self.blobs:
            raise NotFoundError("gone")
        return self.blobs[digest]

    async def put(self, blob: Blob) -> None:
        self.blobs[blob.digest] = blob

    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]:
        self.asked.append(frozenset(digests))
        return self.asked[-1] - self.blobs.keys()


class Worker:
    """The memory of one worker, and its clock."""

    def __init__(self, **limits: int) -> None:
        self.clock = FixedClock()
        self.trees = InputTrees(self.clock, **limits)

    async def read(self, blobs: Store, root: Digest, tenant: TenantId = ACME) -> ActionInputs:
        return await self.trees.read(tenant, self.trees.store(tenant, blobs), root)


async def test_a_tree_is_its_files_and_all_its_digests() -> None:
    encoded = build_tree(FILES)
    found = await Worker().read(Store(encoded), encoded.root)
    assert sorted(found.files, key=lambda f: f.path) == FILES
    assert found.directories == encoded.directories.keys()
    assert found.digests == {*encoded.directories, UNIT.digest, HEADER.digest, TOOL.digest}


@pytest.mark.parametrize("is_wrong_first", [False, True])
async def test_a_tree_that_gives_one_content_two_sizes_ends_no_guest(is_wrong_first: bool) -> None:
    # The store has the blob with its own size. An agent gives up an exec with the other one.
    wrong = Digest(TOOL.digest.hash, TOOL.digest.size_bytes + 1)
    digests = [wrong, TOOL.digest] if is_wrong_first else [TOOL.digest, wrong]
    files = [InputFile(f"{i}.sh", digest, is_executable=True) for i, digest in enumerate(digests)]
    encoded = build_tree(files)
    with pytest.raises(ReapiError) as caught:
        await Worker().read(Store(encoded), encoded.root)
    assert caught.value.reason == "bad-digest"


async def test_two_directories_that_give_one_content_two_sizes_lack_a_blob() -> None:
    wrong = Digest(TOOL.digest.hash, TOOL.digest.size_bytes + 1)
    encoded = build_tree([InputFile("a/t.sh", wrong), InputFile("b/t.sh", TOOL.digest)])
    with pytest.raises(MissingBlobsError) as caught:
        await Worker().read(Store(encoded), encoded.root)
    assert caught.value.digests == (wrong,)


async def test_the_same_tree_is_read_and_asked_for_once() -> None:
    encoded, worker = build_tree(FILES), Worker()
    store = Store(encoded)
    first = await worker.read(store, encoded.root)
    assert sorted(store.read) == sorted(encoded.directories), "each directory once"
    assert store.asked == [first.digests - first.directories], "what was read is there"
    worker.clock.time += PRESENT_SECONDS
    again = await worker.read(store, encoded.root)
    assert again == first
    assert (len(store.read), len(store.asked)) == (len(encoded.directories), 1)


async def test_only_what_changed_is_read_and_asked_for() -> None:
    edited = Blob.of(b"int z;\n")
    before = build_tree(FILES)
    after = build_tree([InputFile("a.c", edited.digest), *FILES[1:]])
    worker, store = Worker(), Store(before, after)
    await worker.read(store, before.root)
    store.read.clear()
    await store.put(edited)
    found = await worker.read(store, after.root)
    assert store.read == [after.root]
    assert store.asked[1:] == [{edited.digest}]
    assert InputFile("a.c", edited.digest) in found.files


@pytest.mark.parametrize("what", ["file", "directory", "root"])
async def test_what_vanished_is_missing_as_soon_as_it_is_asked_for_again(what: str) -> None:
    encoded, worker = build_tree(FILES), Worker()
    store = Store(encoded)
    await worker.read(store, encoded.root)
    below = next(d for d in encoded.directories if d != encoded.root)
    gone = {"file": HEADER.digest, "directory": below, "root": encoded.root}[what]
    del store.blobs[gone]
    worker.clock.time += PRESENT_SECONDS + 0.1
    with pytest.raises(MissingBlobsError) as caught:
        await worker.read(store, encoded.root)
    assert caught.value.digests == (gone,)


async def test_a_blob_that_a_guest_did_not_get_is_asked_for_again_at_once() -> None:
    encoded, worker = build_tree(FILES), Worker()
    store = Store(encoded)
    tree = await worker.read(store, encoded.root)
    del store.blobs[HEADER.digest]
    await worker.read(store, encoded.root)  # within the time in which it counts as present
    inputs = ExecInputs(worker.trees.store(ACME, store), tree.parts)
    with pytest.raises(NotFoundError):
        await inputs.read(HEADER.digest)
    assert inputs.missing == [HEADER.digest]
    with pytest.raises(MissingBlobsError) as caught:
        await worker.read(store, encoded.root)
    assert caught.value.digests == (HEADER.digest,)


async def test_another_tenant_gets_nothing_by_a_digest() -> None:
    encoded, worker = build_tree(FILES), Worker()
    await worker.read(Store(encoded), encoded.root)
    empty = Store()
    empty.blobs.clear()
    with pytest.raises(MissingBlobsError) as caught:
        await worker.read(empty, encoded.root, OTHER)
    assert caught.value.digests == (encoded.root,)
    with pytest.raises(MissingBlobsError) as caught:
        await worker.read(Store(build_tree([])), encoded.root, OTHER)
    assert caught.value.digests == (encoded.root,)


async def test_the_memory_of_directories_is_bounded() -> None:
    encoded, worker = build_tree(FILES), Worker(max_bytes=100)
    store = Store(encoded)
    first = await worker.read(store, encoded.root)
    assert await worker.read(store, encoded.root) == first
    assert len(store.read) == 2 * len(encoded.directories), "none of them fits"


async def test_a_tree_that_breaks_a_rule_is_refused_each_time() -> None:
    bad = Blob.of(b"\x12\x00")  # a directory without a name
    worker, store = Worker(), Store()
    await store.put(bad)
    for _ in range(2):
        with pytest.raises(ReapiError):
            await worker.read(store, bad.digest)


async def test_limits_of_a_whole_tree_hold_for_remembered_directories(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoded, worker = build_tree(FILES), Worker()
    store = Store(encoded)
    await worker.read(store, encoded.root)
    monkeypatch.setattr("hpcc.reapi.tree.MAX_INPUTS", 3)
    with pytest.raises(ReapiError) as caught:
        await worker.read(store, encoded.root)
    assert caught.value.reason == "tree-limit"


async def test_what_did_not_change_is_the_same_part() -> None:
    edited = Blob.of(b"int z;\n")
    before = build_tree(FILES)
    after = build_tree([InputFile("a.c", edited.digest), *FILES[1:]])
    worker, store = Worker(), Store(before, after)
    await store.put(edited)
    first = await worker.read(store, before.root)
    second = await worker.read(store, after.root)
    ours = {id(part) for part in first.parts}
    shared = [part for part in second.parts if id(part) in ours]
    assert [[f.path for f in p.files] for p in shared] == [["include/y.h"], ["include/deep/y.h"]]
    other = await worker.read(store, before.root, OTHER)
    assert ours.isdisjoint(id(part) for part in other.parts), "of each tenant apart"


async def test_one_directory_at_two_places_is_two_parts() -> None:
    files = [InputFile(f"{place}/y.h", HEADER.digest) for place in ("a", "b")]
    encoded, worker = build_tree(files), Worker()
    store = Store(encoded)
    for _ in range(2):
        found = await worker.read(store, encoded.root)
        assert sorted(f.path for f in found.files) == ["a/y.h", "b/y.h"]


async def test_presence_is_remembered_no_longer_for_a_part_than_for_its_blobs() -> None:
    before, after = build_tree(FILES), build_tree([*FILES, InputFile("b.c", UNIT.digest)])
    worker, store = Worker(), Store(before, after)
    await worker.read(store, before.root)
    worker.clock.time += PRESENT_SECONDS - 1
    await worker.read(store, after.root)  # a new part with blobs that were asked for earlier
    del store.blobs[UNIT.digest]
    worker.clock.time += 1.1
    with pytest.raises(MissingBlobsError) as caught:
        await worker.read(store, after.root)
    assert caught.value.digests == (UNIT.digest,)
