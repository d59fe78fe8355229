"""Security descriptors: made from text for what we create, and the owner of what is there."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hpcc.windows._library import (
    Library,
    WindowsError,
    checked,
    load_pointer,
    load_text,
    memory,
    text,
)

_ATTRIBUTES: Final = struct.Struct("<I4xQi4x")
_REVISION: Final = 1
_FILE_OBJECT, _KERNEL_OBJECT = 1, 6
_OWNER: Final = 1


@contextmanager
def security_attributes(library: Library, sddl: str) -> Iterator[int]:
    """Hold SECURITY_ATTRIBUTES with this descriptor, for a handle that is not inherited.

    Raises:
        WindowsError: the text is none.
    """
    with memory(library, text(sddl)) as at, memory(library, bytes(8)) as out:
        name = "ConvertStringSecurityDescriptorToSecurityDescriptorW"
        checked(library, name, at, _REVISION, out, 0)
        descriptor = load_pointer(library, out)
    try:
        with memory(library, _ATTRIBUTES.pack(_ATTRIBUTES.size, descriptor, 0)) as address:
            yield address
    finally:
        library.call("LocalFree", descriptor)


def owner_of_pipe(library: Library, pipe: int) -> str:
    """Return who made the pipe at the other end of a handle.

    Raises:
        WindowsError: the system does not tell.
    """
    return _owner(library, pipe, _KERNEL_OBJECT)


def owner_of_file(library: Library, handle: int) -> str:
    """Return the owner of an open file or directory.

    Raises:
        WindowsError: the system does not tell.
    """
    return _owner(library, handle, _FILE_OBJECT)


def sid_text(library: Library, sid: int) -> str:
    """Return a SID of the system's memory as text.

    Raises:
        WindowsError: it is none.
    """
    with memory(library, bytes(8)) as at:
        checked(library, "ConvertSidToStringSidW", sid, at)
        found = load_pointer(library, at)
    try:
        return load_text(library, found)
    finally:
        library.call("LocalFree", found)


def _owner(library: Library, handle: int, kind: int) -> str:
    with memory(library, bytes(8)) as owner, memory(library, bytes(8)) as descriptor:
        code = library.call(
            "GetSecurityInfo", handle, kind, _OWNER, owner, 0, 0, 0, descriptor
        ).value
        if code:
            raise WindowsError("GetSecurityInfo", code)
        try:
            return sid_text(library, load_pointer(library, owner))
        finally:
            library.call("LocalFree", load_pointer(library, descriptor))
