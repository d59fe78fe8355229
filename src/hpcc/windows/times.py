"""A file's times, size and identity on Windows, and whether a process has it open for writing.

Sources: Win32 GetFileInformationByHandleEx (FILE_BASIC_INFO), GetFileInformationByHandle and
"Creating and Opening Files" (sharing modes). NTFS sets the time of the last write when the last
handle that wrote is closed: so a time counts only for a file that can be opened while writers are
refused. The system refuses that, too, while a part of the file is mapped for writing.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

from hpcc.windows.files import INFORMATION, SHARE_ALL
from hpcc.windows.library import INVALID_HANDLE, Library, WindowsError, checked, memory, text

_GENERIC_READ: Final = 0x8000_0000
_READ_ATTRIBUTES: Final = 0x80
_SHARE_READ_AND_DELETE: Final = 1 | 4
_OPEN_EXISTING: Final = 3
_BACKUP_SEMANTICS: Final = 0x0200_0000
_BASIC: Final = struct.Struct("<4QII")
_BASIC_INFO: Final = 0
# 100 nanoseconds since 1601.
_TICK_NS: Final = 100
_UNTIL_1970: Final = 116_444_736_000_000_000


class KnownTimes(NamedTuple):
    """Times in nanoseconds since 1970. `changed_ns` is 0 where the file system keeps none."""

    written_ns: int
    changed_ns: int
    size: int
    identity: tuple[int, int]
    links: int
    attributes: int


def look_at_times(library: Library, path: str, *, refuses_writers: bool) -> KnownTimes | None:
    """Return what is known of a file or directory; links are followed. None if it is missing.

    `refuses_writers`: also None if it is open for writing. Nobody else can begin to write for the
    few microseconds of this call.
    """
    access = _GENERIC_READ if refuses_writers else _READ_ATTRIBUTES
    share = _SHARE_READ_AND_DELETE if refuses_writers else SHARE_ALL
    with memory(library, text(path)) as name:
        flags = _BACKUP_SEMANTICS
        answer = library.call("CreateFileW", name, access, share, 0, _OPEN_EXISTING, flags, 0)
    handle = answer.value
    if handle == INVALID_HANDLE:
        return None
    try:
        with memory(library, bytes(_BASIC.size)) as at:
            checked(library, "GetFileInformationByHandleEx", handle, _BASIC_INFO, at, _BASIC.size)
            _, _, written, changed, attributes, _ = _BASIC.unpack(library.load(at, _BASIC.size))
        with memory(library, bytes(INFORMATION.size)) as at:
            checked(library, "GetFileInformationByHandle", handle, at)
            fields = INFORMATION.unpack(library.load(at, INFORMATION.size))
    except WindowsError:
        return None
    finally:
        library.call("CloseHandle", handle)
    # 4 serial, 5-6 size, 7 links, 8-9 index
    size, index = fields[5] << 32 | fields[6], fields[8] << 32 | fields[9]
    return KnownTimes(
        _since_1970(written), _since_1970(changed), size, (fields[4], index), fields[7], attributes
    )


def _since_1970(ticks: int) -> int:
    return max(0, ticks - _UNTIL_1970) * _TICK_NS
