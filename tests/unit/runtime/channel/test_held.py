"""Only a few small inputs that no earlier exec of a guest had go in a header."""

from __future__ import annotations

import pytest

from hpcc.core import Digest, NotFoundError
from hpcc.runtime.channel import held
from hpcc.runtime.channel.held import HeldBlobs
from hpcc_testkit.guests.guest_contract import MemoryBlobs, request

OLD = b"old"


def inputs(*contents: bytes) -> list[tuple[str, bytes]]:
    return [(f"f{number}", data) for number, data in enumerate(contents)]


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        ([b"a"], [b"a"]),
        ([b"a", b"b", b"a"], [b"a", b"b"]),
        ([], []),
        ([bytes([n]) for n in range(8)], [bytes([n]) for n in range(8)]),
        ([bytes([n]) for n in range(9)], []),
        ([bytes(256 << 10)], [bytes(256 << 10)]),
        ([bytes(256 << 10), b"a"], []),
    ],
)
async def test_what_is_new_goes_along(new: list[bytes], expected: list[bytes]) -> None:
    blobs = HeldBlobs()
    blobs.note(request("cc", inputs=inputs(OLD)))
    wanted = request("cc", inputs=inputs(OLD, *new))
    assert await blobs.ahead(wanted, MemoryBlobs(OLD, *new)) == expected


async def test_the_first_exec_has_none() -> None:
    assert await HeldBlobs().ahead(request("cc", inputs=inputs(OLD)), MemoryBlobs(OLD)) == []


async def test_a_blob_that_cannot_be_read_is_left_to_the_guests_question() -> None:
    class Broken:
        async def read(self, digest: Digest) -> bytes:
            raise NotFoundError(str(digest))

    blobs = HeldBlobs()
    blobs.note(request("cc", inputs=inputs(OLD)))
    assert await blobs.ahead(request("cc", inputs=inputs(b"new")), Broken()) == []


async def test_what_is_noted_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "_MOST", 3)
    blobs = HeldBlobs()
    for number in range(10):
        blobs.note(request("cc", inputs=inputs(b"%d" % number, b"more of %d" % number)))
        assert len(blobs._hashes) <= 5
