"""A worker process for the rate bench: its guests answer at once, without a compiler.

`_farm_stub.py --config FILE`, as `hpcc_testkit.farm.worker`. Everything before and after the guest
is the worker's own: TLS, tokens, input trees, stores, signed results and audit rows. A guest asks
for the inputs that it lacks, as a real one does, and sends an object of HPCC_BENCH_OBJECT bytes.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from typing import Final

from hpcc.core import Digest, ExecEvent, ExecRequest, OutputEvent, ResultEvent
from hpcc.ports import BlobSource
from hpcc.rpc.base.process import ServiceProcess, run_service
from hpcc_testkit.farm import worker
from hpcc_testkit.guests.fake_runtime import FakeGuest

_CHUNK: Final = 256 << 10


class StubGuest(FakeGuest):
    """Sends an object without running anything."""

    _seen: frozenset[Digest] = frozenset()

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        """Answer as a guest whose compiler takes no time; see `hpcc.ports.Guest.exec`."""
        wanted = {file.digest for file in request.inputs} - self._seen
        for digest in wanted:
            await blobs.read(digest)
        self._seen |= wanted
        yield ResultEvent(exit_code=0)
        size = int(os.environ["HPCC_BENCH_OBJECT"])
        mark = request.exec_id.encode() + bytes(16)
        for path in request.outputs:
            data = mark * (size // len(mark) + 1) if path.endswith(".o") else b"unit.o: unit.c\n"
            for start in range(0, len(data), _CHUNK):
                piece = data[start : start + _CHUNK]
                is_last = start + _CHUNK >= len(data)
                yield OutputEvent(path, piece, is_executable=False, last=is_last)


async def main(process: ServiceProcess) -> None:
    """Serve as the testkit's worker does."""
    await worker.main(process, StubGuest)


if __name__ == "__main__":
    raise SystemExit(run_service("worker", main))
