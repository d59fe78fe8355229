"""Names the file and line because of which a result was not kept, for `hpcc explain`.

This runs only for a refused result. The scan that refused it says which hazards a text has, so the
same scan finds the line: of all beginnings of the file, the shortest one that has the hazard ends
with that line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, is_fresh
from hpcc.compilers.invocation.modules import USE
from hpcc.compilers.scan.includes import scan_definitions
from hpcc.compilers.scan.questions import NOTHING_ASKED, read_uses
from hpcc.compilers.scan.scan import (
    HAZARD_REASONS,
    Hazard,
    Scan,
    may_be_read_once,
    scan_arguments,
    scan_source,
)
from hpcc.compilers.scan.text import joined
from hpcc.core.reasons.uncacheable import UncacheableReason

_MAX_FILES: Final = 5_000
_MAX_BYTES: Final = 4 << 20
_MAX_TEXT: Final = 120
_CHANGES: Final = frozenset(
    {UncacheableReason.MODIFIED_DURING_COMPILE, UncacheableReason.INPUT_VANISHED}
)
_COMMAND_LINE: Final = "the command line"


class Culprit(NamedTuple):
    """What a reason is about: a file, its line from 1 (0: the whole file), that line's text."""

    file: str
    line: int = 0
    text: str = ""

    def __str__(self) -> str:
        # A name must not send control characters to the terminal, either.
        file = "".join(c if c.isprintable() else "?" for c in self.file)
        place = f"{file}:{self.line}" if self.line else file
        return f"{place}: {self.text}" if self.text else place


def find_culprit(
    memo: FileMemo,
    error: UncacheableError,
    files: Sequence[bytes],
    arguments: Sequence[bytes],
    started_ns: int,
) -> Culprit | None:
    """Return which of these absolute paths, or which argument, has what the reason names.

    Return None if the reason is about something else, or if the cause is gone.
    """
    files, reason = files[:_MAX_FILES], error.reason
    if error.path:
        text = "it changed, or was put there" if reason in _CHANGES else ""
        return Culprit(os.fsdecode(error.path), 0, text)
    if reason is UncacheableReason.TWIN_HEADERS:
        return _twin(memo, files)
    if reason in _CHANGES:
        return _unsettled(files, started_ns)
    if reason is UncacheableReason.MODULES:
        return _use_of_modules(files)
    hazards = Hazard.NONE
    for hazard, its_reason in HAZARD_REASONS.items():
        if its_reason is reason:
            hazards |= hazard
    if hazards is Hazard.NONE:
        return None
    return _argument(hazards, arguments) or _text(memo, hazards, files)


def _use_of_modules(files: Sequence[bytes]) -> Culprit | None:
    """Return the first line that declares or imports a module; the source, if a macro does it."""
    found = (_in_file(path, lambda data: USE.search(data) is not None) for path in files)
    named = next((culprit for culprit in found if culprit.line), None)
    return named or (Culprit(os.fsdecode(files[0])) if files else None)


def _argument(hazards: Hazard, arguments: Sequence[bytes]) -> Culprit | None:
    for argument in arguments:
        if scan_arguments((argument,)).hazards & hazards:
            return Culprit(_COMMAND_LINE, 0, _shown(argument))
    return None


def _text(memo: FileMemo, hazards: Hazard, files: Sequence[bytes]) -> Culprit | None:
    scans: dict[bytes, tuple[bytes, Scan]] = {}
    for path in files:
        found = memo.examine(path)
        if found is None:
            continue
        if found.scan.hazards & hazards:
            return _in_file(path, lambda data: bool(scan_source(data).hazards & hazards))
        scans[path] = (found.digest, found.scan)
    return _question(memo, scans) if Hazard.OPAQUE_QUESTION in hazards else None


def _question(memo: FileMemo, scans: Mapping[bytes, tuple[bytes, Scan]]) -> Culprit | None:
    """Return where a macro hides what `__has_include` asks for: a use, a definition, a question."""
    asked = NOTHING_ASKED
    for _, scan in scans.values():
        asked |= scan.asked
    synonyms, aliases, macros = asked.synonyms, asked.aliases, asked.macros

    def is_use(data: bytes) -> bool:
        return read_uses(joined(data), synonyms, aliases).is_opaque

    def is_definition(data: bytes) -> bool:
        return scan_definitions(data, macros).is_opaque

    def is_question(data: bytes) -> bool:
        return bool(scan_source(data).asked.macros)

    wanted = ((synonyms | aliases, is_use), (macros, is_definition), (macros, is_question))
    for names, has_it in wanted:
        for path, (digest, _) in scans.items() if names else ():
            if memo.derived(path, digest, (has_it.__name__, names), has_it):
                return _in_file(path, has_it)
    return None


def _twin(memo: FileMemo, files: Sequence[bytes]) -> Culprit | None:
    """Return the second of two files with one content, or a file that is another name's twin."""
    seen: dict[bytes, bytes] = {}
    for path, digest in _digests(memo, files):
        other = seen.setdefault(digest, path)
        if other != path and memo.may_be_read_once(path, digest) is not False:
            found = _in_file(path, may_be_read_once)
            text = f"{found.text} (same content as {os.fsdecode(other)})".strip()
            return found._replace(text=text)
    return None


def _digests(memo: FileMemo, files: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    for path in files:
        digest = memo.digest(path)
        if digest is not None:
            yield path, digest


def _unsettled(files: Sequence[bytes], started_ns: int) -> Culprit | None:
    for path in files:
        try:
            status = os.stat(path)  # noqa: PTH116 - paths are bytes
        except OSError:
            return Culprit(os.fsdecode(path), 0, "it vanished")
        if is_fresh(status, started_ns):
            return Culprit(os.fsdecode(path), 0, "it changed, or is too young")
    return None


def _in_file(path: bytes, has_it: Callable[[bytes], bool]) -> Culprit:
    name = os.fsdecode(path)
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - paths are bytes
            data = file.read(_MAX_BYTES + 1)
    except OSError:
        return Culprit(name)
    if len(data) > _MAX_BYTES:
        return Culprit(name)
    lines = data.splitlines(keepends=True)
    number = first_line(lines, has_it)
    return Culprit(name, number, _shown(lines[number - 1])) if number else Culprit(name)


def first_line(lines: Sequence[bytes], has_it: Callable[[bytes], bool]) -> int:
    """Return the number of lines in the shortest beginning that has it; 0 if there is none.

    Asks about a number of beginnings that grows with the logarithm of the number of lines.
    """
    if not has_it(b"".join(lines)):
        return 0
    low, high = 0, len(lines)  # the beginning of `high` lines has it
    while high - low > 1:
        middle = (low + high) // 2
        if has_it(b"".join(lines[:middle])):
            high = middle
        else:
            low = middle
    return high


def _shown(text: bytes) -> str:
    # A source must not be able to send control characters to the terminal of `hpcc explain`.
    decoded = text.decode("utf-8", "replace")
    words = " ".join("".join(c if c.isprintable() else " " for c in decoded).split())
    return words if len(words) <= _MAX_TEXT else words[: _MAX_TEXT - 1] + "…"
