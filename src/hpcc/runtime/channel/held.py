"""What a guest has of earlier execs, so that only what is new crosses with the next request.

The problem: nearly every compile has one input that its guest has not seen, the unit. To be asked
for it takes four messages between three processes, one after the other.

The rule: a few small inputs that no earlier exec of this guest had go in the header. The guest
checks each against its digest, and asks for whatever else it lacks. What is noted here is a guess:
a guest that dropped a blob asks for it again.
"""

from __future__ import annotations

from typing import Final

from hpcc.core import Digest, ExecRequest
from hpcc.ports import BlobSource
from hpcc.wire.exec_frames import MAX_HEADER_BLOB_BYTES, MAX_HEADER_BLOBS

# About 100 bytes each. A guest with more starts again, and then asks.
_MOST: Final = 65_536


class HeldBlobs:
    """The blobs that one guest probably has."""

    def __init__(self) -> None:
        self._hashes: set[str] = set()

    async def ahead(self, request: ExecRequest, blobs: BlobSource) -> list[bytes]:
        """Return the inputs that go in the header; none if they are many or large.

        A guest's first exec has none: its image's headers are new, too.
        """
        if not self._hashes:
            return []
        new: dict[str, Digest] = {}
        for file in request.inputs:
            if file.digest.hash not in self._hashes:
                new[file.digest.hash] = file.digest
                if len(new) > MAX_HEADER_BLOBS:
                    return []
        if sum(digest.size_bytes for digest in new.values()) > MAX_HEADER_BLOB_BYTES:
            return []
        try:
            return [await blobs.read(digest) for digest in new.values()]
        except Exception:  # noqa: BLE001 - the store fails again when the guest asks, and says why
            return []

    def note(self, request: ExecRequest) -> None:
        """Note that the guest has had the inputs of an exec."""
        if len(self._hashes) > _MOST:
            self._hashes.clear()
        self._hashes.update(file.digest.hash for file in request.inputs)
