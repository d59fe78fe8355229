"""Tells whether a compile's own preprocessor can be asked about it (`compilers.scan.pragmas`).

If not, a run that parses the unit tells whether it reads a clock. With -Wdate-time GCC warns of
each expansion of `__DATE__`, `__TIME__` and `__TIMESTAMP__` (cpp's builtin_macro), with
-Wsystem-headers also in headers of the system. `-w`, or a pragma that names the warning, would hide
it. Other flags of the command come before ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.tools import MAX_ANSWER_BYTES, ask
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.pragmas import Pragmas, define_macros, is_compilers_own, read_pragmas
from hpcc.core.reasons.uncacheable import UncacheableReason

_DOUBT = Pragmas.WHOLE
_SECONDS: Final = 60.0
_WARN: Final = (
    b"-Wdate-time",
    b"-Wsystem-headers",
    b"-Wno-error",
    b"-Wno-error=date-time",
    b"-fdiagnostics-show-option",
)
_WARNED: Final = (b"might prevent reproducible builds", b"date-time")
_HIDES: Final = re.compile(rb"(?:^|[,\s])-w(?:$|[,\s])|no-date-time|diagnostics-format")


def is_preprocessor_blind(memo: FileMemo, prepared: Prepared, paths: Iterable[bytes]) -> bool:
    """Tell whether `-E` and `-M` may take other branches than this compile.

    `paths` are the files that it read, at least up to the first such pragma.
    """
    return prepared.family.has_blind_preprocessor and define_macros(_pieces(memo, prepared, paths))


def _pieces(memo: FileMemo, prepared: Prepared, paths: Iterable[bytes]) -> Iterator[Pragmas]:
    yield read_pragmas(b"\n".join(prepared.invocation.arguments))
    for name in paths:
        path = absolute(prepared.cwd, name)
        if is_compilers_own(path):
            continue
        digest = memo.digest(path)
        found = None if digest is None else memo.derived(path, digest, "pragmas", read_pragmas)
        yield _DOUBT if found is None else found


def refuse_parsed_clocks(
    memo: FileMemo, prepared: Prepared, paths: Iterable[bytes], is_cancelled: Callable[[], bool]
) -> None:
    """Let the compiler parse a unit that read the files `paths`, and warn of each clock.

    Raises:
        UncacheableError: it reads a clock, something could hide the warning, or the run failed.
    """
    family, invocation = prepared.family, prepared.invocation
    if any(_HIDES.search(word) for word in invocation.arguments):
        raise UncacheableError(UncacheableReason.DATE_TIME)
    for name in paths:
        path = absolute(prepared.cwd, name)
        digest = memo.digest(path)
        if digest is None or memo.derived(path, digest, "names-date-time", _names_it) is not False:
            raise UncacheableError(UncacheableReason.DATE_TIME)
    command = family.parsing_command(prepared.request.compiler, invocation, prepared.injected)
    try:
        answer = ask(
            (*command, *_WARN),
            env=family.question_environment(prepared.request.env),
            cwd=prepared.cwd,
            is_cancelled=is_cancelled,
            timeout_seconds=_SECONDS,
        )
    except OSError as error:
        raise UncacheableError(UncacheableReason.EXPANSION_FAILED) from error
    if answer.exit_code != 0 or len(answer.stderr) >= MAX_ANSWER_BYTES:
        raise UncacheableError(UncacheableReason.EXPANSION_FAILED)
    if any(word in answer.stderr for word in _WARNED):
        raise UncacheableError(UncacheableReason.DATE_TIME)


def _names_it(text: bytes) -> bool:
    return b"Wdate" in text or b"date-time" in text
