"""How a file was made of its parts: what its bytes show, or what a recorded link says.

A static library has its objects byte for byte. Of a linked file only the linker knew, so a record
of its link is needed, which is the word of the machine that linked. A library among the inputs of
a link counts with all its members: which of them the linker took is not known.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

from hpcc.core import CallerError, NotFoundError
from hpcc.evidence.archive import MARK, THIN_MARK, read_members
from hpcc.evidence.model import DIGEST, MAX_INPUTS, FilePart, Grade, Making, clean
from hpcc.evidence.packages import SystemPackage

_CHUNK: Final = 1 << 20
_MAX_NAME: Final = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkClaim:
    """A link that a machine recorded.

    `inputs` are paths, each with its SHA-256 in hex, or a word that says why there is none.
    """

    output: str
    digest: str
    inputs: tuple[tuple[str, str], ...]
    left_out: int
    command: tuple[str, ...]
    facts: Mapping[str, str]


class ReadSubject(NamedTuple):
    """A file as it was read once: its SHA-256 in hex and, of an archive, its members."""

    name: str
    digest: str
    members: tuple[FilePart, ...] | None


class _HashingReader:
    """Hashes what is read, so that members and digest are of the same bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.hasher = file, hashlib.sha256()
        self._ahead = b""

    def peek(self, size: int) -> bytes:
        self._ahead = self._file.read(size)
        self.hasher.update(self._ahead)
        return self._ahead

    def read(self, size: int) -> bytes:
        ahead, self._ahead = self._ahead[:size], self._ahead[size:]
        data = self._file.read(size - len(ahead))
        self.hasher.update(data)
        return ahead + data


def read_subject(path: Path) -> ReadSubject:
    """Read a file once.

    Raises:
        NotFoundError: there is none.
        CallerError: it is not a regular file, or is an archive that cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CallerError(f"{path} is not a regular file")
        reader, members = _HashingReader(file), None
        if reader.peek(len(MARK)) in {MARK, THIN_MARK}:
            found = read_members(cast("BinaryIO", reader), str(path))
            members = tuple(FilePart(clean(m.name), m.digest) for m in found)
        while reader.read(_CHUNK):
            pass
    return ReadSubject(clean(path.name)[:_MAX_NAME], reader.hasher.hexdigest(), members)


def making_of(
    subject: ReadSubject,
    links: Sequence[LinkClaim],
    packages: Callable[[Mapping[str, str]], Mapping[str, SystemPackage]],
) -> Making:
    """Return how a file was made. `links` are recorded ones, the last at the end.

    `packages` names packages of system files: see `packages_of`.

    Raises:
        CallerError: it has more parts than evidence may have.
    """
    name, digest, members = subject
    if members is not None:
        return Making(name=name, digest=digest, grade=Grade.MEMBERS, parts=members)
    if not DIGEST.fullmatch(digest):
        # A word of a record, for an output that was changed since: it may be of any link.
        part = FilePart(name, "", note=f"no digest: {digest}")
        return Making(name=name, digest=digest, grade=Grade.CLAIMED, parts=(part,))
    link = next((link for link in reversed(links) if link.digest == digest), None)
    if link is None:
        part = FilePart(name, digest)
        return Making(name=name, digest=digest, grade=Grade.WHOLE, parts=(part,))
    parts = tuple(_parts(link, {other.digest for other in links}, packages))
    if len(parts) > MAX_INPUTS:
        raise CallerError(f"{name} has {len(parts)} parts, more than evidence may have")
    facts = {key: clean(value) for key, value in link.facts.items()}
    return Making(
        name=name, digest=digest, grade=Grade.CLAIMED, parts=parts, left_out=link.left_out,
        facts=facts, command=tuple(map(clean, link.command)),
    )  # fmt: skip


def _parts(
    link: LinkClaim,
    linked: set[str],
    packages: Callable[[Mapping[str, str]], Mapping[str, SystemPackage]],
) -> Iterable[FilePart]:
    known = {path: digest for path, digest in link.inputs if DIGEST.fullmatch(digest)}
    named = packages(known)
    for path, digest in link.inputs:
        name = clean(path)
        if path not in known:
            yield FilePart(name, "", note=f"no digest: {digest}")
        elif path in named:
            yield FilePart(name, digest, package=named[path].url, note=named[path].note)
        elif path.endswith(".a"):
            yield from _members(path, digest)
        elif digest in linked:
            yield FilePart(name, digest, note="made by a recorded link: attest it as well")
        else:
            yield FilePart(name, digest)


def _members(path: str, digest: str) -> Iterable[FilePart]:
    """Return the members of a library that a link read, or the library if they cannot be had."""
    name = clean(path)
    try:
        subject = read_subject(Path(path))
    except (CallerError, NotFoundError):
        return (FilePart(name, digest, note="the library cannot be read any more"),)
    if subject.digest != digest or subject.members is None:
        return (FilePart(name, digest, note="the library was changed after the link"),)
    return (FilePart(f"{name}({member.name})", member.digest) for member in subject.members)
