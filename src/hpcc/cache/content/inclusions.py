"""An upper bound of how often a large file without a guard is included in one compile.

A compile includes a file at most as often as the texts of its files name it, each counted as often
as that file itself is included. A text that makes a name by a macro could name any file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.compilers.scan.text import joined, without_comments

_COMPUTED: Final = re.compile(
    rb"^[^\n#%?]*+(?:#|%:|\?\?=)(?![ \t\f\v]*(?:error|warning)\b)"
    rb"[^\n]*?\b(?:include(?:_next)?|import)\b(?![ \t]*[<\"])",
    re.MULTILINE,
)
_TAG: Final = b"times-named"


def most_inclusions(
    memo: FileMemo,
    path: bytes,
    digests: Mapping[bytes, bytes],
    most: Callable[[bytes, bytes], int],
    limit: int,
) -> int:
    """Return how often a file may be included, at most `limit`.

    `digests` are those of all files of the compile. `most` returns a first bound for a path and
    its digest. The command line may include the file once.
    """
    base = path.rpartition(b"/")[2]
    count = _Count(base, limit)
    total = 1
    for other, digest in digests.items():
        named = memo.derived(other, digest, (_TAG, base), count)
        total += (limit if named is None else named) * most(other, digest)
        if total >= limit:
            return limit
    return total


class _Count:
    """Counts the places in which a text holds a name; `limit` if it may make names."""

    def __init__(self, base: bytes, limit: int) -> None:
        self._base, self._limit = base, limit

    def __call__(self, text: bytes) -> int:
        code = without_comments(joined(text))
        return self._limit if _COMPUTED.search(code) else code.count(self._base)
