"""A disk of Windows in memory, for the local cache's decisions on any system."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from hpcc.cache.base.tools import ProgramOutput
from hpcc.cache.windows.disk import FileTimes
from hpcc.windows.files import FileLook

OWNER = "S-1-5-21-1"


@dataclass
class MemoryDisk:
    r"""A case-insensitive disk with paths such as `C:\w\a.h`.

    `now` is the time of a file that is written. `changed` holds the times written and changed, by
    path in lower case. `writers` are open for writing, `odd` are links or read-only, and `links`
    counts names. `owners` are those of other users, and `reals` where links lead. `answer` is what
    a program that is run says.
    """

    now: int = 0

    files: dict[str, bytes] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)
    changed: dict[str, tuple[int, int]] = field(default_factory=dict)
    writers: set[str] = field(default_factory=set)
    odd: set[str] = field(default_factory=set)
    links: dict[str, int] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    reals: dict[str, str] = field(default_factory=dict)
    answer: Callable[[Sequence[bytes], bytes], ProgramOutput] = lambda _argv, _cwd: ProgramOutput(
        1, b"", b""
    )
    encoding: str = "cp437"
    languages: bytes = b"1252 437 1033"

    def put(self, path: str, data: bytes = b"", at: int | None = None) -> None:
        """Write a file; `at` is its time, now by default."""
        at = self.now if at is None else at
        self.files[self._file(path) or path] = data
        self.changed[path.lower()] = at, at
        parts = path.split("\\")
        for n in range(1, len(parts)):
            self.directories.add("\\".join(parts[:n]))

    def _file(self, path: str) -> str | None:
        return next((p for p in self.files if p.lower() == path.lower()), None)

    def _is_home(self, path: str) -> bool:
        return path.rstrip("\\").lower() in {d.lower() for d in self.directories}

    def times(self, path: str, *, is_at_rest: bool) -> FileTimes | None:
        found = self._file(path)
        if found is None and not self._is_home(path):
            return None
        if is_at_rest and path.lower() in {w.lower() for w in self.writers}:
            return None
        written, changed = self.changed.get(path.lower(), (self.now, self.now))
        size = len(self.files[found]) if found else 0
        is_plain = found is not None and path not in self.odd
        identity = 1, hash(path.lower())
        return FileTimes(written, changed, size, identity, self.links.get(path, 1), is_plain)

    def entries(self, directory: str) -> Mapping[str, bool] | None:
        if not self._is_home(directory):
            return None
        head = directory.rstrip("\\").lower() + "\\"
        found: dict[str, bool] = {}
        for paths, is_directory in ((self.files, False), (self.directories, True)):
            for path in paths:
                rest = path[len(head) :]
                if path.lower().startswith(head) and rest and "\\" not in rest:
                    found[rest] = is_directory
        return found

    def is_directory(self, path: str) -> bool | None:
        return False if self._file(path) else True if self._is_home(path) else None

    def read(self, path: str, limit: int) -> bytes | None:
        found = self._file(path)
        return self.files[found] if found and len(self.files[found]) <= limit else None

    def run(self, argv: Sequence[bytes], env: Mapping[bytes, bytes], cwd: bytes) -> ProgramOutput:
        del env
        return self.answer(argv, cwd)

    @contextmanager
    def scratch(self) -> Iterator[str]:
        self.directories.add("T:")
        yield "T:\\probe"

    def write(self, path: str, data: bytes) -> None:
        self.put(path, data)

    def real(self, path: str) -> str:
        return self.reals.get(path, path)

    def look(self, path: str) -> FileLook | None:
        is_home = self.is_directory(path)
        if is_home is None:
            return None
        return FileLook(is_home, path in self.odd, self.owners.get(path, OWNER))

    def state(self, path: str) -> bytes | None:
        return self.read(path, 1 << 30)
