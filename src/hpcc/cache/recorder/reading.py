"""Reads recorded builds: which there are, and the compiles of one.

The files are this user's; every byte of them is checked all the same. A damaged file costs what
follows the damage, and the reader says so.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from hpcc.cache.recorder.compiles import MAX_AT_US, Compile, CompileKind
from hpcc.cache.recorder.link_record import LinkRecord
from hpcc.cache.recorder.part_bytes import MAX_FRAME_BYTES, BuildPart
from hpcc.cache.recorder.places import (
    DIRECTORY_NAME,
    LINKS_NAME,
    MAX_PART_BYTES,
    MAX_PARTS,
    PartFile,
    find_parts,
    hash_of,
)
from hpcc.core import CallerError, IntegrityError, NotFoundError
from hpcc.files import NONBLOCK, open_file

# A report holds this many compiles in memory, and leaves out older ones.
MAX_COMPILES: Final = 200_000
# No cache can serve these, as in `hpcc report`.
_NO_LOOKUPS: Final = frozenset({CompileKind.BYPASS, CompileKind.GIVEN_UP, CompileKind.REFUSED})
_MAX_READ: Final = MAX_PART_BYTES + MAX_FRAME_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedBuild:
    """The compiles and links of one build by their begin.

    `left_out` counts older compiles than fit.
    """

    build: str
    compiles: tuple[Compile, ...]
    links: tuple[LinkRecord, ...] = ()
    left_out: int = 0
    is_damaged: bool = False


@dataclass(slots=True)
class BuildLine:
    """One line of `hpcc builds`. `hits` needed no compiler, `lookups` could have been hits."""

    build: str
    began_us: int
    ended_us: int
    compiles: int = 0
    hits: int = 0
    bypassed: int = 0
    links: int = 0
    source: str = ""
    is_damaged: bool = False
    lookups: int = 0


class BuildLines:
    """Lists the builds of a cache directory, again and again. Not for several threads at once.

    A file is read again when its size has changed: daemons only append to it.
    """

    def __init__(self, cache_directory: str) -> None:
        self._directory = os.path.join(cache_directory, DIRECTORY_NAME)
        self._known: dict[PartFile, BuildLine | None] = {}

    def lines(self) -> list[BuildLine]:
        """Return the recorded builds, the one whose compiles ended last at the end."""
        found: dict[str, BuildLine] = {}
        files = _newest(find_parts(self._directory))
        # What is not there any more is forgotten.
        self._known = {file: self._line_of(file) for file in files}
        for line in self._known.values():
            if line is None:
                continue
            known = found.get(line.build)
            if known is not None:
                _add(known, line)
            elif line.compiles:
                found[line.build] = replace(line)
        return sorted(found.values(), key=lambda line: (line.ended_us, line.build))

    def _line_of(self, file: PartFile) -> BuildLine | None:
        if file in self._known:
            return self._known[file]
        part = _part_at(self._directory, file)
        return None if part is None else _line_of(part)


def _line_of(part: BuildPart) -> BuildLine:
    line = BuildLine(part.build, MAX_AT_US, 0)
    for c in part.compiles():
        line.began_us = min(line.began_us, c.began_us)
        line.ended_us = max(line.ended_us, c.ended_us)
        line.compiles += 1
        line.hits += c.kind in {CompileKind.HIT, CompileKind.FARM_CACHE}
        line.bypassed += c.kind is CompileKind.BYPASS
        line.lookups += c.kind not in _NO_LOOKUPS
        line.source = line.source or c.source
    line.is_damaged = part.is_damaged
    return line


def _add(line: BuildLine, more: BuildLine) -> None:
    """Add what a later file has of the same build."""
    line.began_us = min(line.began_us, more.began_us)
    line.ended_us = max(line.ended_us, more.ended_us)
    line.compiles += more.compiles
    line.hits += more.hits
    line.bypassed += more.bypassed
    line.lookups += more.lookups
    line.source = line.source or more.source
    line.is_damaged |= more.is_damaged


def list_builds(cache_directory: str) -> list[BuildLine]:
    """Return the recorded builds, the one whose compiles ended last at the end."""
    found = {line.build: line for line in BuildLines(cache_directory).lines()}
    for link in recorded_links(cache_directory).links:
        if link.build in found:
            found[link.build].links += 1
    return list(found.values())


def files_of(cache_directory: str, build: str | None = None) -> tuple[PartFile, ...]:
    """Return the files that are read; `build` (a hash) chooses those of one build.

    A build that has got a compile has other files, or one of another size.
    """
    files = _newest(find_parts(os.path.join(cache_directory, DIRECTORY_NAME)))
    return tuple(file for file in files if build is None or file.build == build)


class RecordedLink(NamedTuple):
    """A link with its build."""

    build: str
    record: LinkRecord


class RecordedLinks(NamedTuple):
    """Links, the one that ended last at the end."""

    links: tuple[RecordedLink, ...]
    is_damaged: bool


def recorded_links(cache_directory: str, build: str | None = None) -> RecordedLinks:
    """Return the links of one build, or of all. `is_damaged`: some could not be read."""
    found: list[RecordedLink] = []
    is_damaged = False
    for part in _parts_in(cache_directory, build, LINKS_NAME):
        for _ in part.compiles():
            pass  # these files have none; this reads the frames to the end
        found += (RecordedLink(part.build, link) for link in part.links)
        is_damaged |= part.is_damaged
    found.sort(key=lambda link: link.record.began_us + link.record.took_us)
    return RecordedLinks(tuple(found), is_damaged)


def find_build(cache_directory: str, name: str) -> RecordedBuild:
    """Return the build with this name, or whose name begins so; `last` is the last to end.

    Raises:
        NotFoundError: there is none.
        CallerError: several begin so.
    """
    lines = list_builds(cache_directory)
    if not lines:
        raise NotFoundError(
            "no build is recorded: compile through hpcc, and ask again", reason="no-build"
        )
    names = [line.build for line in lines]
    if name == "last" and name not in names:
        return _read(cache_directory, names[-1])
    if name in names:
        return _read(cache_directory, name)
    fitting = [known for known in names if name in known]
    if not fitting:
        raise NotFoundError(
            f"no build {name!r} is recorded; `hpcc builds` lists those that are", reason="no-build"
        )
    if len(fitting) > 1:
        raise CallerError(
            f"{name!r} is in the names of {len(fitting)} builds, such as {fitting[-1]}; "
            "write more of the name"
        )
    return _read(cache_directory, fitting[0])


def read_build(cache_directory: str, build: str) -> RecordedBuild:
    """Return the build whose identity has this hash, as in the names of its files.

    Raises:
        NotFoundError: there is none.
    """
    for file in files_of(cache_directory, build):
        part = _part_at(os.path.join(cache_directory, DIRECTORY_NAME), file)
        if part is not None and hash_of(part.build) == build:
            return _read(cache_directory, part.build)
    raise NotFoundError("this build is not recorded, or no longer", reason="no-build")


def _read(cache_directory: str, build: str) -> RecordedBuild:
    compiles: deque[Compile] = deque(maxlen=MAX_COMPILES)
    count, is_damaged = 0, False
    for part in _parts_in(cache_directory, build, DIRECTORY_NAME):
        for compile_ in part.compiles():
            compiles.append(compile_)
            count += 1
        is_damaged |= part.is_damaged
    if not compiles:  # removed meanwhile to make room
        raise NotFoundError(f"the record of build {build!r} is gone", reason="no-build")
    ordered = tuple(sorted(compiles, key=lambda c: (c.began_us, c.took_us)))
    links = recorded_links(cache_directory, build)
    return RecordedBuild(
        build=build,
        compiles=ordered,
        links=tuple(link.record for link in links.links),
        left_out=count - len(ordered),
        is_damaged=is_damaged or links.is_damaged,
    )


def _parts_in(cache_directory: str, build: str | None, name: str) -> Iterator[BuildPart]:
    """Yield the readable parts, oldest first; only those of one build if it is given."""
    directory = os.path.join(cache_directory, name)
    wanted = None if build is None else hash_of(build)
    for file in _newest(find_parts(directory)):
        if wanted is not None and file.build != wanted:
            continue
        part = _part_at(directory, file)
        if part is not None and build in {None, part.build}:
            yield part


def _part_at(directory: str, file: PartFile) -> BuildPart | None:
    """Return a file's content; None if it cannot be read."""
    try:
        return BuildPart(_content(os.path.join(directory, file.name)))
    except IntegrityError:
        return None


def _newest(parts: list[PartFile]) -> list[PartFile]:
    """Leave out the oldest files if somebody put more there than a daemon does."""
    return parts[-2 * MAX_PARTS :]


def _content(path: str) -> bytes:
    """Return a file's bytes; empty if it cannot be opened, or is longer than a part can be."""
    try:
        fd = open_file(path, os.O_RDONLY | NONBLOCK)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        data = file.read(_MAX_READ + 1)
    return data if len(data) <= _MAX_READ else b""
