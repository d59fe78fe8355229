"""What is copied and renewed when a compile's inputs are retained."""

from __future__ import annotations

import os
from pathlib import Path

from hpcc.core import Blob, Digest, InputFile, InputPart, TenantId
from hpcc.reapi.action import ActionSpec
from hpcc.store.memory import MemoryBlobStore
from hpcc.worker.stores.retained import RetainedInputs, retained_directory
from hpcc_testkit.services.idp_tokens import FixedClock

ACME = TenantId("acme")
KEEP = 1600.0
RENEW = KEEP / 16
DIRECTORY, HEADER, UNIT, EDITED, ACTION, COMMAND = (
    Blob.of(data) for data in (b"d", b"h", b"u", b"e", b"a", b"c")
)
HEADERS = InputPart(DIRECTORY.digest, (InputFile("y.h", HEADER.digest),))


def root(unit: Blob) -> InputPart:
    return InputPart(unit.digest, (InputFile("a.c", unit.digest), InputFile("z.h", HEADER.digest)))


class Kept:
    def __init__(self, directory: Path) -> None:
        self.clock, self.source, self.directory = FixedClock(), MemoryBlobStore(), directory
        self.retained = RetainedInputs(
            directory, max_bytes=1 << 20, keep_seconds=KEEP, clock=self.clock
        )

    async def keep(self, *parts: InputPart) -> None:
        for blob in (DIRECTORY, HEADER, UNIT, EDITED, ACTION, COMMAND):
            await self.source.put(blob)
        action = ActionSpec(
            command=COMMAND.digest, input_root=DIRECTORY.digest, image=None, salt=b""
        )
        await self.retained.keep(ACME, self.source, ACTION.digest, action, parts)

    def time_of(self, digest: Digest) -> float | None:
        path = retained_directory(self.directory, ACME) / digest.hash[:2] / digest.hash
        return path.stat().st_mtime if path.exists() else None

    def age(self, *blobs: Blob) -> None:
        for blob in blobs:
            name = blob.digest.hash
            os.utime(retained_directory(self.directory, ACME) / name[:2] / name, (1, 1))


async def test_all_blobs_of_an_action_are_retained(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(HEADERS, root(UNIT))
    for blob in (DIRECTORY, HEADER, UNIT, ACTION, COMMAND):
        assert kept.time_of(blob.digest) is not None
    assert kept.time_of(EDITED.digest) is None


async def test_a_directory_is_renewed_with_its_files_and_not_by_each_compile(
    tmp_path: Path,
) -> None:
    kept = Kept(tmp_path)
    await kept.keep(HEADERS)
    kept.age(DIRECTORY, HEADER)
    kept.clock.time += RENEW - 1
    await kept.keep(HEADERS)
    assert [kept.time_of(b.digest) for b in (DIRECTORY, HEADER)] == [1, 1]
    kept.clock.time += 1
    await kept.keep(HEADERS)
    assert [kept.time_of(b.digest) for b in (DIRECTORY, HEADER)] == [kept.clock.now()] * 2


async def test_a_directory_is_renewed_when_its_oldest_file_is_due(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    await kept.keep(HEADERS)
    kept.clock.time += RENEW - 1
    await kept.keep(HEADERS, root(EDITED))  # a new directory with a file that was retained before
    kept.age(HEADER)
    kept.clock.time += 1
    await kept.keep(root(EDITED))
    assert kept.time_of(HEADER.digest) == kept.clock.now()
