"""The directories that a source names, noted before its compile begins.

In a parallel build in the source tree, another compile may put its object into a directory from
which this one reads a header. The directory's times are then too young to show that it was there
all the time, and only its inode from before the compile does. The source's own include lines name
such directories: `#include "sub/x.h"`.
"""

from __future__ import annotations

from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.key.prepare import Prepared

# Each costs a stat before the compile; a source that names more is rare.
_MAX_DIRECTORIES: Final = 200


def directories_before(memo: FileMemo, prepared: Prepared) -> tuple[bytes, ...]:
    """Return the source's directory, the include directories, and those below them that it names.

    The last ones are a help, not a list that must be complete: a directory that is missing here
    and gets a new entry during the compile makes the result one that is not kept.
    """
    bases = (prepared.source.rpartition(b"/")[0], *prepared.invocation.include_dirs)
    found = memo.examine(prepared.source)
    if found is None:
        return bases
    names = (*found.scan.quoted, *found.scan.angled)
    below = dict.fromkeys(name.rpartition(b"/")[0] for name in names if b"/" in name)
    paths = [
        base + b"/" + directory
        for directory in below
        if not directory.startswith(b"/")
        for base in (absolute(prepared.cwd, base) for base in bases)
    ]
    return (*bases, *paths[:_MAX_DIRECTORIES])
