"""Settles whether a compile reads a clock, from the preprocessor's output.

`__DATE__`, `__TIME__` and `__TIMESTAMP__` in a text, or pieces that `##` could join to them, are
only a doubt. The macro with the word may never be used, its line may be in a branch that is not
taken, and the command line may define the word as something else (Bazel, Chromium). Used, all
three show in the preprocessor's output:

- as a date or a time of the moment at which the preprocessor ran;
- as the time of the last change of one of the files, which is what `__TIMESTAMP__` stands for. Any
  other time in that form is a string in a source;
- as one of the three words outside strings, where something is still to be expanded.

Clang's preprocessor prints some pragmas with their macros unexpanded, and its parser expands them:
`#pragma comment(lib, X)` and `#pragma clang attribute push(__attribute__((section(X))), …)`. Text
with one of them settles nothing.

A clock may also name a file that is included, so names of files count as text.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable
from typing import Final

from hpcc.cache.base.clock_text import is_timestamp_of, mentions_clock, timestamps_in
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.scan.scan import Hazard, scan_arguments
from hpcc.compilers.scan.text import without_prose
from hpcc.core.reasons.uncacheable import UncacheableReason

CLOCKS: Final = Hazard.DATE_OR_TIME | Hazard.TIMESTAMP | Hazard.PASTED_CLOCK
"""What `refuse_clocks` settles."""

_PARSED: Final = re.compile(rb"#[ \t]*pragma[ \t]+(?:clang[ \t]+attribute|comment)\b")
_WORD: Final = re.compile(rb"(?<![\w$])__(?:DATE|TIME|TIMESTAMP)__(?![\w$])")


def clocks_in(memo: FileMemo, invocation: Invocation, digests: Iterable[bytes]) -> Hazard:
    """Return which clocks the command line and texts that were scanned may read; never none."""
    found = scan_arguments(invocation.arguments, invocation.macros).hazards
    for digest in digests:
        scan = memo.scan_known(digest)
        found |= CLOCKS if scan is None else scan.hazards
    return found & CLOCKS or CLOCKS


def refuse_clocks(
    expanded: bytes, paths: Iterable[bytes], *, started_ns: int, is_pinned: bool
) -> None:
    """Check the preprocessor's output of a unit that read the files `paths`.

    `started_ns` is the time before the preprocessor began. `is_pinned`: date and time of day are
    fixed by the environment.

    Raises:
        UncacheableError: the unit reads a clock, or may read one.
    """
    paths = tuple(paths)
    text = b"\n".join((expanded, *paths))
    stamps = timestamps_in(text)
    if stamps:
        try:
            times = [os.stat(path).st_mtime_ns for path in paths]
        except OSError as error:
            raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error
        if any(is_timestamp_of(stamp, when) for stamp in stamps for when in times):
            raise UncacheableError(UncacheableReason.TIMESTAMP)
    if not is_pinned and mentions_clock(text, started_ns, time.time_ns()):
        raise UncacheableError(UncacheableReason.DATE_TIME)
    if b"pragma" in expanded and _PARSED.search(expanded):
        raise UncacheableError(UncacheableReason.DATE_TIME)
    if b"__" in expanded and _WORD.search(expanded) and _WORD.search(without_prose(expanded)):
        raise UncacheableError(UncacheableReason.DATE_TIME)
