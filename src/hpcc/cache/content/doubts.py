"""Settles what the text of files leaves open before comment-free digests stand for them.

Two doubts are rare and their answers cost a run of the preprocessor, so an entry only notes them
(`entries.Unsettled`). They are settled when the entry could lead to a hit. The tokens of the asking
compile are then those of the compile that made the entry, and so are the answers.

- GNU as lists the source's base name for `.file`. If templates of `asm` cannot be read from the
  files, one of them could read that file with `.incbin`: the expanded text decides. So it does if a
  text may give GCC a string, such as a section's name, that it copies into its assembler output.
- A file without a guard may be included many times. GCC loses columns after too many lines
  (`compilers.scan.comments.gcc_locations`): the line markers tell how often it is included.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final, NamedTuple

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.content.comments import CommentFree
from hpcc.cache.content.entries import Unsettled
from hpcc.cache.inputs.discovery import answer_about
from hpcc.cache.inputs.embedded_files import may_be_in_strings
from hpcc.cache.inputs.pragmas import is_preprocessor_blind
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.assembler import mentions_directive, read_statements
from hpcc.compilers.scan.assembler_names import strings_may_direct
from hpcc.compilers.scan.comments import MAX_GCC_LOCATIONS
from hpcc.compilers.scan.pragmas import is_compilers_own
from hpcc.compilers.scan.text import joined, may_hold_comments, without_comments
from hpcc.core.reasons.uncacheable import UncacheableReason

# The compiler enters a file. A name with an escape keeps its last part: no separator is escaped.
_ENTERED: Final = re.compile(rb'^# \d+ "(?:[^"\n]*/)?([^"/\n]*)" 1(?: [34]){0,2}$', re.MULTILINE)

_PRAGMA_OR_NAME: Final = re.compile(
    rb'^(?:# \d+ "(?P<name>[^"\n]*)"'
    rb"|[ \t]*#[ \t]*pragma\b(?![ \t]+(?:GCC|clang)[ \t]+diagnostic\b)"
    rb"[^\n]*\b(?:target|optimize)\b)",
    re.MULTILINE,
)
# Also in a raw string, whose lines the output holds.
_LINE_DIRECTIVE: Final = re.compile(
    rb"^[ \t\f\v]*(?:#|%:|\?\?=)[ \t\f\v]*(?:line\b|\d)", re.MULTILINE
)


class Answer(NamedTuple):
    """What is left of an entry's doubts, and whether digests may stand for files.

    `was_asked`: the preprocessor ran.
    """

    left: Unsettled
    is_usable: bool
    was_asked: bool = False


def settle(memo: FileMemo, prepared: Prepared, facts: CommentFree, unsettled: Unsettled) -> Answer:
    """Tell whether the digests may stand for the files that `facts` was asked for.

    If the preprocessor was asked, other doubts are left. Files may have changed meanwhile.
    """
    left = unsettled
    used = max(facts.locations, left.locations)
    # Without the entry's own count, its compile may have lost columns that this one has.
    has_columns = facts.has_all_columns if not left.locations else used <= MAX_GCC_LOCATIONS
    if facts.may_warn or not has_columns:
        return Answer(left, is_usable=False)
    counts = bool(left.locations and not left.repeated)
    in_strings = left.strings and may_be_in_strings(memo, prepared, facts.plain.items())
    reads = left.assembly or in_strings
    try:
        lines = b""
        is_blind = (counts or reads) and is_preprocessor_blind(memo, prepared, facts.plain)
        if counts or is_blind:
            lines = _expanded(prepared, keeps_lines=True)
        if is_blind and not _obeys_no_pragma(memo, facts.plain, lines):
            return Answer(left, is_usable=False)
        if reads:
            if not _reads_no_data(_expanded(prepared, keeps_lines=False)):
                return Answer(left, is_usable=False)
            left = left._replace(assembly=False, strings=False)
        if counts:
            left = left._replace(repeated=_locations(lines, facts.repeated))
    except UncacheableError:
        return Answer(left, is_usable=False)
    if left.strings and not in_strings:
        left = left._replace(strings=False)
    is_usable = not left.locations or used + left.repeated <= MAX_GCC_LOCATIONS
    return Answer(left, is_usable, was_asked=counts or reads)


def _expanded(prepared: Prepared, *, keeps_lines: bool) -> bytes:
    argv = prepared.family.expansion_command(
        prepared.request.compiler, prepared.invocation, keeps_lines=keeps_lines
    )
    return answer_about(prepared, argv, lambda: False, UncacheableReason.EXPANSION_FAILED)


def _obeys_no_pragma(memo: FileMemo, digests: Mapping[bytes, bytes], lines: bytes) -> bool:
    """Tell whether no text of a unit obeys a pragma that defines macros (`compilers.scan.pragmas`).

    The preprocessor sees what the compiler sees up to the first such pragma, and writes it down.
    The compiler's own headers restore what they change; a line marker tells when one begins, if no
    file gives itself another name.
    """
    in_own = has_own = False
    for match in _PRAGMA_OR_NAME.finditer(lines):
        if match["name"] is not None:
            in_own = match["name"] in digests and is_compilers_own(match["name"])
        elif not in_own:
            return False
        else:
            has_own = True
    return not has_own or not any(
        memo.derived(path, digest, "gives-names", _gives_names) is not False
        for path, digest in digests.items()
    )


def _gives_names(text: bytes) -> bool:
    text = joined(text)
    code = without_comments(text)
    return may_hold_comments(code, text) or _LINE_DIRECTIVE.search(code) is not None


def _reads_no_data(text: bytes) -> bool:
    """Tell whether preprocessed C or C++ names no file for the assembler, in any string."""
    found = read_statements(text)
    is_plain = not found.is_opaque and not found.names and not mentions_directive(text)
    return is_plain and not strings_may_direct(text)


def _locations(text: bytes, repeated: Mapping[bytes, int]) -> int:
    """Return an upper bound of the locations of these files, from the preprocessor's output.

    Files of one base name count together, because markers and depfiles spell directories in several
    ways.
    """
    entered = Counter(match[1] for match in _ENTERED.finditer(text))
    bases = {path: path.rpartition(b"/")[2] for path in repeated}
    if not all(entered[base] for base in bases.values()):
        return MAX_GCC_LOCATIONS + 1  # markers in another form
    return sum(locations * entered[bases[path]] for path, locations in repeated.items())
