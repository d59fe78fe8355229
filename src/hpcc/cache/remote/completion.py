"""Finds files that a guest lacked, checks them, and remembers them for the command.

The scan may miss a file: the image's headers may include a name that no header here does. The guest
then fails and names the file. A hostile guest could name any file, so one is sent only if

- argv's search path or the directory of the including file leads to it;
- it is under the root, also with links resolved;
- neither it nor a directory above it is hidden, and its name looks like a header;
- no directory that the marker excludes contains it, and git does not ignore it where no marker is.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.key.marker import Marker
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.guest_paths import is_under
from hpcc.cache.remote.remote_closure import search_of
from hpcc.compilers.invocation.guest import GUEST_ROOT, GuestMap
from hpcc.compilers.scan.include_closure import UnscannableError
from hpcc.compilers.scan.missing_includes import MissingInclude, may_be_included, missing_includes
from hpcc.core.memo import BoundedMemo

MAX_ADDED_BYTES: Final = 4 << 20
_MAX_COMMANDS: Final = 4_096
_MAX_FILES: Final = 64


class Completions:
    """Further files that each command needs. Thread-safe: each step is one dict operation."""

    def __init__(self) -> None:
        self._needed: BoundedMemo[bytes, tuple[bytes, ...]] = BoundedMemo(_MAX_COMMANDS)

    def of(self, key: bytes) -> tuple[bytes, ...]:
        """Return the files to add that still exist."""
        return tuple(filter(os.path.isfile, self._needed.get(key, ())))

    def learn(
        self,
        key: bytes,
        stderr: bytes,
        prepared: Prepared,
        guest: GuestMap,
        marker: Marker | None,
        sent: frozenset[bytes],
        may_send: Callable[[bytes], bool],
    ) -> bool:
        """Read a failed compile's messages (hostile); True if there is a new file to send.

        `may_send` has the rules for files of a root that no marker names.
        """
        known = self._needed.get(key, ())
        found: dict[bytes, None] = dict.fromkeys(known)
        for missing in missing_includes(stderr):
            for path in _candidates(missing, prepared, guest):
                is_new = path not in sent and _may_be_sent(path, guest.root, marker)
                if is_new and may_send(path):
                    found[path] = None
        if len(found) == len(known) or len(found) > _MAX_FILES:
            return False
        self._needed[key] = tuple(sorted(found))
        return True


def _candidates(missing: MissingInclude, prepared: Prepared, guest: GuestMap) -> Iterator[bytes]:
    """Yield the paths under the root where a compiler would look for the name."""
    try:
        search = search_of(prepared, guest)
    except UnscannableError:
        return
    for directory in (*_home(missing.at, prepared, guest), search.cwd, *search.chain):
        path = posixpath.normpath(directory + b"/" + missing.name)
        if is_under(path, guest.root) and path != guest.root:
            yield path


def _home(at: bytes, prepared: Prepared, guest: GuestMap) -> Iterable[bytes]:
    if at.startswith(GUEST_ROOT + b"/"):
        at = guest.text(at)
    directory = posixpath.normpath(absolute(prepared.cwd, at)).rpartition(b"/")[0]
    return (directory,) if is_under(directory, guest.root) else ()


def _may_be_sent(path: bytes, root: bytes, marker: Marker | None) -> bool:
    """Tell whether a file may be sent because a guest named it; see the module."""
    try:
        status = os.stat(path)
        real, real_root = os.path.realpath(path), os.path.realpath(root)
    except (OSError, ValueError):
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_ADDED_BYTES:
        return False
    if not is_under(real, real_root):
        return False
    for inside in (path[len(root.rstrip(b"/")) + 1 :], real[len(real_root.rstrip(b"/")) + 1 :]):
        if not may_be_included(inside) or (marker is not None and marker.excludes(inside)):
            return False
    return True
