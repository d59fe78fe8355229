"""The blob cache and the trees of a guest's agent, without the guest."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.linux.links import LinkedBlobs, TreeLinks
from hpcc.agent.linux.tree import stage
from hpcc.core import Digest
from hpcc_testkit.guests.guest_contract import request

# time.h; Python has no name for it.
_CLOCK_REALTIME_COARSE: Final = 5


def next_tick() -> None:
    """Return when the clock that stamps files has another time, as `hpcc-init` does."""
    start = time.clock_gettime_ns(_CLOCK_REALTIME_COARSE)
    while time.clock_gettime_ns(_CLOCK_REALTIME_COARSE) == start:
        time.sleep(0.001)


class StagedTree:
    """One tree, which a test changes as a compile would."""

    def __init__(self, root: Path, links: TreeLinks) -> None:
        self.root, self._links = root, links

    def remove(self) -> None:
        self._links.remove(str(self.root), str(self.root))
        assert not self.root.exists()

    def inode(self, name: str) -> int:
        return (self.root / name).stat().st_ino

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory, in its order."""
        with os.scandir(self.root / directory) as entries:
            return [entry.name for entry in entries]


class StagingGuest:
    """The blob cache of one guest, and the trees that it stages."""

    def __init__(self, directory: Path, budget_bytes: int = 1 << 20) -> None:
        self.directory = directory
        self.blobs = BlobCache(str(directory / "blobs"), budget_bytes)
        self.linked = LinkedBlobs(self.blobs)
        self._count = 0

    def receive(self, data: bytes) -> Digest:
        """Put a blob into the cache, pinned."""
        digest = Digest.of(data)
        self.blobs.pin([digest])
        writer = self.blobs.receive(digest)
        writer.write(data)
        writer.finish()
        writer.close()
        return digest

    def blob(self, data: bytes) -> Path:
        return self.directory / "blobs" / Digest.of(data).hash

    async def tree(
        self,
        *inputs: tuple[str, bytes],
        outputs: tuple[str, ...] = (),
        output_directories: tuple[str, ...] = (),
        input_directories: tuple[str, ...] = (),
    ) -> StagedTree:
        """Stage a tree; its compile may begin on return."""
        self._count += 1
        root = self.directory / f"x{self._count}"
        links = TreeLinks(self.linked)
        asked = request(
            "cc",
            inputs=inputs,
            outputs=outputs,
            output_directories=output_directories,
            input_directories=input_directories,
        )
        await stage(str(root), asked, links, os.getuid())
        next_tick()
        return StagedTree(root, links)

    @property
    def waiting(self) -> int:
        """The number of kept directories."""
        return len(list((self.directory / "blobs/kept").iterdir()))
