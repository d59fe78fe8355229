"""Tells whether a compile's own preprocessor can be asked about it (`compilers.scan.pragmas`).

If not, a run that parses the unit tells whether it reads a clock. GCC reads `SOURCE_DATE_EPOCH`
when it first expands `__DATE__` or `__TIME__`. Text in place of a number is an error, which no flag
and no pragma hides (gcc/c-family/c-common.cc, cb_get_source_date_epoch; GCC 7 and later).
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.discovery import answer_about
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.pragmas import Pragmas, define_macros, is_compilers_own, read_pragmas
from hpcc.compilers.scan.scan import Hazard
from hpcc.core.reasons.uncacheable import UncacheableReason

_DOUBT = Pragmas.WHOLE
_FIRST_WITH_EPOCH: Final = 7
# A clock of which GCC warns is an error, and nothing else is one.
_STRICT: Final = (b"-Wsystem-headers", b"-Wno-error", b"-Werror=date-time")
_QUIET: Final = re.compile(rb"(?:^|[,\s])-w(?:$|[,\s])|specs")
_NO_NUMBER: Final = {b"SOURCE_DATE_EPOCH": b"hpcc-asks-for-clocks"}


def is_preprocessor_blind(memo: FileMemo, prepared: Prepared, paths: Iterable[bytes]) -> bool:
    """Tell whether `-E` and `-M` may take other branches than this compile.

    `paths` are the files that it read, at least up to the first such pragma.
    """
    return prepared.family.has_blind_preprocessor and define_macros(_pieces(memo, prepared, paths))


def _pieces(memo: FileMemo, prepared: Prepared, paths: Iterable[bytes]) -> Iterator[Pragmas]:
    yield read_pragmas(b"\n".join(prepared.invocation.arguments))
    # A project may have such a directory, too: only that of this compiler's installation counts.
    compiler = os.path.realpath(prepared.request.compiler)
    own = posixpath.dirname(posixpath.dirname(compiler)) + b"/lib/gcc"
    for name in paths:
        path = absolute(prepared.cwd, name)
        if path.startswith(own) and is_compilers_own(path):
            continue
        digest = memo.digest(path)
        found = None if digest is None else memo.derived(path, digest, "pragmas", read_pragmas)
        yield _DOUBT if found is None else found


def refuse_parsed_clocks(
    prepared: Prepared, doubts: Hazard, is_cancelled: Callable[[], bool]
) -> None:
    """Let the compiler parse a unit, so that each clock in it is an error.

    Raises:
        UncacheableError: it reads a clock, or may expand `__TIMESTAMP__`, or the run failed.
    """
    # The time of a file's change does not come from the variable. A name that is put together is
    # seldom that one, and GCC warns of it.
    words = prepared.invocation.arguments
    is_quiet = prepared.identity.has_hidden_flags or any(map(_QUIET.search, words))
    if doubts & Hazard.TIMESTAMP or (doubts & Hazard.PASTED_CLOCK and is_quiet):
        raise UncacheableError(UncacheableReason.DATE_TIME)
    if prepared.identity.major < _FIRST_WITH_EPOCH:
        raise UncacheableError(UncacheableReason.DATE_TIME)
    command = prepared.family.parsing_command(
        prepared.request.compiler, prepared.invocation, prepared.injected
    )
    reason = UncacheableReason.DATE_TIME
    answer_about(prepared, (*command, *_STRICT), is_cancelled, reason, variables=_NO_NUMBER)
