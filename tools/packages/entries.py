"""What a package contains: a list of entries, and how it is written below a directory."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

FILE: Final = 0o644
PROGRAM: Final = 0o755
PRIVATE: Final = 0o600
DIRECTORY: Final = 0o755


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, a link (`target`) or a directory (neither content nor target).

    `name` is relative to the root. `is_config` marks what an upgrade must not overwrite. `user` is
    the user and the group.
    """

    name: str
    content: bytes | None = None
    mode: int = FILE
    target: str = ""
    is_config: bool = False
    user: str = "root"


class EntryError(Exception):
    """Two entries have one name, or a name leaves the root."""


def checked(entries: Iterable[Entry]) -> list[Entry]:
    """Return the entries by name.

    Raises:
        EntryError: a name is twice in them, or is not below the root.
    """
    found: dict[str, Entry] = {}
    for entry in entries:
        parts = PurePosixPath(entry.name).parts
        if not parts or entry.name.startswith("/") or {"..", "."} & {*entry.name.split("/")}:
            raise EntryError(f"no name below the root: {entry.name!r}")
        if entry.name in found:
            raise EntryError(f"two entries are {entry.name!r}")
        found[entry.name] = entry
    return [found[name] for name in sorted(found)]


def write(entries: Sequence[Entry], root: Path, epoch: int) -> None:
    """Write entries below a new directory, all with one time, whatever the umask is."""
    root.mkdir(parents=True)
    for entry in entries:
        path = root / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.target:
            path.symlink_to(entry.target)
        elif entry.content is None:
            path.mkdir(exist_ok=True)
        else:
            path.write_bytes(entry.content)
            path.chmod(entry.mode)
    named = {entry.name: entry.mode for entry in entries}
    for path in (root, *root.rglob("*")):
        if path.is_dir() and not path.is_symlink():
            path.chmod(named.get(str(path.relative_to(root)), DIRECTORY))
        os.utime(path, (epoch, epoch), follow_symlinks=False)
