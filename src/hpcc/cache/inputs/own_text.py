"""The inputs of a source that no preprocessor reads: `.i`, `.ii` and `.s`.

Problem: no compiler writes a depfile for such a source, and other files matter all the same.

Rule for `.i` and `.ii`: GCC shows lines of the files that line markers name in its messages, and
reads them for tabs (`-Wmisleading-indentation`). So each of these names is an input, by content or
by absence. Clang obeys every directive again, and GCC obeys `#pragma GCC pch_preprocess`; a source
with such directives is refused.

Rule for `.s`, and for `asm` in `.i`: GNU as lists the files of `.include` and `.incbin`. For
Clang's assembler the text is read.

Example: a.i begins with `# 1 "a.c"`. The inputs are a.i and a.c. If there is no a.c, it must stay
absent.

What must never happen: a directive in the text reaches a file that the inputs lack. What cannot be
read literally raises `UncacheableError`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from hpcc.cache.base.files import MAX_SOURCE_BYTES, FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.embedded_files import follow
from hpcc.cache.inputs.flag_inputs import with_names
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.invocation import Language
from hpcc.compilers.scan.assembler import Directives, read_assembler, read_statements, unescape
from hpcc.compilers.scan.assembler_names import may_name_for_assembler, strings_may_direct
from hpcc.compilers.scan.scan import Hazard, Scan, scan_arguments
from hpcc.core.reasons.uncacheable import UncacheableReason

_HASH: Final = rb"^[ \t\f\v]*(?:\#|%:|\?\?=)"
_MARKER: Final = re.compile(
    _HASH + rb'[ \t]*(?:line[ \t]+)?\d+[ \t]+"((?:[^"\\\n]|\\.)*)".*$', re.MULTILINE
)
# All that a preprocessor leaves besides markers: pragmas, identifications, and macros with -dD.
_DIRECTIVE: Final = re.compile(_HASH + rb"[ \t]*(.*)$", re.MULTILINE)
_KNOWN: Final = re.compile(
    rb'(?:line[ \t]+)?\d+(?:[ \t]+".*)?|(?:ident|sccs)\b.*|'
    rb"|pragma\b(?!.*\b(?:pch_preprocess|dependency|include_alias)\b).*"
)
_MACROS: Final = re.compile(rb"(?:define|undef)\b.*")
_SPLICED: Final = re.compile(rb"(?:\\|\?\?/)[ \t\f\v\r]*$")
_CLOCKS: Final = Hazard.DATE_OR_TIME | Hazard.TIMESTAMP | Hazard.PASTED_CLOCK
_MAX_NAMES: Final = 50_000


def own_closure(
    memo: FileMemo,
    prepared: Prepared,
    watched: tuple[bytes, ...],
    listed: Callable[[Iterable[bytes]], tuple[bytes, ...]] | None,
    started_ns: int,
) -> Closure:
    """Return the inputs of a source without preprocessing.

    `watched` are paths that must be absent. `listed` returns the files that GNU as opened, given
    the files that need not exist; None if it did not list them.

    Raises:
        UncacheableError: the text may have effects that are not known here, or a file changed.
    """
    source, cwd, language = prepared.source, prepared.cwd, prepared.invocation.language
    found = memo.examine(source)
    if found is None:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED)
    # Read after the compile began. The closer look at its stat below covers this read, too.
    text = _read(source)
    names: dict[bytes, None] = {}
    hazards = Hazard.NONE
    if language is Language.PLAIN_ASSEMBLER:
        in_text = read_assembler(text)
        hazards = _hazards_of(in_text)
        assembled = None if listed is not None else in_text
    else:
        names.update(dict.fromkeys(_markers(prepared, text, found.scan)))
        code = _MARKER.sub(b"", text)
        is_read = prepared.family.obeys_directives(prepared.invocation)
        assembled = read_statements(code) if is_read and listed is None else None
        has_strings = prepared.family.runs_gnu_as(prepared.invocation) and strings_may_direct(code)
        if assembled is not None and has_strings and may_name_for_assembler(code):
            raise UncacheableError(UncacheableReason.INCBIN)
    data = () if listed is None else listed(tuple(names))
    directories = (cwd, *(absolute(cwd, d) for d in prepared.invocation.include_dirs))
    if assembled is not None:
        data = follow(assembled, directories)
    names.update(dict.fromkeys(absolute(d, name) for d in directories for name in data))
    if len(names) > _MAX_NAMES:
        raise UncacheableError(UncacheableReason.TOO_MANY_NAMES)
    names.pop(source, None)
    closure = with_names(
        Closure(((source, found.digest),), (), (), hazards=hazards),
        tuple(names),
        memo=memo,
        cwd=cwd,
        started_ns=started_ns,
    )
    absent = {*watched, source + b".gch"}
    closure = with_names(closure, tuple(absent), memo=memo, cwd=cwd, started_ns=started_ns)
    if any(path in absent for path, _ in closure.files):
        raise UncacheableError(UncacheableReason.CONFIG_FILE)
    if language is Language.PLAIN_ASSEMBLER:
        closure = _with_hazards(memo, closure)
    again = memo.examine(source)
    if again is None or again.digest != found.digest or is_fresh(again.status, started_ns):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    return closure


def _hazards_of(found: Directives) -> Hazard:
    """Return what a text of the assembler does by its directives."""
    if found.is_opaque:
        return Hazard.ASSEMBLER_FILE | Hazard.OPAQUE_ASSEMBLY
    return Hazard.ASSEMBLER_FILE if found.names else Hazard.NONE


def _with_hazards(memo: FileMemo, closure: Closure) -> Closure:
    """Return the closure of an assembler source with the hazards of all files.

    Any file that was read may be one of `.include`. If it is data, its hazards cost only hits.

    Raises:
        UncacheableError: a file changed.
    """
    hazards = closure.hazards
    for path, digest in closure.files[1:]:
        found = memo.derived(path, digest, "read-assembler", read_assembler)
        if found is None:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        hazards |= _hazards_of(found)
    return replace(closure, hazards=hazards)


def _read(path: bytes) -> bytes:
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_SOURCE_BYTES + 1)
    except OSError as error:
        raise UncacheableError(UncacheableReason.INPUT_VANISHED) from error
    if len(text) > MAX_SOURCE_BYTES:
        raise UncacheableError(UncacheableReason.TOO_MANY_NAMES)
    return text


def _markers(prepared: Prepared, text: bytes, scan: Scan) -> list[bytes]:
    """Return the names in line markers.

    Raises:
        UncacheableError: the text has directives that a preprocessor would have replaced.
    """
    _refuse_directives(prepared, text, scan)
    names: dict[bytes, None] = {}
    for match in _MARKER.finditer(text):
        name = unescape(match[1])
        if name is None or b"\0" in name:
            raise UncacheableError(UncacheableReason.NOT_PREPROCESSED)
        # `# 1 "/home/me//"` gives the directory. `<built-in>` and the like name nothing.
        if name and not name.endswith(b"/"):
            names[absolute(prepared.cwd, name)] = None
    return list(names)


def _refuse_directives(prepared: Prepared, text: bytes, scan: Scan) -> None:
    has_macros = False
    for match in _DIRECTIVE.finditer(text):
        rest = match[1].rstrip()
        is_macro = _MACROS.fullmatch(rest) is not None
        if _SPLICED.search(rest) or not (is_macro or _KNOWN.fullmatch(rest)):
            raise UncacheableError(UncacheableReason.NOT_PREPROCESSED)
        has_macros |= is_macro
    if b"_Pragma" in text and (b"dependency" in text or b"pch_preprocess" in text):
        raise UncacheableError(UncacheableReason.NOT_PREPROCESSED)
    if not prepared.family.expands_preprocessed:
        return
    hazards = scan.hazards | scan_arguments(prepared.invocation.arguments).hazards
    # Without a macro nothing can be pasted, but a clock may be named.
    if hazards & (_CLOCKS if has_macros else _CLOCKS & ~Hazard.PASTED_CLOCK):
        raise UncacheableError(UncacheableReason.DATE_TIME)
