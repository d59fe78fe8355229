"""What a text asks with `__has_include`, also through macros, read from the text before expansion.

Problem: the answer to such a question is an input of the compile, and no compiler lists it. Macros
hide the question or the name in it.

Rule: the findings are a superset, because a name that nobody asks for only costs a watch.

- `__has_include(<a.h>)` is a question. In the text of a macro (`loose`) it may be asked from any
  file, and the preprocessor expands macros between the angle brackets.
- `#define HAS __has_include` makes a synonym: each of its uses is a question.
- `#define HAS(x) __has_include(x)` makes an alias: likewise, but its argument is expanded.
- `__has_include(NAME)` asks for whatever any text defines NAME as.

Everything else is opaque: `__has_include(NAME(x))`, `#define HAS(x) __has_include(x##y)`.

Example: Boost asks `__has_include(BOOST_SLIST_HEADER)`, and a header of Boost has
`#define BOOST_SLIST_HEADER <ext/slist>`. The question is <ext/slist>.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Final

from hpcc.compilers.scan.text import may_hide_code, may_hold_comments, without_comments

_HASH: Final = rb"(?:\#|%:|\?\?=)"
BLANKS: Final = rb"(?:[ \t\f\v\r]|/\*(?:[^*]|\*(?!/)){0,400}+\*/)*+"
# The longest name of a file. Without a limit a line of names without ends is read for each of them.
_NAME: Final = rb'"([^"\n]{1,4096}+)"|<([^>\n]{1,4096}+)>'
# What stands before a question on its line, likewise.
_MAX_BEFORE: Final = 4096
_OPERAND: Final = (
    rb"(?:"
    + BLANKS
    + rb"(\()"
    + BLANKS
    + rb"(?:"
    + _NAME
    + rb"|([A-Za-z_$][\w$]*)"
    + BLANKS
    + rb"(?=\)))?)?"
)
_BUILTIN: Final = re.compile(rb"(?<![\w$])__has_include(?:_next)?(?:__)?(?![\w$])" + _OPERAND)
# A line that defines a macro, up to the macro's text.
_DEFINE: Final = re.compile(
    rb".*" + _HASH + BLANKS + rb"define" + BLANKS + rb"([\w$]+)(?:\(([^)\n]*)\))?" + BLANKS
)
_MENTION: Final = re.compile(
    rb".*(?:"
    + _HASH
    + BLANKS
    + rb"(?:define|undef|ifn?def|elifn?def)"
    + BLANKS
    + rb"|\bdefined"
    + BLANKS
    + rb"\(?"
    + BLANKS
    + rb")"
)
_REST_OF_NOTHING: Final = re.compile(BLANKS + rb"(?://[^\n]*)?(?=\n|\Z)")
_WORD: Final = re.compile(rb"[A-Za-z_$][\w$]*")
# `#define A B`, `#define B <name.h>`: handwritten chains are shorter than this.
MAX_CHAIN: Final = 16
MAX_NAMES: Final = 20_000
_MAX_EXPANDED: Final = 64
# Blanks in a macro's text, and macros with arguments, are not followed.
_BLANK_OR_CALL: Final = re.compile(rb"[\s()]")
# Both halves of the operator in one file, for `##` to join.
_FIRST_HALF: Final = re.compile(rb"\b__has_?[ \t]*(?:##|[,)])")
_SECOND_HALF: Final = re.compile(rb"(?:##[ \t]*|[(,][ \t]*)_?include(?:_next)?(?:__)?(?![\w$])")
# Predefined in GNU modes without a leading underscore; each is 1. C names are not reserved, so
# that list is short and old.
_PREDEFINED: Final = frozenset(
    b"linux unix i386 WIN32 WIN64 WINNT sun sparc mips hppa m68k PPC arm".split()
)


@dataclass(frozen=True, slots=True)
class Questions:
    """What one text asks. Names are (is quoted, name) pairs; a quoted one is relative to the file.

    `loose` names come from the text of macros, so that any file may ask for them, `macros` stand in
    place of a name. `synonyms` and `aliases` are macros that ask; see the module's docstring.
    """

    names: frozenset[tuple[bool, bytes]] = frozenset()
    loose: frozenset[tuple[bool, bytes]] = frozenset()
    macros: frozenset[bytes] = frozenset()
    synonyms: frozenset[bytes] = frozenset()
    aliases: frozenset[bytes] = frozenset()
    is_opaque: bool = False

    def __or__(self, other: Questions) -> Questions:
        """Return what either asks."""
        if other is NOTHING_ASKED:
            return self
        return Questions(*(getattr(self, f.name) | getattr(other, f.name) for f in fields(self)))

    @property
    def in_macros(self) -> bool:
        """True if a macro takes part in a question."""
        return bool(self.loose or self.macros or self.synonyms or self.aliases)

    def without_names(self) -> Questions:
        """Return these questions without the plain ones."""
        return replace(self, names=frozenset())

    @property
    def count(self) -> int:
        """How many names and macros are asked for."""
        return len(self.names) + len(self.loose) + len(self.macros)


NOTHING_ASKED: Final = Questions()


def read_questions(text: bytes) -> Questions:
    """Return what a text asks with `__has_include` itself. Splices must be joined before."""
    found = _read(text, _BUILTIN, expands=False, marks_mentions=False)
    return found | Questions(is_opaque=True) if may_paste(text) else found


def read_uses(text: bytes, synonyms: Iterable[bytes], aliases: Iterable[bytes]) -> Questions:
    """Return what a text asks through macros. Splices must be joined before."""
    found = NOTHING_ASKED
    for words, expands in ((synonyms, False), (aliases, True)):
        ours = sorted(w for w in words if w in text)
        if ours:
            every = rb"(?<![\w$])(?:" + b"|".join(map(re.escape, ours)) + rb")(?![\w$])"
            pattern = re.compile(every + _OPERAND)
            found |= _read(text, pattern, expands=expands, marks_mentions=True)
    return found


def _read(
    text: bytes, pattern: re.Pattern[bytes], *, expands: bool, marks_mentions: bool
) -> Questions:
    """Read a text as it is, and without its comments.

    A comment may stand in a directive, over several lines. But `//` is also part of a name between
    angle brackets. Prose may mention an operator without a name, so only code can be opaque.
    """
    raw = _Reader(text, expands=expands, marks_mentions=marks_mentions)
    raw.read(pattern)
    if b"/*" not in text and b"//" not in text:
        return raw.found(is_opaque=raw.is_opaque)
    plain = without_comments(text)
    code = _Reader(plain, expands=expands, marks_mentions=marks_mentions)
    code.read(pattern)
    is_opaque = raw.is_cut or code.is_opaque
    # If comments may be code, `code` has read the text as it is, so that its prose counts as well.
    is_opaque |= may_hold_comments(plain, text) and not may_hide_code(text)
    return raw.found(is_opaque=False) | code.found(is_opaque=is_opaque)


class _Reader:
    """Collects the findings of one text. `expands`: the operator's operand is a macro argument.

    `marks_mentions`: the name of the operator is opaque wherever it is not called. `is_cut`: a
    question stands so far behind the begin of its line that it is not read.
    """

    def __init__(self, text: bytes, *, expands: bool, marks_mentions: bool) -> None:
        self._text, self._expands, self._marks_mentions = text, expands, marks_mentions
        self.names: set[tuple[bool, bytes]] = set()
        self.loose: set[tuple[bool, bytes]] = set()
        self.macros: set[bytes] = set()
        self.synonyms: set[bytes] = set()
        self.aliases: set[bytes] = set()
        self.is_opaque = self.is_cut = False

    def found(self, *, is_opaque: bool) -> Questions:
        """Return the findings."""
        return Questions(
            frozenset(self.names),
            frozenset(self.loose),
            frozenset(self.macros),
            frozenset(self.synonyms),
            frozenset(self.aliases),
            is_opaque,
        )

    def read(self, pattern: re.Pattern[bytes]) -> None:
        """Add all uses of an operator."""
        for match in pattern.finditer(self._text):
            self._add(match)

    def _add(self, match: re.Match[bytes]) -> None:
        text, start = self._text, match.start()
        line = text.rfind(b"\n", max(0, start - _MAX_BEFORE), start) + 1
        if not line and start > _MAX_BEFORE:
            self.is_opaque = self.is_cut = True
            return
        before = text[line:start]
        if _MENTION.fullmatch(before):
            return
        definition = _DEFINE.match(before)
        is_call, quoted, angled, word = match.groups()
        if is_call is None:
            self._add_mention(match, before, definition)
        elif definition is not None:
            self._add_defined(definition, quoted, angled, word)
        elif quoted:
            self.names.add((True, quoted))
        elif angled:
            (self.loose if self._expands else self.names).add((False, angled))
        elif word:
            self.macros.add(word)
        else:
            self.is_opaque = True

    def _add_defined(
        self, definition: re.Match[bytes], quoted: bytes, angled: bytes, word: bytes
    ) -> None:
        """Note a question in the text of a macro."""
        parameters = _WORD.findall(definition[2] or b"")
        if definition[2] is not None and b"..." in definition[2]:
            parameters.append(b"__VA_ARGS__")
        if quoted:
            self.loose.add((True, quoted))
        elif angled:
            self.loose.add((False, angled))
            self.is_opaque |= not set(_WORD.findall(angled)).isdisjoint(parameters)
        elif word and parameters == [word]:
            self.aliases.add(definition[1])
        elif word and word not in parameters:
            self.macros.add(word)
        else:
            self.is_opaque = True

    def _add_mention(
        self, match: re.Match[bytes], before: bytes, definition: re.Match[bytes] | None
    ) -> None:
        """Note the operator's name without a parenthesis behind it."""
        if definition is None:
            # A comment that is too long to skip, or an argument of a macro, which may call it. The
            # operator itself is an error there.
            self.is_opaque |= self._marks_mentions or self._text.startswith(b"/*", match.end())
        elif definition[2] is None and definition.end() == len(before):
            if _REST_OF_NOTHING.match(self._text, match.end()):
                (self.aliases if self._expands else self.synonyms).add(definition[1])
            else:
                self.is_opaque = True
        else:
            self.is_opaque = True


def definition_lines(macros: Iterable[bytes]) -> bytes:
    """Return `-D` values (NAME or NAME=TEXT) as the lines that define the same macros."""
    parts = (macro.partition(b"=") for macro in macros)
    return b"".join(b"#define %s %s\n" % (name, text) for name, _, text in parts)


def may_paste(text: bytes) -> bool:
    """Return whether `##` may make the operator of two words of this text."""
    return _FIRST_HALF.search(text) is not None and _SECOND_HALF.search(text) is not None


def words_in(loose: Iterable[tuple[bool, bytes]]) -> frozenset[bytes]:
    """Return the words between angle brackets that the preprocessor would expand if macros."""
    words = (w for is_quoted, name in loose if not is_quoted for w in _WORD.findall(name))
    return frozenset(words)


def may_be_predefined(word: bytes) -> bool:
    """Return whether a compiler may define this word itself: names in its reserved space.

    glibc's headers replace functions such as `fcntl` by functions whose names end so.
    """
    if word.endswith(b"_time64"):
        return False
    return word.startswith(b"__") or (word[:1] == b"_" and word[1:2].isupper())


def with_predefined(loose: Iterable[tuple[bool, bytes]]) -> frozenset[tuple[bool, bytes]]:
    """Add the names that predefined words lead to: `<linux/a.h>` is `<1/a.h>` in GNU modes."""
    found = set(loose)
    for is_quoted, name in tuple(found):
        if not is_quoted and not _PREDEFINED.isdisjoint(_WORD.findall(name)):
            found.add((False, _WORD.sub(_one_for_predefined, name)))
    return frozenset(found)


def _one_for_predefined(match: re.Match[bytes]) -> bytes:
    return b"1" if match[0] in _PREDEFINED else match[0]


@dataclass(frozen=True, slots=True)
class Definitions:
    """Definitions of some macros: (is quoted, name) pairs, further macros, or unreadable text.

    `texts` are (macro, text) pairs of macros without parameters.
    """

    names: frozenset[tuple[bool, bytes]] = frozenset()
    macros: frozenset[bytes] = frozenset()
    defined: frozenset[bytes] = frozenset()
    is_opaque: bool = False
    texts: frozenset[tuple[bytes, bytes]] = frozenset()


def merged(every: Iterable[Definitions]) -> Definitions:
    """Return the definitions of several texts as one."""
    found = tuple(every)
    return Definitions(
        frozenset().union(*(d.names for d in found)),
        frozenset().union(*(d.macros for d in found)),
        frozenset().union(*(d.defined for d in found)),
        any(d.is_opaque for d in found),
        frozenset().union(*(d.texts for d in found)),
    )


def settle_questions(
    asked: Questions,
    uses: Callable[[frozenset[bytes], frozenset[bytes]], Questions],
    definitions: Callable[[frozenset[bytes]], Definitions],
) -> tuple[frozenset[tuple[bool, bytes]], bool]:
    """Follow macros until all names are known; return the names, and whether some are not.

    `uses` returns what all texts ask through these synonyms and aliases, `definitions` how all
    texts define these macros. A macro that no text defines cannot give a name: its question is an
    error or in a branch that is never compiled. The compiler itself defines only reserved names.
    """
    known: tuple[frozenset[bytes], frozenset[bytes]] | None = None
    for _ in range(MAX_CHAIN):
        if known == (asked.synonyms, asked.aliases):
            break
        known = (asked.synonyms, asked.aliases)
        if any(known):
            asked |= uses(*known)
    else:
        return frozenset(), True
    loose, is_opaque = _follow(asked, definitions)
    names = _expanded(with_predefined(loose), definitions)
    if names is None:
        return asked.names | loose, True
    names |= asked.names
    is_opaque |= len(names) > MAX_NAMES or any(b"\0" in name for _, name in names)
    return names, is_opaque


def _expanded(
    loose: frozenset[tuple[bool, bytes]], definitions: Callable[[frozenset[bytes]], Definitions]
) -> frozenset[tuple[bool, bytes]] | None:
    """Add what names between angle brackets become if words in them are macros; None if unknown."""
    names = loose
    limit = len(loose) + _MAX_EXPANDED
    known: frozenset[bytes] = frozenset()
    texts: frozenset[tuple[bytes, bytes]] = frozenset()
    for _ in range(MAX_CHAIN):
        words = words_in(names)
        if any(map(may_be_predefined, words)) or len(names) > limit:
            return None
        if any(_BLANK_OR_CALL.search(name) for is_quoted, name in names if not is_quoted):
            return None
        if words - known:
            texts |= definitions(words - known).texts
            known |= words
        more = {n for macro, text in texts for n in _with_text(names, macro, text)}
        if more <= names:
            return names
        names |= more
    return None


def _with_text(
    names: Iterable[tuple[bool, bytes]], macro: bytes, text: bytes
) -> Iterator[tuple[bool, bytes]]:
    for is_quoted, name in names:
        if not is_quoted and macro in name:
            yield False, _WORD.sub(lambda m: text if m[0] == macro else m[0], name)


def _follow(
    asked: Questions, definitions: Callable[[frozenset[bytes]], Definitions]
) -> tuple[frozenset[tuple[bool, bytes]], bool]:
    """Return the names that stand in macros, and whether some cannot be read."""
    loose, is_opaque = asked.loose, asked.is_opaque
    done: frozenset[bytes] = frozenset()
    wanted = asked.macros
    for _ in range(MAX_CHAIN):
        if not wanted:
            return loose, is_opaque
        found = definitions(wanted)
        is_opaque |= found.is_opaque or any(map(may_be_predefined, wanted - found.defined))
        loose |= found.names
        done |= wanted
        wanted = found.macros - done
    return loose, True
