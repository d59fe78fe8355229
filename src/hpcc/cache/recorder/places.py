"""The directory of recorded builds: names of its files, and which of them are too many.

A file is `BEGAN-BUILD-WRITER.part`: when it was begun (milliseconds since the epoch, 12 hex
digits), the start of the SHA-256 of the build's identity, and 16 random digits. So the oldest are
found without opening any. Directory and files belong to one user, and others cannot open them.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import stat
from typing import Final, NamedTuple

from hpcc.files import own_uid

DIRECTORY_NAME: Final = "builds"
# Beside it and with separate limits, so that large links do not displace compiles.
LINKS_NAME: Final = "links"
MAX_BUILDS: Final = 64
MAX_TOTAL_BYTES: Final = 32 << 20
# A full part is not written to any more; the build continues in another one.
MAX_PART_BYTES: Final = 1 << 20
MAX_PARTS: Final = 256
# More names than a daemon ever leaves in the directory.
_MAX_NAMES: Final = 4096
_NAME: Final = re.compile(r"([0-9a-f]{12})-([0-9a-f]{16})-[0-9a-f]{16}\.part")


class PartFile(NamedTuple):
    """One file. `build` is the hash of a build's identity. They sort by age."""

    began_ms: int
    build: str
    name: str
    size_bytes: int


class Limits(NamedTuple):
    """What is kept at most; tests take less."""

    builds: int = MAX_BUILDS
    total_bytes: int = MAX_TOTAL_BYTES
    part_bytes: int = MAX_PART_BYTES
    parts: int = MAX_PARTS


LINK_LIMITS: Final = Limits(total_bytes=16 << 20)


def hash_of(build: str) -> str:
    """Return what stands for a build in the names of its files."""
    return hashlib.sha256(build.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def new_name(build: str, began_ms: int) -> str:
    """Return the name of a new file."""
    return f"{began_ms & (1 << 48) - 1:012x}-{hash_of(build)}-{secrets.token_hex(8)}.part"


def find_parts(directory: str) -> list[PartFile]:
    """Return the files of this user, oldest first; empty without the directory."""
    found: list[PartFile] = []
    try:
        with os.scandir(directory) as entries:
            for number, entry in enumerate(entries):
                match = _NAME.fullmatch(entry.name)
                if match is None or number >= _MAX_NAMES:
                    continue
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and status.st_uid == own_uid():
                        age = int(match[1], 16)
                        found.append(PartFile(age, match[2], entry.name, status.st_size))
    except OSError:
        return []
    return sorted(found)


def superfluous(parts: list[PartFile], limits: Limits, *, newest: str) -> list[PartFile]:
    """Return the files to remove so that the limits hold; the oldest go first.

    Whole builds go where there are too many, single files where there are too many bytes. The
    build `newest` (a hash) counts as the youngest.
    """
    last: dict[str, int] = {}
    for part in parts:
        last[part.build] = max(part.began_ms, last.get(part.build, 0))
    last.pop(newest, None)
    by_age = sorted(last, key=last.__getitem__)
    surplus = len(last) + 1 - limits.builds
    gone = set(by_age[: max(surplus, 0)])
    removed = [part for part in parts if part.build in gone]
    kept = [part for part in parts if part.build not in gone]
    # A new one is about to be made.
    size = sum(part.size_bytes for part in kept) + limits.part_bytes
    while kept and (size > limits.total_bytes or len(kept) >= limits.parts):
        size -= kept[0].size_bytes
        removed.append(kept.pop(0))
    return removed
