"""The inputs of a source of which nobody lists what it reads: `.i`, `.s`, bitcode, cppcheck's.

Problem: no compiler writes a depfile for such a source, and other files matter all the same.

Rule for `.i` and `.ii`: GCC shows lines of the files that line markers name in its messages, and
reads them for tabs (`-Wmisleading-indentation`). So each of these names is an input, by content or
by absence. Clang obeys every directive again, and GCC obeys `#pragma GCC pch_preprocess`; a source
with such directives is refused.

Rule for `.s`, and for `asm` in `.i`: GNU as lists the files of `.include` and `.incbin`. For
Clang's assembler the text is read.

Rule for a program that lists nothing (`Unlisted`): each name in each text is looked up in each
directory where the program could look. What is there is an input and is read in turn, what is not
there must stay absent. The order of its lookup does not matter then.

Rule for LLVM bitcode: the index of ThinLTO names every module of which parts are read. Clang ends
with status 0 when one is missing, so that refuses the result. Text for the assembler must name no
file.

Example: a.i begins with `# 1 "a.c"`. The inputs are a.i and a.c. If there is no a.c, it must stay
absent.

What must never happen: a directive in the text reaches a file that the inputs lack. What cannot be
read literally raises `UncacheableError`.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

from hpcc.cache.base.files import MAX_SOURCE_BYTES, FileMemo, Listing
from hpcc.cache.base.manifest import Absence
from hpcc.cache.base.uncacheable import UncacheableError, absolute, is_fresh
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.embedded_files import follow
from hpcc.cache.inputs.flag_inputs import absence_of, digest_if_quiet, with_names
from hpcc.cache.inputs.twins import links_to, with_directories
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.invocation.dependencies import Unlisted
from hpcc.compilers.invocation.invocation import Language
from hpcc.compilers.scan.assembler import Directives, read_assembler, read_statements, unescape
from hpcc.compilers.scan.assembler_names import may_name_for_assembler, strings_may_direct
from hpcc.compilers.scan.bitcode import may_direct_assembler, modules_of_index
from hpcc.compilers.scan.scan import Hazard, Scan, scan_arguments
from hpcc.compilers.spec.back_end import INDEX_FLAG
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
_MAX_LOOKED_UP: Final = 200_000


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
    places = prepared.identity.config_directories
    unlisted = prepared.family.unlisted(prepared.invocation, places)
    if unlisted is not None:
        return _Names(memo, prepared, unlisted, started_ns).closure()
    source, cwd, language = prepared.source, prepared.cwd, prepared.invocation.language
    if language is Language.IR:
        modules = _modules(memo, prepared, started_ns)
        return _with_absent(memo, prepared, Closure(modules, (), ()), watched, started_ns)
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
    absent = (*watched, source + b".gch")
    closure = _with_absent(memo, prepared, closure, absent, started_ns)
    if language is Language.PLAIN_ASSEMBLER:
        closure = _with_hazards(memo, closure)
    again = memo.examine(source)
    if again is None or again.digest != found.digest or is_fresh(again.status, started_ns):
        raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
    return closure


def _with_absent(
    memo: FileMemo,
    prepared: Prepared,
    closure: Closure,
    absent: tuple[bytes, ...],
    started_ns: int,
) -> Closure:
    closure = with_names(closure, absent, memo=memo, cwd=prepared.cwd, started_ns=started_ns)
    if any(path in absent for path, _ in closure.files):
        raise UncacheableError(UncacheableReason.CONFIG_FILE)
    return closure


def _modules(
    memo: FileMemo, prepared: Prepared, started_ns: int
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the bitcode that a back end of ThinLTO may read, with digests.

    Raises:
        UncacheableError: the index cannot be read, or a module is missing, changed or may make the
            assembler read a file.
    """
    names = [prepared.source]
    for index in prepared.invocation.values(INDEX_FLAG):
        path = absolute(prepared.cwd, index)
        digest = digest_if_quiet(memo, path, started_ns)
        found = None
        if digest is not None:
            found = memo.derived(path, digest, "modules-of-index", modules_of_index)
        if found is None:
            raise UncacheableError(UncacheableReason.THINLTO_INDEX, path)
        names += (absolute(prepared.cwd, name) for name in found)
    files: dict[bytes, bytes] = {}
    for path in dict.fromkeys(names):
        digest = digest_if_quiet(memo, path, started_ns)
        if digest is None:
            raise UncacheableError(UncacheableReason.INPUT_VANISHED, path)
        if memo.derived(path, digest, "assembler-in-bitcode", may_direct_assembler) is not False:
            raise UncacheableError(UncacheableReason.INCBIN, path)
        files[path] = digest
    return tuple(files.items())


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


class _Names:
    """Looks up every name that a program may look for. One instance serves one run."""

    def __init__(
        self, memo: FileMemo, prepared: Prepared, unlisted: Unlisted, started_ns: int
    ) -> None:
        self._memo, self._prepared, self._unlisted = memo, prepared, unlisted
        self._cwd, self._started_ns = prepared.cwd, started_ns
        self._digests: dict[bytes, bytes | None] = {}
        self._listings: dict[bytes, Listing | None] = {}
        self._absent: dict[bytes, tuple[set[bytes], set[bytes]]] = {}

    def closure(self) -> Closure:
        """Return the inputs.

        Raises:
            UncacheableError: see `own_closure`.
        """
        unlisted, cwd = self._unlisted, self._cwd
        if os.path.realpath(cwd) != cwd:
            raise UncacheableError(UncacheableReason.DIRECTORY_LINK, cwd)
        self._follow(self._plain(name) for name in (self._prepared.source, *unlisted.forced))
        for path in map(self._plain, unlisted.forbidden):
            if os.path.lexists(path):
                raise UncacheableError(UncacheableReason.CONFIG_FILE, path)
            self._look(path)
        data = [path for path in map(self._plain, unlisted.data) if self._look(path)]
        names_more = self._prepared.family.config_names_more
        for path in data:
            more = self._derived(path, "analyser-data", names_more)
            if more:
                raise UncacheableError(UncacheableReason.ANALYSER_TEXT, path)
        files = tuple((path, digest) for path, digest in self._digests.items() if digest)
        absences = tuple(
            Absence(directory, frozenset(names), frozenset(directories))
            for directory, (names, directories) in self._absent.items()
        )
        # Two names of one file are one library.
        links = tuple(path for path in data if os.path.realpath(path) != path)
        closure = Closure(files, (), absences, twins=links_to(links))
        return with_directories(closure, (absolute(cwd, d) for d in unlisted.directories))

    def _follow(self, starts: Iterable[bytes]) -> None:
        """Look up the names in these texts, and in all that they lead to."""
        directories = tuple(map(self._plain, self._unlisted.directories))
        pending = list(starts)
        read: set[bytes] = set()
        while pending:
            path = pending.pop()
            if path in read or self._look(path) is None:
                continue
            read.add(path)
            self._refuse_clocks(path)
            found = self._derived(path, "unlisted-names", self._unlisted.read)
            if found.is_opaque:
                raise UncacheableError(UncacheableReason.ANALYSER_TEXT, path)
            home = posixpath.dirname(path)
            for is_quoted, name in found.names:
                places = (home, *directories) if is_quoted else directories
                # The same place serves an absolute name, which is joined to nothing.
                places = (home,) if name.startswith(b"/") else places
                pending += (self._plain(posixpath.join(place, name)) for place in places)

    def _refuse_clocks(self, path: bytes) -> None:
        found = self._memo.examine(path)
        if found is None or found.digest != self._digests[path]:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        if found.scan.hazards & _CLOCKS:
            raise UncacheableError(UncacheableReason.DATE_TIME, path)

    def _derived[T](self, path: bytes, question: str, read: Callable[[bytes], T]) -> T:
        found = self._memo.derived(path, self._digests[path] or b"", question, read)
        if found is None:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        return found

    def _plain(self, name: bytes) -> bytes:
        """Return an absolute path without `..`, as the program itself makes it."""
        return b"/" + posixpath.normpath(absolute(self._cwd, name)).lstrip(b"/")

    def _look(self, path: bytes) -> bytes | None:
        """Make a file an input, or its absence; return its digest.

        Raises:
            UncacheableError: it is a directory, which the program opens, too, or it changed.
        """
        if path in self._digests:
            return self._digests[path]
        if len(self._digests) >= _MAX_LOOKED_UP:
            raise UncacheableError(UncacheableReason.TOO_MANY_NAMES)
        home, _, base = path.rpartition(b"/")
        home = home or b"/"
        if home not in self._listings:
            self._listings[home] = self._memo.listing(home)
        listing = self._listings[home]
        digest = None
        if listing is None or not listing.lacks(base):
            if os.path.isdir(path):
                raise UncacheableError(UncacheableReason.ODD_DIRECTORY, path)
            digest = digest_if_quiet(self._memo, path, self._started_ns)
        self._digests[path] = digest
        if digest is None:
            absence = absence_of(path)
            names, directories = self._absent.setdefault(absence.directory, (set(), set()))
            names.update(absence.files)
            directories.update(absence.directories)
        return digest
