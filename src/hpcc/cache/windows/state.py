"""Compares the inputs of a stored result with the files of now, without trust in any time."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.windows.disk import MAX_INPUT_BYTES, CacheDisk
from hpcc.compilers.scan.windows_names import wide_key

Names = dict[str, list[tuple[str, bool]]]


class Inputs(NamedTuple):
    """Files with SHA-256 digests, names that must exist, and names that must be absent.

    For sharing: a source names the checkout (`names_root`), or a directory above it beside a
    computed include (`has_pieces`), or a name of a header leads over the border (`leads_out`).
    """

    files: tuple[tuple[bytes, bytes], ...]
    present: tuple[bytes, ...]
    absences: tuple[Absence, ...]
    names_root: bool = False
    has_pieces: bool = False
    leads_out: bool = False


class State:
    """The file system during one look-up: each file is read once, each directory listed once.

    `sizes` are those of the files that were read.
    """

    def __init__(self, disk: CacheDisk) -> None:
        self._disk = disk
        self._digests: dict[bytes, bytes | None] = {}
        self.sizes: dict[bytes, int] = {}
        self._names: dict[str, Names | None] = {}

    def holds(self, inputs: InputSet) -> bool:
        """Tell whether a stored result is the one that the compiler would make now."""
        return (
            all(self.digest(path) == digest for path, digest in inputs.files)
            and all(self._disk.is_directory(path.decode()) is False for path in inputs.present)
            and all(map(self._lacks, inputs.absences))
            and not inputs.twins  # this cache writes no such relation
        )

    def digest(self, path: bytes) -> bytes | None:
        """Return the SHA-256 of a file; None if it cannot be read."""
        if path not in self._digests:
            data = self._disk.read(path.decode(), MAX_INPUT_BYTES)
            self._digests[path] = None if data is None else hashlib.sha256(data).digest()
            self.sizes[path] = len(data or b"")
        return self._digests[path]

    def names(self, directory: str) -> Names | None:
        """Return the entries by wide key, with their kinds; None if it is not a directory."""
        if directory not in self._names:
            entries = self._disk.entries(directory)
            found: Names | None = None
            if entries is not None:
                found = {}
                for name, is_directory in entries.items():
                    found.setdefault(wide_key(name), []).append((name, is_directory))
            self._names[directory] = found
        return self._names[directory]

    def _lacks(self, absence: Absence) -> bool:
        names = self.names(absence.directory.decode())
        if names is None:
            return False
        files = (names.get(name.decode(), ()) for name in absence.files)
        directories = (names.get(name.decode(), ()) for name in absence.directories)
        return not any(not is_directory for there in files for _, is_directory in there) and not (
            any(is_directory for there in directories for _, is_directory in there)
        )
