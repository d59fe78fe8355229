"""The functions of `hpcc.files.on_posix` with Windows calls. Run under Wine, not yet on Windows."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from hpcc.core import CallerError
from hpcc.files.access import FileAccess
from hpcc.windows.files import SYSTEM_OWNERS, look_at, make_private_directory
from hpcc.windows.library import Library, WindowsError, load_library
from hpcc.windows.open_files import (
    CREATE_NEW,
    OPEN_ALWAYS,
    OPEN_EXISTING,
    LinkRefusedError,
    is_own_file,
    is_private_file,
    lock_handle,
    open_handle,
    open_shared_handle,
)
from hpcc.windows.users import own_sid

# No open call here waits for another end.
NONBLOCK: Final = 0
_KINDS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


@cache
def _library() -> Library:
    return load_library()


def _runtime() -> Any:  # noqa: ANN401 - only Windows has the module's types
    return import_module("msvcrt")


def open_file(path: Path | str, flags: int, mode: int = 0o600) -> int:
    """Return a descriptor opened by `flags` of `os.open` for read, write, create and append.

    The file may be renamed and removed while it is open, and its content is bytes. With `mode` 0600
    a new file gets its own access list; with other modes it inherits the directory's.
    """
    kind = flags & _KINDS
    how = OPEN_EXISTING
    if flags & os.O_CREAT:
        how = CREATE_NEW if flags & os.O_EXCL else OPEN_ALWAYS
    with _as_os_errors(Path(path)):
        handle = open_handle(
            _library(),
            str(path),
            reads=kind != os.O_WRONLY,
            writes=kind != os.O_RDONLY,
            how=how,
            is_private=not mode & 0o077,
        )
    try:
        return int(_runtime().open_osfhandle(handle, flags & os.O_APPEND))
    except OSError:
        _library().call("CloseHandle", handle)
        raise


def own_uid() -> int:
    """Return 0: Windows has no such number, and Python's `st_uid` is 0 for each file."""
    return 0


def make_own_directory(directory: Path | str) -> None:
    """Create a directory that only this user and the system may use, or check whose it is."""
    Path(directory).parent.mkdir(parents=True, exist_ok=True)
    with _as_os_errors(Path(directory)):
        owner = own_sid(_library())
        make_private_directory(_library(), str(directory), owner)
    found = look_at(_library(), str(directory))
    if found is None or found.is_link or found.owner not in {owner, *SYSTEM_OWNERS}:
        raise CallerError(
            f"{directory} belongs to another user or is a link; remove it, or set HPCC_DIR",
            reason="foreign-directory",
        )


def open_shared(path: Path | str) -> int:
    """Return a descriptor to read a file, also behind a link; others may do anything meanwhile."""
    with _as_os_errors(Path(path)):
        handle = open_shared_handle(_library(), str(path))
    try:
        return int(_runtime().open_osfhandle(handle, os.O_RDONLY))
    except OSError:
        _library().call("CloseHandle", handle)
        raise


def lock_now(descriptor: int, *, exclusive: bool = True) -> None:
    """Lock an open file without waiting."""
    with _as_os_errors():
        is_locked = lock_handle(_library(), _handle(descriptor), exclusive=exclusive)
    if not is_locked:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def sync_file(descriptor: int) -> None:
    """Make written data durable."""
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Do nothing: Windows has no call for this that works without further rights."""
    del directory


def access_of(descriptor: int) -> FileAccess:
    """Return the access of an open file. The system and its administrators count as its owner."""
    handle = _handle(descriptor)
    with _as_os_errors():
        return FileAccess(
            is_regular=stat.S_ISREG(os.fstat(descriptor).st_mode),
            is_own=is_own_file(_library(), handle),
            is_private=is_private_file(_library(), handle),
        )


def privacy_remedy(path: Path) -> str:
    """Return how to close a file to others, as text after a colon."""
    who = f"*S-1-5-18:F *S-1-5-32-544:F *{own_sid(_library())}:F"
    return f'icacls "{path}" /inheritance:r /grant:r {who}'


def _handle(descriptor: int) -> int:
    return int(_runtime().get_osfhandle(descriptor))


@contextmanager
def _as_os_errors(path: Path | None = None) -> Iterator[None]:
    try:
        yield
    except LinkRefusedError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path)) from error
    except WindowsError as error:
        told: Callable[[int], str] = vars(ctypes)["FormatError"]
        name = None if path is None else str(path)
        # On Windows, Python derives errno and the exception's class from the last argument.
        raise OSError(0, told(error.code), name, error.code) from error
