"""Hashes the system's large files once for all caches of a test process.

Each cache of a test would read the compilers' programs again, a hundred megabytes of them. A stat
that is equal to the one from before stands for the content, as it does for one cache.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest

from hpcc.cache.base.files import FileMemo, Signature, signature_of

_LEAST_BYTES: Final = 1 << 20
_PLACES: Final = (b"/usr/lib/", b"/usr/bin/", b"/usr/libexec/", b"/lib/")


@pytest.fixture(scope="session", autouse=True)
def shared_digests() -> Iterator[None]:
    """Let all `FileMemo` of this process share what they know of such files."""
    known: dict[bytes, tuple[Signature, bytes]] = {}
    read = FileMemo._hash  # noqa: SLF001 - a seam that only tests need

    def _hash(self: FileMemo, path: bytes, chunks: list[bytes] | None = None) -> bytes | None:
        if chunks is not None or not path.startswith(_PLACES):
            return read(self, path, chunks)
        try:
            status = os.stat(path)
        except OSError:
            return read(self, path)
        found = known.get(path)
        if found is not None and found[0] == signature_of(status) and self.is_quiet(found[0]):
            self._digests[path] = found
            return found[1]
        digest = read(self, path)
        remembered = self._digests.get(path)
        if status.st_size >= _LEAST_BYTES and remembered is not None and digest == remembered[1]:
            known[path] = remembered
        return digest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileMemo, "_hash", _hash)
        yield
