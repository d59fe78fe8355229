"""What `hpcc.files.on_posix` has, by Windows' calls. Not yet run on Windows; tried under Wine."""

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

from hpcc.files.access import FileAccess
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
)
from hpcc.windows.users import own_sid

# Nothing waits for another end when it is opened here.
NONBLOCK: Final = 0
_KINDS: Final = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


@cache
def _library() -> Library:
    return load_library()


def _runtime() -> Any:  # noqa: ANN401 - the module has types on Windows alone
    return import_module("msvcrt")


def open_file(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file by `flags` of `os.open`: those of reading, writing, making and appending.

    It may be renamed and removed while it is open, and is read and written as bytes. `mode` 0600
    is a list of who may open what is made here; another mode is the directory's list.
    """
    kind = flags & _KINDS
    how = OPEN_EXISTING
    if flags & os.O_CREAT:
        how = CREATE_NEW if flags & os.O_EXCL else OPEN_ALWAYS
    with _as_os_errors(path):
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


def lock_now(descriptor: int, *, exclusive: bool = True) -> None:
    """Lock an open file now or not at all."""
    with _as_os_errors():
        is_locked = lock_handle(_library(), _handle(descriptor), exclusive=exclusive)
    if not is_locked:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def sync_file(descriptor: int) -> None:
    """Make what was written durable."""
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Do nothing: Windows has no call for it that works without more rights than these."""
    del directory


def access_of(descriptor: int) -> FileAccess:
    """Return what an open file is; the system and its administrators count as its owner."""
    handle = _handle(descriptor)
    with _as_os_errors():
        return FileAccess(
            is_regular=stat.S_ISREG(os.fstat(descriptor).st_mode),
            is_own=is_own_file(_library(), handle),
            is_private=is_private_file(_library(), handle),
        )


def privacy_remedy(path: Path) -> str:
    """Return what closes a file to others, as words that follow a colon."""
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
        # Windows' Python makes errno and class of it from the last one.
        raise OSError(0, told(error.code), name, error.code) from error
