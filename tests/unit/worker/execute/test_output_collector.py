"""A large output or upload is in memory once, also while its last piece arrives."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from buildgrid.common.protos.google.bytestream import bytestream_pb2 as bs

from hpcc.core import Digest, ExecRequest, OutputEvent, ResultEvent
from hpcc.reapi.resource import write_name
from hpcc.rpc.base.write_order import WriteOrder
from hpcc.rpc.reapi import blob_server
from hpcc.worker.execute.output_collector import GuestOutputCollector

MIB = 1 << 20
SIZE = 20 * MIB
PIECE = 256 << 10


@contextmanager
def peak_of() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the most bytes that were allocated in the block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def collecting(*outputs: str) -> GuestOutputCollector:
    collector = GuestOutputCollector(
        ExecRequest(exec_id="e1", argv=("cc",), env=(), cwd="", inputs=(), outputs=outputs)
    )
    collector.take(ResultEvent(exit_code=0))
    return collector


def test_an_object_of_20_mb_is_in_memory_once() -> None:
    collector = collecting("a.o")
    with peak_of() as peak:
        for start in range(0, SIZE, PIECE):
            is_last = start + PIECE == SIZE
            collector.take(OutputEvent("a.o", b"x" * PIECE, is_executable=False, last=is_last))
        # What an allocation reserves ahead is an eighth; a second copy would be the whole.
        assert SIZE <= peak() < SIZE * 1.25
    assert collector.outputs["a.o"] == (b"x" * SIZE, False)


def test_outputs_of_one_piece_and_of_several_arrive_whole() -> None:
    collector = collecting("a", "b", "c")
    for path, data, last in (
        ("a", b"one", True), ("b", b"", False), ("b", b"tw", False), ("b", b"o", True),
        ("c", b"", True),
    ):  # fmt: skip
        collector.take(OutputEvent(path, data, is_executable=False, last=last))
    collector.check()
    assert collector.outputs == {"a": (b"one", False), "b": (b"two", False), "c": (b"", False)}


async def test_an_upload_of_20_mb_is_in_memory_once() -> None:
    name = write_name("acme", "u", Digest.of(b"x" * SIZE))

    async def messages() -> AsyncIterator[bs.WriteRequest]:
        for start in range(0, SIZE, PIECE):
            yield bs.WriteRequest(
                resource_name=name, write_offset=start, data=b"x" * PIECE,
                finish_write=start + PIECE == SIZE,
            )  # fmt: skip

    source = messages()
    with peak_of() as peak:
        first = await anext(source)
        data = await blob_server._collected(first, source, WriteOrder(first))
        assert SIZE <= peak() < SIZE * 1.25
    assert data == b"x" * SIZE
