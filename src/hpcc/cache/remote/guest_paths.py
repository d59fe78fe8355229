"""Maps paths of this machine to paths in a guest's input tree; finds what is installed here."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable
from typing import Final

from hpcc.compilers.invocation.guest import NotPortableError, as_text
from hpcc.core import CallerError, check_guest_path
from hpcc.core.reasons.fallback import FallbackReason

SYSTEM: Final = (b"/usr/include", b"/usr/local/include", b"/usr/lib", b"/usr/share", b"/lib")
"""Directories of headers that an image has itself."""

_INSTALLED_BELOW: Final = (b"/usr/", b"/opt/", b"/nix/store/", b"/gnu/store/")
_ROOT: Final = 0
_READABLE: Final = {stat.S_IFREG: 0o004, stat.S_IFDIR: 0o005}


def guest_path(path: bytes) -> str:
    """Return a path relative to the root as a path in the guest's tree.

    Raises:
        NotPortableError: a guest cannot have a file of this name.
    """
    text = as_text([path])[0]
    try:
        return check_guest_path(text)
    except CallerError as error:
        raise NotPortableError(FallbackReason.PATH) from error


def is_under(path: bytes, directory: bytes) -> bool:
    """Tell whether a path is a directory or lies below it; compares only the names."""
    return path == directory or path.startswith(directory.rstrip(b"/") + b"/")


def installed_files() -> Callable[[bytes], bool]:
    """Return a function that tells whether a normal path is installed for everybody.

    It is below one of `_INSTALLED_BELOW` and not a system header. On its whole way root owns each
    directory, everybody may read it, only root may write it, and there is no link and no hidden
    name. The function remembers what it saw, so use it for one compile.
    """
    known: dict[bytes, bool] = {}

    def is_right(path: bytes) -> bool:
        found = known.get(path)
        if found is None:
            above = posixpath.dirname(path)
            found = known[path] = _is_for_everybody(path) and (above == path or is_right(above))
        return found

    def is_installed(path: bytes) -> bool:
        if not path.startswith(_INSTALLED_BELOW) or b"/." in path or is_system(path):
            return False
        return is_right(path)

    return is_installed


def _is_for_everybody(path: bytes) -> bool:
    """Tell whether root put a file or directory here, and everybody may read it."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return False
    needed = _READABLE.get(stat.S_IFMT(status.st_mode))
    if needed is None or status.st_uid != _ROOT or status.st_mode & needed != needed:
        return False
    is_group_safe = not status.st_mode & stat.S_IWGRP or status.st_gid == 0
    return is_group_safe and not status.st_mode & stat.S_IWOTH


def is_system(path: bytes) -> bool:
    """Tell whether an image has this directory itself, or the one that the path is below."""
    return any(is_under(path, directory) for directory in SYSTEM)
