"""Large outputs arrive whole, in calls whose memory the worker bounds; small ones in the answer."""

from __future__ import annotations

import hashlib
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from hpcc.core import Blob, Digest, RemoteRequest, RemoteResult, TenantId
from hpcc.rpc.base.blob_room import BlobRoom
from hpcc_testkit.farm.actions import made_action
from hpcc_testkit.farm.in_process import farm_under_test
from hpcc_testkit.farm.several import Build, build_on

MIB = 1 << 20
# What `script` prints repeats, and no two numbers give the same bytes.
LINE_BYTES = 64


def script(size_bytes: int, number: int) -> str:
    line = f"{number}".rjust(LINE_BYTES - 1, "x")
    return f"yes {line} | head -c {size_bytes} > a.o"


def content(size_bytes: int, number: int) -> bytes:
    line = f"{number}".rjust(LINE_BYTES - 1, "x").encode() + b"\n"
    return (line * (size_bytes // LINE_BYTES + 1))[:size_bytes]


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes for which the worker took room, in order."""
    sizes: list[int] = []
    original = BlobRoom.hold

    def counted(
        room: BlobRoom, tenant: TenantId, size_bytes: int
    ) -> AbstractAsyncContextManager[None]:
        sizes.append(size_bytes)
        return original(room, tenant, size_bytes)

    monkeypatch.setattr(BlobRoom, "hold", counted)
    return sizes


@pytest.mark.parametrize("size", [MIB, MIB + 1, 6 * MIB])
async def test_an_answer_carries_a_megabyte_and_more_is_downloaded(
    tmp_path: Path, held: list[int], size: int
) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving(), farm.client() as client:
        blobs = made_action(script(size, 1))
        await client.upload(blobs)
        for is_hit in (False, True):
            held.clear()
            record, was_cached = await client.execute(blobs[-1].digest, ["a.o"])
            assert was_cached == is_hit
            (output,) = record.outputs
            assert output.digest == Digest.of(content(size, 1))
            assert ("a.o" in record.inline) == (size <= MIB)
            assert size not in held
            found = await client.download([output.digest])
            assert found[output.digest].data == content(size, 1)
            assert size in held, "the download took room"


async def test_uploads_in_batches_take_room_as_streams_do(tmp_path: Path, held: list[int]) -> None:
    async with farm_under_test(tmp_path) as farm, farm.serving(), farm.client() as client:
        await client.upload([Blob.of(b"one"), Blob.of(b"second"), Blob.of(bytes(5 * MIB))])
        assert sorted(held) == [len(b"one" + b"second"), 5 * MIB]


async def test_a_build_gets_objects_of_20_mb_whole_as_run_and_as_hits(tmp_path: Path) -> None:
    sizes = [20 * MIB, 3 * MIB, 20 * MIB + 7, 100]
    async with farm_under_test(tmp_path) as farm, farm.serving():
        for is_hit in (False, True):
            name = "second" if is_hit else "first"
            async with build_on(farm, name=name) as build:
                for number, size in enumerate(sizes):
                    await check(build, number, size, is_hit=is_hit)


async def check(build: Build, number: int, size: int, *, is_hit: bool) -> None:
    made = build.request(0, 0.0)
    request = RemoteRequest(
        argv=("sh", "-c", script(size, number)),
        env=made.env,
        cwd="",
        inputs=made.inputs,
        outputs=("a.o",),
    )
    outcome = await build.dispatcher.compile(build.connection, request)
    assert isinstance(outcome, RemoteResult), outcome
    assert outcome.is_cached == is_hit
    (output,) = outcome.outputs
    found, wanted = (hashlib.sha256(d).hexdigest() for d in (output.data, content(size, number)))
    assert found == wanted
