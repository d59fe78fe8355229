"""Members of a static library: each is an object, byte for byte.

Source: the `ar` format of System V and GNU (`man 5 ar`), with BSD's long names. A thin archive only
names files elsewhere.

Where linkers look for them, which is at the begin, the tables of symbols and of long names are not
members. A linker takes objects from the places that the symbol table names, and from nowhere else.
So a table that names another place than a member's is refused, and in every other place a member
counts, even one with the name of a table. Otherwise a linker finds objects that this list lacks.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterator
from typing import BinaryIO, Final, Literal, NamedTuple

from hpcc.core import CallerError

MARK: Final = b"!<arch>\n"
THIN_MARK: Final = b"!<thin>\n"
MAX_MEMBERS: Final = 65_536
_MAX_NAMES_BYTES: Final = 4 << 20
_MAX_SYMBOLS_BYTES: Final = 64 << 20
_MAX_NAME: Final = 4096
_HEAD_BYTES: Final = 60
_END: Final = b"`\n"
_CHUNK: Final = 1 << 20
_SLICE: Final = 1 << 16
# Symbol tables, and how many bytes a number in them has.
_GNU_TABLES: Final = {b"/": 4, b"/SYM64/": 8}
_BSD_TABLES: Final = {b"__.SYMDEF": 4, b"__.SYMDEF SORTED": 4, b"__.SYMDEF_64": 8}
_TABLES: Final = _GNU_TABLES | _BSD_TABLES
_NAMES: Final = b"//"


class LibraryMember(NamedTuple):
    """A member of an archive; `digest` is its SHA-256 in hex."""

    name: str
    digest: str


def read_members(file: BinaryIO, what: str) -> Iterator[LibraryMember]:
    """Yield the members of an archive, in order, from the file's position.

    Raises:
        CallerError: it is another file, a thin archive, or malformed. The caller has to read to the
            end: only there it is known what the symbol table names.
    """
    mark = file.read(len(MARK))
    if mark == THIN_MARK:
        raise CallerError(
            f"{what} is a thin archive: it has no objects, only their names; make it without T"
        )
    if mark != MARK:
        raise CallerError(f"{what} is not an archive")
    reader = _MemberReader(file, what)
    place = len(MARK)
    while head := file.read(_HEAD_BYTES):
        size = _size(head, what)
        member = reader.read(head[:16].rstrip(b" "), size, place)
        file.read(size & 1)
        place += _HEAD_BYTES + size + (size & 1)
        if member is not None:
            yield member
    if not reader.named <= reader.members:
        raise CallerError(f"{what} is damaged: its symbol table names a place without a member")


class _MemberReader:
    """Reads what follows each header; `named` are the places that symbol tables name."""

    def __init__(self, file: BinaryIO, what: str) -> None:
        self._file, self._what = file, what
        self._names = b""
        # The tables that may still come. Microsoft's libraries have a second one of symbols.
        self._tables = {*_TABLES, _NAMES}
        self.named: set[int] = set()
        self.members: set[int] = set()

    def read(self, raw: bytes, size: int, place: int) -> LibraryMember | None:
        """Return the member whose header is at `place`, None for a table."""
        if raw == _NAMES and _NAMES in self._tables:
            self._names = _exactly(self._file, size, _MAX_NAMES_BYTES, self._what)
            self._tables = set()
            return None
        name, rest = _name(raw, self._names, self._file, size, self._what)
        table = raw if raw in _GNU_TABLES else name
        if table in self._tables:
            data = _exactly(self._file, rest, _MAX_SYMBOLS_BYTES, self._what)
            is_second = len(self._tables) == len((b"/", _NAMES))
            self.named |= _places(table, data, self._what, is_second=is_second)
            self._tables = {b"/", _NAMES} if table == b"/" and not is_second else {_NAMES}
            return None
        self._tables = set()
        self.members.add(place)
        if len(self.members) > MAX_MEMBERS:
            raise CallerError(f"{self._what} has more than {MAX_MEMBERS} members")
        digest = _digest(self._file, rest, self._what)
        return LibraryMember(name.decode("utf-8", "replace"), digest)


def _places(table: bytes, data: bytes, what: str, *, is_second: bool) -> set[int]:
    """Return the places in the file that a symbol table names."""
    wrong = CallerError(f"{what} is damaged: its symbol table has another form")
    width = _TABLES[table]
    order: Literal["big", "little"] = "little"
    if table in _GNU_TABLES and not is_second:
        order = "big"
    size = int.from_bytes(data[:width], order)
    # BSD counts bytes, of pairs: the place of a name, and that of its member.
    step = 2 if table in _BSD_TABLES else 1
    end = width + (size if step > 1 else size * width)
    if not width <= end <= len(data) or (end - width) % (width * step):
        raise wrong
    numbers = array("Q" if width > 4 else "I", data[width:end])  # noqa: PLR2004 - bytes of a number
    if order != sys.byteorder:
        numbers.byteswap()
    found: set[int] = set()
    for at in range(step - 1, len(numbers), _SLICE):
        found.update(numbers[at : at + _SLICE : step])
        if len(found) > MAX_MEMBERS:
            raise wrong
    return found


def _size(head: bytes, what: str) -> int:
    text = head[48:58].rstrip(b" ")
    if len(head) < _HEAD_BYTES or head[58:] != _END or not text.isdigit():
        raise CallerError(f"{what} is damaged: a member has no header")
    return int(text)


def _name(raw: bytes, names: bytes, file: BinaryIO, size: int, what: str) -> tuple[bytes, int]:
    """Return the name of a member, and how many of its bytes follow."""
    if raw.startswith(b"#1/") and raw[3:4].isdigit():  # BSD: the name is before the content
        length = int(raw[3:]) if raw[3:].isdigit() else size + 1
        if length > size:
            raise CallerError(f"{what} is damaged: a name is longer than its member")
        return _exactly(file, length, _MAX_NAME, what).rstrip(b"\0"), size - length
    if raw.startswith(b"/") and raw[1:].isdigit():
        start = int(raw[1:])
        end = names.find(b"\n", start)
        if not start < len(names) or end < 0 or end - start > _MAX_NAME:
            raise CallerError(f"{what} is damaged: a member's name is missing")
        return names[start:end].removesuffix(b"/"), size
    return raw if raw in _GNU_TABLES else raw.removesuffix(b"/"), size


def _exactly(file: BinaryIO, size: int, most: int, what: str) -> bytes:
    data = file.read(size) if size <= most else b""
    if len(data) != size:
        raise CallerError(f"{what} is damaged: a table or a name is cut, or too long")
    return data


def _digest(file: BinaryIO, size: int, what: str) -> str:
    hasher = hashlib.sha256()
    while size:
        data = file.read(min(size, _CHUNK))
        if not data:
            raise CallerError(f"{what} is damaged: its last member is cut")
        hasher.update(data)
        size -= len(data)
    return hasher.hexdigest()
