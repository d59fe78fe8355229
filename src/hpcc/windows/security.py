"""Security descriptors: made from text for new objects, and the owners of existing ones."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hpcc.windows.library import (
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
_OWNER, _DACL = 1, 4
# ACL: revision, size in bytes, number of entries. ACE: kind, flags, size in bytes, access mask.
_ACL: Final = struct.Struct("<BxHHxx")
_ACE: Final = struct.Struct("<BBHI")
_MAX_ACES: Final = 1024
_ALLOWED, _DENIED = 0, 1
_INHERIT_ONLY: Final = 8
_ANY_RIGHT: Final = 0xFFFF_FFFF


@contextmanager
def security_attributes(library: Library, sddl: str) -> Iterator[int]:
    """Yield the address of SECURITY_ATTRIBUTES with this descriptor; the handle is not inherited.

    Raises:
        WindowsError: the text is not a valid descriptor.
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
    """Return the user who created the pipe at the other end of a handle.

    Raises:
        WindowsError: the system call failed.
    """
    return _owner(library, pipe, _KERNEL_OBJECT)


def owner_of_file(library: Library, handle: int) -> str:
    """Return the owner of an open file or directory.

    Raises:
        WindowsError: the system call failed.
    """
    return _owner(library, handle, _FILE_OBJECT)


def allowed_on_file(
    library: Library, handle: int, rights: int = _ANY_RIGHT
) -> frozenset[str] | None:
    """Return the SIDs that a file's list gives one of these rights; None: everyone, or unclear.

    Entries that deny a right are not read: they only make the list stricter.

    Raises:
        WindowsError: the system call failed.
    """
    with memory(library, bytes(8)) as out, memory(library, bytes(8)) as descriptor:
        code = library.call(
            "GetSecurityInfo", handle, _FILE_OBJECT, _DACL, 0, 0, out, 0, descriptor
        ).value
        if code:
            raise WindowsError("GetSecurityInfo", code)
        try:
            acl = load_pointer(library, out)
            return _allowed(library, acl, rights) if acl else None
        finally:
            library.call("LocalFree", load_pointer(library, descriptor))


def _allowed(library: Library, acl: int, rights: int) -> frozenset[str] | None:
    _, _, count = _ACL.unpack(library.load(acl, _ACL.size))
    if count > _MAX_ACES:
        return None
    found, at = set(), acl + _ACL.size
    for _ in range(count):
        kind, flags, size, mask = _ACE.unpack(library.load(at, _ACE.size))
        if kind == _ALLOWED and not flags & _INHERIT_ONLY:
            if mask & rights:
                found.add(sid_text(library, at + _ACE.size))
        elif kind not in {_ALLOWED, _DENIED}:
            return None  # entries for callbacks and objects, which files do not have by default
        at += size
    return frozenset(found)


def sid_text(library: Library, sid: int) -> str:
    """Return the SID at this address as text.

    Raises:
        WindowsError: it is not a SID.
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
