"""The directories from which a compile may read headers, noted before it begins.

In a parallel build in the source tree, another compile may put its object into a directory from
which this one reads a header. The directory's times are then too young to show that it was there
all the time, and only its inode from before the compile does. The source's own include lines name
such directories (`#include "sub/x.h"`), and so do the headers that earlier compiles of the same
working directory read.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.key.prepare import Prepared

# Each costs a stat before the compile; a source that names more is rare.
_MAX_DIRECTORIES: Final = 200
_MAX_PROJECTS: Final = 100


class NamedDirectories:
    """Knows which directories to note for a compile. Methods may be called from any thread.

    They are a help, not a list that must be complete: a directory that is missing here and gets a
    new entry during the compile makes the result one that is not kept.
    """

    def __init__(self, memo: FileMemo) -> None:
        self._memo = memo
        self._lock = threading.Lock()
        self._learned: OrderedDict[bytes, dict[bytes, None]] = OrderedDict()

    def before(self, prepared: Prepared) -> tuple[bytes, ...]:
        """Return the source's directory, the include directories, and those below that count."""
        bases = _bases(prepared)
        with self._lock:
            paths = dict(self._learned.get(prepared.cwd, {}))
        found = self._memo.examine(prepared.source)
        if found is not None:
            names = (*found.scan.quoted, *found.scan.angled)
            below = dict.fromkeys(name.rpartition(b"/")[0] for name in names if b"/" in name)
            paths |= dict.fromkeys(
                base + b"/" + directory
                for directory in below
                if not directory.startswith(b"/")
                for base in (absolute(prepared.cwd, base) for base in bases)
            )
        return (*bases, *tuple(paths)[: 2 * _MAX_DIRECTORIES])

    def learn(self, prepared: Prepared, paths: Iterable[bytes]) -> None:
        """Remember the directories of a compile's inputs for later compiles beside it."""
        bases = (prepared.cwd, *_bases(prepared))
        above = tuple({absolute(prepared.cwd, base).rstrip(b"/") + b"/" for base in bases})
        directories = {path.rpartition(b"/")[0] for path in paths}
        below = sorted(path for path in directories if path.startswith(above))
        with self._lock:
            known = self._learned.setdefault(prepared.cwd, {})
            self._learned.move_to_end(prepared.cwd)
            known.update(dict.fromkeys(below[: _MAX_DIRECTORIES - len(known)]))
            if len(self._learned) > _MAX_PROJECTS:
                self._learned.popitem(last=False)


def _bases(prepared: Prepared) -> tuple[bytes, ...]:
    return (prepared.source.rpartition(b"/")[0], *prepared.invocation.include_dirs)
