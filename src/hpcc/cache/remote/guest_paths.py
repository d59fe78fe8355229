"""Maps paths of this machine to paths in a guest's input tree."""

from __future__ import annotations

from hpcc.compilers.invocation.guest import NotPortableError, as_text
from hpcc.core import CallerError, check_guest_path
from hpcc.core.reasons.fallback import FallbackReason


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
