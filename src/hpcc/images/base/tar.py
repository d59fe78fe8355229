"""A strict reader for the tar archives of hostile layers.

The standard library's reader keeps every member in memory before Python 3.13, reads extended
headers of any size into memory, and treats a damaged header in the middle of an archive as its
end. This reader keeps no members, bounds every size, and refuses entries that it does not
understand.
Formats: POSIX.1-2017 pax and ustar, GNU long names (GNU tar manual, "Basic Tar Format").
"""

from __future__ import annotations

import enum
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.core import IntegrityError
from hpcc.images.base.limits import MAX_EXTENDED_HEADER_BYTES, MAX_EXTENDED_HEADERS

BLOCK_BYTES: Final = 512
_CHUNK_BYTES: Final = 1 << 18
_MAX_ID: Final = (1 << 31) - 1
# The pax keywords that change names, sizes or owners. Other keywords cannot change the tree.
_READ_KEYWORDS: Final = frozenset({"path", "linkpath", "size", "uid", "gid"})


class Readable(Protocol):
    """The source of an archive's bytes."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; empty only at the end."""
        ...


class MemberKind(enum.Enum):
    """The kinds of members; every other kind is refused."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARD_LINK = "hard link"
    DEVICE = "device"


_KINDS: Final = {
    tarfile.REGTYPE: MemberKind.FILE,
    tarfile.AREGTYPE: MemberKind.FILE,
    tarfile.CONTTYPE: MemberKind.FILE,
    tarfile.DIRTYPE: MemberKind.DIRECTORY,
    tarfile.SYMTYPE: MemberKind.SYMLINK,
    tarfile.LNKTYPE: MemberKind.HARD_LINK,
    tarfile.CHRTYPE: MemberKind.DEVICE,
    tarfile.BLKTYPE: MemberKind.DEVICE,
    tarfile.FIFOTYPE: MemberKind.DEVICE,
}
_PAX_TYPES: Final = frozenset({tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE})
_GNU_LONG_KEYS: Final = {tarfile.GNUTYPE_LONGNAME: "path", tarfile.GNUTYPE_LONGLINK: "linkpath"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveMember:
    """One entry as the archive spells it. `name` and `link` are unchecked.

    Names are decoded with surrogateescape. Only files have a size.
    """

    name: str
    kind: MemberKind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    size_bytes: int = 0
    link: str = ""


def shown(name: str) -> str:
    """Return a hostile name for an error text: at most 80 characters, as printable ASCII."""
    return ascii(name[:80])


class TarReader:
    """Reads the members of one archive once, in order."""

    def __init__(self, source: Readable, *, label: str) -> None:
        self._source = source
        self._label = label
        self._pending_bytes = 0
        self._left_bytes = 0

    def members(self) -> Iterator[ArchiveMember]:
        """Yield the members. Content that is not read through `content` is skipped.

        Raises:
            IntegrityError: the archive is truncated or damaged, or has an entry of a refused kind.
        """
        extra: dict[str, str] = {}
        extended_count = 0
        while (header := self._next_header()) is not None:
            if self._take_extended(header, extra):
                extended_count += 1
                if extended_count > MAX_EXTENDED_HEADERS:
                    raise self._error("too many extended headers before one member", "tar-header")
                continue
            member = self._member(header, extra)
            extra, extended_count = {}, 0
            self._left_bytes = member.size_bytes
            self._pending_bytes = -member.size_bytes % BLOCK_BYTES
            yield member

    def content(self) -> Iterator[bytes]:
        """Yield the content of the member that `members` yielded last.

        Raises:
            IntegrityError: the archive ends too early.
        """
        while self._left_bytes:
            data = self._source.read(min(self._left_bytes, _CHUNK_BYTES))
            if not data:
                raise self._truncated()
            self._left_bytes -= len(data)
            yield data

    def _next_header(self) -> tarfile.TarInfo | None:
        for _ in self.content():
            pass
        self._exactly(self._pending_bytes)
        self._pending_bytes = 0
        block = self._exactly(BLOCK_BYTES)
        if block == bytes(BLOCK_BYTES):
            return None
        try:
            return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError, OverflowError) as error:
            raise self._error("a damaged header", "tar-header") from error

    def _take_extended(self, header: tarfile.TarInfo, extra: dict[str, str]) -> bool:
        """Read an extended header into `extra`; return False if the header is a member."""
        if header.type in _GNU_LONG_KEYS:
            raw = self._extended(header.size).split(b"\0", 1)[0]
            extra[_GNU_LONG_KEYS[header.type]] = raw.decode("utf-8", "surrogateescape")
            return True
        if header.type in _PAX_TYPES:
            for key, value in self._pax_records(self._extended(header.size)):
                if key.startswith("GNU.sparse."):
                    raise self._error("a sparse file", "tar-entry-type")
                if key in _READ_KEYWORDS:
                    extra[key] = value
            return True
        if header.type == tarfile.XGLTYPE:
            # git archive stores its commit here. Tools differ in how they apply names or sizes
            # for all later members, so those are refused.
            for key, _ in self._pax_records(self._extended(header.size)):
                if key in _READ_KEYWORDS or key.startswith("GNU.sparse."):
                    raise self._error(f"a global header that sets {key}", "tar-header")
            return True
        return False

    def _extended(self, size: int) -> bytes:
        if not 0 <= size <= MAX_EXTENDED_HEADER_BYTES:
            raise self._error(f"an extended header of {size} bytes", "tar-header-size")
        data = self._exactly(size)
        self._pending_bytes = -size % BLOCK_BYTES
        return data

    def _pax_records(self, data: bytes) -> Iterator[tuple[str, str]]:
        """Split `LENGTH KEY=VALUE newline` records."""
        at = 0
        while at < len(data):
            space = data.find(b" ", at, at + 8)
            length_text = data[at:space] if space > 0 else b""
            if not length_text.isdigit():
                # Some writers pad with NUL bytes. Other bytes are damage.
                if data[at:].strip(b"\0"):
                    raise self._error("a damaged extended header", "tar-header")
                return
            end = at + int(length_text)
            key, equals, value = data[space + 1 : end - 1].partition(b"=")
            if end > len(data) or end <= space + 1 or data[end - 1 : end] != b"\n" or not equals:
                raise self._error("a damaged extended header", "tar-header")
            yield (
                key.decode("utf-8", "surrogateescape"),
                value.decode("utf-8", "surrogateescape"),
            )
            at = end

    def _member(self, header: tarfile.TarInfo, extra: dict[str, str]) -> ArchiveMember:
        name = extra.get("path") or header.name
        kind = _KINDS.get(header.type)
        if kind is None:
            raise self._error(f"an entry of type {header.type!r} ({shown(name)})", "tar-entry-type")
        # Old archivers mark a directory with a name that ends in a slash.
        if kind is MemberKind.FILE and name.endswith("/"):
            kind = MemberKind.DIRECTORY
        size = self._number(extra, "size", header.size)
        if size < 0:
            raise self._error(f"a negative size ({shown(name)})", "tar-header")
        return ArchiveMember(
            name=name,
            kind=kind,
            mode=header.mode & 0o7777,
            uid=_sane_id(self._number(extra, "uid", header.uid)),
            gid=_sane_id(self._number(extra, "gid", header.gid)),
            # Links, directories and devices have no content, even if their header has a size. Go's
            # archive/tar, which writes most layers, reads them in the same way.
            size_bytes=size if kind is MemberKind.FILE else 0,
            link=extra.get("linkpath") or header.linkname,
        )

    def _number(self, extra: dict[str, str], key: str, default: int) -> int:
        text = extra.get(key)
        if not text:
            return default
        if len(text) > 20 or not (text.isascii() and text.isdigit()):  # noqa: PLR2004 - digits of 2**64
            raise self._error(f"an extended header with a bad {key}", "tar-header")
        return int(text)

    def _exactly(self, size: int) -> bytes:
        data = self._source.read(size) if size else b""
        while len(data) < size:
            more = self._source.read(size - len(data))
            if not more:
                raise self._truncated()
            data += more
        return data

    def _truncated(self) -> IntegrityError:
        return self._error("the archive ends too early: it was truncated", "layer-truncated")

    def _error(self, what: str, reason: str) -> IntegrityError:
        return IntegrityError(f"{self._label}: {what}", reason=reason)


def _sane_id(value: int) -> int:
    """Return the id, or 0 if the kernel cannot hold it. Root has no privilege in a guest."""
    return value if 0 <= value <= _MAX_ID else 0
