"""What is copied and renewed when a compile's inputs are retained."""

from __future__ import annotations

import os
from pathlib import Path

from hpcc.core import Blob, Digest, InputFile, InputPart, TenantId
from hpcc.reapi.action import ActionSpec
from hpcc.store.memory import MemoryBlobStore
from hpcc.worker.stores.retained import (
    RetainedInputs,
    RetainedReader,
    cas_directory,
    retained_directory,
)
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


async def test_a_file_of_the_cas_is_retained_as_a_second_name(tmp_path: Path) -> None:
    """It starts its retention time, and stays when the CAS evicts it."""
    kept = Kept(tmp_path)
    place = cas_directory(tmp_path, ACME) / HEADER.digest.hash[:2] / HEADER.digest.hash
    place.parent.mkdir(parents=True)
    place.write_bytes(HEADER.data)
    os.utime(place, (1, 1))
    await kept.keep(HEADERS)
    assert place.stat().st_nlink == 2
    assert kept.time_of(HEADER.digest) != 1
    place.unlink()
    reader = RetainedReader(tmp_path, ACME)
    assert [await reader.get(b.digest) for b in (HEADER, DIRECTORY)] == [HEADER, DIRECTORY]


async def test_a_torn_file_of_the_cas_is_not_retained(tmp_path: Path) -> None:
    kept = Kept(tmp_path)
    place = cas_directory(tmp_path, ACME) / UNIT.digest.hash[:2] / UNIT.digest.hash
    place.parent.mkdir(parents=True)
    place.write_bytes(b"")
    await kept.keep(root(UNIT))
    assert (await RetainedReader(tmp_path, ACME).get(UNIT.digest)) == UNIT
