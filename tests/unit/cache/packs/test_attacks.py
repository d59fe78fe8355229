"""Attacks on a reader of packs, by who writes the place and by who holds a key."""

from __future__ import annotations

import hashlib
import struct
import tracemalloc
from collections.abc import Callable
from typing import Final

import pytest
import zstandard

from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.packs import index as index_module
from hpcc.cache.packs.chunks import open_record
from hpcc.cache.packs.index import (
    MAX_CHUNKS,
    MAX_INDEX_OBJECT_BYTES,
    MAX_ROWS,
    Chunk,
    PackError,
    PackIndex,
    PackRow,
    index_name,
    parse_index,
    sign_index,
)
from hpcc.core import NotFoundError
from hpcc.store.objects import MemoryObjects

from .conftest import COMMIT, NAMESPACE, Bench, digest, entry, record, trusting

_OTHER: Final = "b" * 40
_NAME: Final = index_name(NAMESPACE, COMMIT)
_MAGIC: Final = b"hpcc-pack-1\n"


async def refused(bench: Bench, *commits: str) -> str:
    """Pull; return why it was refused. Nothing may be usable afterwards."""
    with pytest.raises(PackError) as caught:
        await bench.pull(*commits)
    assert not list((bench.directory / "packs").glob("roots/*/*.pack"))
    return str(caught.value.refusal)


def put_signed(bench: Bench, packed: bytes, chunk: Chunk) -> None:
    """Let a holder of CI's key publish a chunk with any index."""
    bench.objects.content[chunk.object_name(NAMESPACE)] = packed
    signed = sign_index(PackIndex(COMMIT, (chunk,)), NAMESPACE, bench.ci)
    bench.objects.content[_NAME] = signed


def chunk_of(packed: bytes, raw_bytes: int, rows: tuple[PackRow, ...] = ()) -> Chunk:
    rows = rows or (PackRow(digest("row"), raw_bytes),)
    return Chunk(hashlib.sha256(packed).digest(), len(packed), raw_bytes, rows)


async def test_a_pack_that_is_signed_by_a_stranger_is_refused(bench: Bench) -> None:
    await bench.push([record(1, bench.stranger)], key=bench.stranger)
    assert await refused(bench) == "key"


async def test_a_stranger_who_claims_to_be_ci_is_refused(bench: Bench) -> None:
    await bench.push([record(1, bench.stranger)], key=bench.stranger)
    data = bench.objects.content[_NAME]
    theirs, ours = bench.stranger.key.kid.encode(), bench.ci.key.kid.encode()
    bench.objects.content[_NAME] = data.replace(theirs, ours)
    assert await refused(bench) == "signature"


async def test_a_strangers_record_in_a_pack_of_ci_is_refused_at_its_use(bench: Bench) -> None:
    """The pack's signature says who may fill the disk, and nothing about a record."""
    made = record(1, bench.stranger)
    name, _ = entry(1)
    assert open_record(made.read() or b"", name, NAMESPACE, trusting(bench.ci)) == "unknown-key"


async def test_a_record_for_another_compiler_is_refused_at_its_use(bench: Bench) -> None:
    name, _ = entry(1)
    data = record(1, bench.ci).read() or b""
    other = name._replace(compiler=digest("clang"))
    assert open_record(data, other, NAMESPACE, trusting(bench.ci)) == "other-key"
    source = name._replace(source=digest("edited"))
    assert open_record(data, source, NAMESPACE, trusting(bench.ci)) == "other-key"


async def test_an_entry_of_the_remote_cache_is_no_record_of_a_pack(bench: Bench) -> None:
    """Its signature covers packed bytes, and nothing may take them for unpacked ones."""
    from hpcc.cache.signed.entry import sign

    name, content = entry(1)
    data = encode_fields(sign(name, NAMESPACE, content, bench.ci))
    assert open_record(data, name, NAMESPACE, trusting(bench.ci)) == "malformed"


async def test_a_pack_of_another_namespace_is_refused(bench: Bench) -> None:
    await bench.push([record(1, bench.ci, namespace="forks")], namespace="forks")
    bench.objects.content[_NAME] = bench.objects.content[index_name("forks", COMMIT)]
    assert await refused(bench) == "namespace"


async def test_a_record_of_another_namespace_is_refused_at_its_use(bench: Bench) -> None:
    name, _ = entry(1)
    data = record(1, bench.ci, namespace="forks").read() or b""
    assert open_record(data, name, NAMESPACE, trusting(bench.ci)) == "namespace"


async def test_a_pack_that_is_replayed_for_another_commit_is_refused(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)], _OTHER)
    bench.objects.content[_NAME] = bench.objects.content[index_name(NAMESPACE, _OTHER)]
    assert await refused(bench) == "other-commit"


async def test_behind_a_refused_pack_the_next_ancestors_pack_is_taken(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)], _OTHER)
    bench.objects.content[_NAME] = bench.objects.content[index_name(NAMESPACE, _OTHER)]
    got = await bench.pull(COMMIT, _OTHER)
    assert (got.commit, got.refused) == (_OTHER, ["other-commit"])


@pytest.mark.parametrize("part", range(3), ids=["header", "signature", "index"])
@pytest.mark.parametrize("where", [0, -1])
async def test_a_changed_byte_of_an_index_is_refused(bench: Bench, part: int, where: int) -> None:
    await bench.push([record(1, bench.ci)])
    parts = [*map(bytearray, decode_fields(bench.objects.content[_NAME][len(_MAGIC) :]))]
    parts[part][where] ^= 1
    bench.objects.content[_NAME] = _MAGIC + encode_fields(map(bytes, parts))
    assert await refused(bench) in {"signature", "malformed"}


async def test_a_truncated_index_is_refused(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)])
    whole = bench.objects.content[_NAME]
    for end in (0, 5, len(_MAGIC), 20, len(whole) // 2, len(whole) - 1):
        bench.objects.content[_NAME] = whole[:end]
        assert await refused(bench) == "malformed"


@pytest.mark.parametrize(
    "change", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"", bytes.upper]
)
async def test_a_truncated_or_changed_chunk_is_refused(
    bench: Bench, change: Callable[[bytes], bytes]
) -> None:
    await bench.push([record(1, bench.ci)])
    (name,) = [name for name in bench.objects.content if "/chunks/" in name]
    bench.objects.content[name] = change(bench.objects.content[name])
    assert await refused(bench) == "chunk"
    assert not list((bench.directory / "packs/chunks").glob("*"))


async def test_a_chunk_that_is_another_packs_chunk_is_refused(bench: Bench) -> None:
    await bench.push([record(1, bench.ci)], _OTHER)
    (other,) = [data for name, data in bench.objects.content.items() if "/chunks/" in name]
    bench.objects.content.clear()
    await bench.push([record(2, bench.ci)])
    (name,) = [name for name in bench.objects.content if "/chunks/" in name]
    bench.objects.content[name] = other
    assert await refused(bench) == "chunk"


async def test_a_bomb_is_refused_before_it_is_unpacked(bench: Bench) -> None:
    """By a holder of the key: 64 MiB of zeros, which the index announces as a few bytes."""
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    put_signed(bench, bomb, chunk_of(bomb, 1000))
    tracemalloc.start()
    try:
        assert await refused(bench) == "sizes"
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


async def test_a_bomb_that_announces_no_size_is_refused(bench: Bench) -> None:
    writer = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bomb = writer.compress(bytes(64 << 20)) + writer.flush()
    put_signed(bench, bomb, chunk_of(bomb, 100_000))
    assert await refused(bench) == "sizes"


async def test_a_bomb_that_is_announced_truly_is_refused_by_its_ratio(bench: Bench) -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(16 << 20))
    put_signed(bench, bomb, chunk_of(bomb, 16 << 20))
    assert await refused(bench) == "ratio"
    assert not (bench.directory / "packs/chunks").exists()


async def test_a_bomb_as_index_is_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    header = index_module._header(COMMIT, NAMESPACE, bench.ci.key, packed)
    signature = bench.ci.private.sign(b"hpcc remote cache pack\0" + header)
    bench.objects.content[_NAME] = _MAGIC + encode_fields([header, signature, packed])
    assert await refused(bench) == "too-large"


async def test_a_pack_of_more_than_a_quarter_of_the_cache_costs_no_chunk(bench: Bench) -> None:
    await bench.push(record(n, bench.ci) for n in range(10))
    bench.max_cache_bytes = 40_000
    for name in [name for name in bench.objects.content if "/chunks/" in name]:
        del bench.objects.content[name]
    assert await refused(bench) == "too-large"


async def test_an_index_larger_than_its_limit_is_not_read(bench: Bench) -> None:
    bench.objects.content[_NAME] = _MAGIC + bytes(MAX_INDEX_OBJECT_BYTES)
    assert await refused(bench) == "too-large"


def test_a_flood_of_chunks_or_records_is_refused() -> None:
    row = struct.pack(">32sI", bytes(32), 1)
    chunk = struct.pack(">32sIII", bytes(32), 1, 1, 1)
    for chunks, rows in ((MAX_CHUNKS + 1, 1), (1, MAX_ROWS + 1)):
        with pytest.raises(PackError) as caught:
            parse_index(encode_fields([chunk * chunks, row * rows]))
        assert caught.value.refusal == "too-large"


_ROW: Final = struct.pack(">32sI", b"r" * 32, 10)
_CASES: Final = {
    "more-rows-than-there-are": ([(b"a", 10, 10, 2)], 1),
    "rows-of-no-chunk": ([(b"a", 10, 10, 1)], 2),
    "a-chunk-without-rows": ([(b"a", 10, 10, 1), (b"b", 1, 0, 0)], 1),
    "rows-that-do-not-fill-the-chunk": ([(b"a", 10, 11, 1)], 1),
    "rows-beyond-the-chunk": ([(b"a", 10, 9, 1)], 1),
    "one-chunk-twice": ([(b"a", 10, 10, 1), (b"a", 10, 10, 1)], 2),
    "four-billion-rows": ([(b"a", 10, 10, 0xFFFFFFFF)], 1),
}


@pytest.mark.parametrize("case", _CASES)
def test_an_index_that_lies_about_sizes_or_chunks_is_refused(case: str) -> None:
    chunks, rows = _CASES[case]
    table = b"".join(struct.pack(">32sIII", name * 32, *rest) for name, *rest in chunks)
    with pytest.raises(PackError) as caught:
        parse_index(encode_fields([table, _ROW * rows]))
    assert caught.value.refusal == "sizes"


@pytest.mark.parametrize(("packed", "raw"), [(0xFFFFFFFF, 10), (10, 0xFFFFFFFF)])
def test_an_index_with_a_huge_chunk_is_refused(packed: int, raw: int) -> None:
    table = struct.pack(">32sIII", b"a" * 32, packed, raw, 1)
    with pytest.raises(PackError) as caught:
        parse_index(encode_fields([table, struct.pack(">32sI", bytes(32), raw)]))
    assert caught.value.refusal == "too-large"


async def test_a_place_that_claims_packs_it_does_not_have_costs_four_requests(bench: Bench) -> None:
    class Lying(MemoryObjects):
        gets = 0

        async def has(self, key: str) -> bool:
            return True

        async def get(self, key: str, limit: int) -> bytes:
            self.gets += 1
            return await super().get(key, limit)

    lying = bench.objects = Lying()
    with pytest.raises(NotFoundError):
        await bench.pull(*(f"{n:040x}" for n in range(64)))
    assert lying.gets == 4
