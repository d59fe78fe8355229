"""Looks up and stores results by content: the second look-up, behind the exact key.

Problem: the exact key names outputs and directories, so a new build directory, a second target or a
moved project starts at zero, although the compiler would write the same object.

Rule: two compiles with one content key (`content.key`) and, up to their places, the same inputs
give the same object, unless it shows a name of a file in a place that differs. So a look-up

1. computes the key and reads its entries;
2. spells each entry's inputs with the asking compile's own places, and compares all files and all
   absent names there, as for an exact key;
3. asks the preprocessor, once for each entry, whose names the object may show (`content.names`);
4. writes depfile and messages with the asking compile's names, and the depfile with its targets.

Example: `cc -I/p/inc -c /p/src/a.c -o a.o` in /p/b1, then the same in /p/b2: one key, with /p as
the root. With `assert` in a.c the object shows /p/src/a.c, which is the same. In a moved copy of /p
it is not, and the compiler runs.

What must never happen: a hit where the compiler would have written another byte, warned or failed.
In doubt there is no entry.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final, NamedTuple

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.content.comments import CommentFree, comment_free_files
from hpcc.cache.content.crossing import (
    leave_through_links,
    letters_of_respelled,
    letters_reached_from_outside,
    puts_names_together,
)
from hpcc.cache.content.doubts import settle
from hpcc.cache.content.edits import Edits
from hpcc.cache.content.elsewhere import Elsewhere
from hpcc.cache.content.entries import (
    ContentEntry,
    Names,
    add_entries,
    decode_entries,
    encode_entries,
)
from hpcc.cache.content.key import ContentKey, content_key
from hpcc.cache.content.macros import has_same_text
from hpcc.cache.content.maps import are_alike
from hpcc.cache.content.messages import moved_messages, name_an_output
from hpcc.cache.content.names import ask_names, may_move, moved_marks
from hpcc.cache.content.outputs import overwrites
from hpcc.cache.content.places import ALL_LETTERS, LETTERS, Places
from hpcc.cache.content.private import marked, needs_directory, spelled
from hpcc.cache.content.quotes import hold_quotes
from hpcc.cache.content.values import record_key
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.results.results import Found, Result, Results
from hpcc.cache.results.share_check import SourceCheck
from hpcc.compilers.invocation.invocation import Language
from hpcc.compilers.scan.comments import LexMode
from hpcc.compilers.scan.scan import Hazard
from hpcc.core import IntegrityError
from hpcc.store.private import PrivateStore

# With these, text outside of include lines names a file.
_NAMING: Final = (
    Hazard.COMPUTED_INCLUDE
    | Hazard.ASSEMBLER_FILE
    | Hazard.OPAQUE_ASSEMBLY
    | Hazard.EMBED
    | Hazard.OPAQUE_EMBED
    | Hazard.OPAQUE_QUESTION
)
Change = Callable[[tuple[ContentEntry, ...]], tuple[ContentEntry, ...]]


class ContentFound(NamedTuple):
    """A result for this compile, and the content key that led to it."""

    found: Found
    key: bytes


class Contents:
    """The entries of content keys. Thread-safe; a fault is a miss."""

    def __init__(
        self,
        store: PrivateStore,
        results: Results,
        memo: FileMemo,
        counters: Counters,
        sources: SourceCheck,
    ) -> None:
        self._store, self._results, self._memo = store, results, memo
        self._counters, self._sources = counters, sources
        self._elsewhere = Elsewhere(memo)

    def why_missed(self, prepared: Prepared, key: ContentKey | None, reason: str) -> str:
        """Return `reason`, or a better one than "new-command" if another place has a result."""
        if reason != "new-command" or key is None:
            return reason
        return self._elsewhere.why_missed(prepared, key) or reason

    def key(self, prepared: Prepared, search: tuple[bytes, ...]) -> ContentKey | None:
        """See `content_key`."""
        return content_key(self._memo, prepared, search)

    def find(self, prepared: Prepared, key: ContentKey) -> ContentFound | None:
        """Return a result that the compiler would make here now, with this compile's names."""
        # Those with the same macros first: they need no look into the files.
        entries = sorted(self._read(key.key), key=lambda e: e.macros != key.form.macros)
        plain = tuple(e for e in entries if not e.is_comment_free)
        found = self._first(prepared, key, plain, None)
        if found is None:
            self._note_other_places(prepared, key, plain[:1])
        mode = _lex_mode(prepared) if found is None and len(plain) < len(entries) else None
        if mode is not None:
            entries = list(self._read(key.key))  # with the names that were asked for
        if mode is None:
            return found
        found = self._first(prepared, key, (e for e in entries if e.is_comment_free), mode)
        if found is not None:
            self._counters.add("hit.comments")
        return found

    def _first(
        self,
        prepared: Prepared,
        key: ContentKey,
        entries: Iterable[ContentEntry],
        mode: LexMode | None,
    ) -> ContentFound | None:
        for entry in entries:
            if not entry.suits(key.places, key.places.mark(key.private)):
                continue
            view = self._view(prepared, key, entry, mode)
            if view is None or overwrites(prepared, view.files):
                continue
            if not self._names_are_alike(key, entry, view):
                continue
            result = self._results.result(entry.inputs.result_key)
            if result is None:
                continue
            moved = moved_marks(key, entry.made_at, has_maps=prepared.share is not None)
            known = self._with_names(prepared, key, entry) if moved else entry
            if not may_move(known, moved):
                continue
            if known is not entry and not view.holds(self._memo):
                continue
            named = _with_texts(prepared, key, entry, result)
            if named is None:
                continue
            holds = mode is None or not named.stderr
            if holds or hold_quotes(named.stderr, prepared.cwd, dict(view.files), self._memo):
                self._store.touch(key.key)
                return ContentFound(Found(view, named), key.key)
        return None

    def _names_are_alike(self, key: ContentKey, entry: ContentEntry, view: InputSet) -> bool:
        """Tell whether links and maps of the user do to names what they did at the maker's."""
        names = (*(path for path, _ in view.files), *view.present)
        if key.has_other_names(names) or leave_through_links(names, key.places, entry.fixed):
            return False
        if not key.maps.replace_places or key.places == entry.made_at:
            return True
        check = self._sources.why_not_shared
        return are_alike(self._memo, view.files, key.places, entry.made_at, check)

    def _note_other_places(
        self, prepared: Prepared, key: ContentKey, entries: Iterable[ContentEntry]
    ) -> None:
        """Note for `why_missed` that another place has a result for these texts, and shows it."""
        for entry in entries:
            places = set(entry.made_at) - {*key.places, b""}
            result = self._results.result(entry.inputs.result_key) if places else None
            shows = result is not None and any(place in result.object_data for place in places)
            if shows and self._view(prepared, key, entry, None):
                self._elsewhere.note_name(key)
                return

    def _view(
        self, prepared: Prepared, key: ContentKey, entry: ContentEntry, mode: LexMode | None
    ) -> InputSet | None:
        """Return an entry's inputs with this compile's paths; None if they do not hold now."""
        view, form = spelled(entry.inputs, key.places, key.private), key.form
        if mode is None:
            holds = view.holds(self._memo)
            is_same = holds and has_same_text(self._memo, prepared, form, view, entry)
            return view if is_same else None
        stored = dict(view.files)
        facts = CommentFree(self._memo, key.places, mode, prepared.source, stored)
        edits = Edits(facts, self._store, stored)
        if not view.holds(edits):
            return None
        view = facts.with_plain_digests(view)
        if edits.files and not self._are_invisible(prepared, key, entry, view, edits):
            return None
        # Before the doubts, which are settled for the entry's own text.
        if not has_same_text(self._memo, prepared, form, view, entry):
            return None
        answer = settle(self._memo, prepared, facts, entry.unsettled)
        if answer.left is not entry.unsettled:
            if answer.was_asked:
                self._counters.add("content.asked")
            if not view.holds(self._memo):
                return None
            self._change(key, entry, lambda e: e._replace(unsettled=answer.left))
        return view if answer.is_usable else None

    def _are_invisible(
        self,
        prepared: Prepared,
        key: ContentKey,
        entry: ContentEntry,
        view: InputSet,
        edits: Edits,
    ) -> bool:
        """Tell whether the result is the same with other values of macros."""
        result = self._results.result(entry.inputs.result_key)
        # A message that quotes a line is compared with the line (`hold_quotes`).
        if result is None or edits.are_named(result.stderr):
            return False
        is_same = edits.are_invisible(self._memo, prepared, key.form, view)
        self._counters.add("content.other-values" if is_same else "content.values-read")
        return is_same and view.holds(self._memo)  # it took time

    def keep(
        self,
        prepared: Prepared,
        key: ContentKey,
        closure: Closure,
        result: Result,
        stored: bytes,
        search_path: Callable[[Prepared], tuple[bytes, ...]],
        *,
        is_private: bool,
    ) -> None:
        """Add an entry for a result that was just stored under the result key `stored`.

        `key` is from before the compile. `is_private`: a marker asked for sharing, and the result
        names this checkout.
        """
        try:
            if not key.is_valid(prepared.request, search_path(prepared)):
                return
        except UncacheableError:
            return  # the search path is unknown now
        if result.stdout or len(result.side) != len(prepared.side_paths):
            return
        if name_an_output(prepared, result.stderr):
            return
        names = (*(path for path, _ in closure.files), *closure.existing)
        if key.has_other_names(names) or leave_through_links(names, key.places):
            return
        places = key.places
        # In the order of the exact entry: the names are encoded once for both.
        absences = tuple(sorted(closure.absences, key=lambda a: a.directory))
        state = InputSet(closure.files, closure.present, absences, stored, twins=closure.twins)
        inputs = marked(state, places, key.private)
        fixed = letters_of_respelled(self._memo, prepared, closure, inputs)
        if fixed and leave_through_links(names, places, fixed):
            return
        fixed += ALL_LETTERS if is_private else self._fixed(closure, places, result)
        fixed += letters_reached_from_outside(self._memo, prepared, key, closure)
        if puts_names_together(self._memo, prepared, closure):
            self._counters.add("content.assembled-names")
            fixed += ALL_LETTERS
        outputs = (result.object_data, *result.side)
        if key.private and needs_directory(
            self._memo, closure, key.private, outputs, result.stderr
        ):
            fixed += b"o"
        private, form = places.mark(key.private), key.form
        entry = ContentEntry(
            inputs, places, fixed, form.targets, Names.UNKNOWN, private=private, macros=form.macros
        )
        new: tuple[ContentEntry, ...] = (entry,)
        mode = _lex_mode(prepared)
        found = mode and comment_free_files(self._memo, places, mode, prepared.source, closure)
        if found:
            entry = entry._replace(unsettled=found.unsettled)
            named = zip(inputs.files, found.files, strict=True)
            self._keep_values(found.values)
            free = inputs._replace(files=tuple((name, d) for (name, _), (_, d) in named))
            new = (entry, entry._replace(inputs=free, is_comment_free=True))
        self._write(key.key, lambda entries: add_entries(entries, new))
        self._elsewhere.note_made(prepared, key)

    def _keep_values(self, values: Mapping[bytes, bytes]) -> None:
        records = ((record_key(digest), packed) for digest, packed in values.items())
        new = [(key, zlib.decompress(p)) for key, p in records if not self._store.has(key)]
        if new:
            self._store.put_all(new)

    def _fixed(self, closure: Closure, places: Places, result: Result) -> bytes:
        """Return the letters of the places that outputs or sources name."""
        fixed = b""
        may_name = closure.has_absolute or bool(closure.hazards & _NAMING)
        for letter, place in zip(LETTERS, places, strict=True):
            if not place:
                continue
            if any(place in data for data in (result.object_data, *result.side)):
                fixed += letter
            elif (may_name or result.stderr) and self._sources.why_not_shared(closure.files, place):
                # A name in the text leads to the same file from everywhere.
                fixed += letter
        return fixed

    def _with_names(self, prepared: Prepared, key: ContentKey, entry: ContentEntry) -> ContentEntry:
        """Return the entry with its names, for which the preprocessor is asked once."""
        if entry.names is not Names.UNKNOWN:
            return entry
        is_plain = prepared.invocation.language is Language.PLAIN_ASSEMBLER
        is_written_down = key.form.names_directory and not key.maps.replace_places
        if is_written_down or is_plain:
            return entry._replace(names=())  # the key holds all that is written down
        names = ask_names(prepared, key.places)
        self._counters.add("content.asked")
        self._change(key, entry, lambda e: e._replace(names=names))
        return entry._replace(names=names)

    def _change(
        self, key: ContentKey, entry: ContentEntry, change: Callable[[ContentEntry], ContentEntry]
    ) -> None:
        """Write down in the entries for a result what is known of it now."""
        same = entry.inputs.result_key
        self._write(
            key.key,
            lambda entries: tuple(change(e) if e.inputs.result_key == same else e for e in entries),
        )

    def _read(self, key: bytes) -> tuple[ContentEntry, ...]:
        data = self._store.get(key)
        if data is None:
            return ()
        try:
            return decode_entries(data)
        except IntegrityError:
            self._counters.add("store.corrupt")
            self._store.remove(key)
            return ()

    def _write(self, key: bytes, change: Change) -> None:
        self._store.put(key, encode_entries(change(self._read(key))))


def _lex_mode(prepared: Prepared) -> LexMode | None:
    identity = prepared.identity
    mode = prepared.family.lex_mode(
        prepared.invocation, identity.major, has_hidden_flags=identity.has_hidden_flags
    )
    return None if mode is None else replace(mode, keeps_lines=True)


def _with_texts(
    prepared: Prepared, key: ContentKey, entry: ContentEntry, result: Result
) -> Result | None:
    """Return a stored result with depfile and messages of the asking compile; None if unknown."""
    depfile, stderr = result.depfile, result.stderr
    # A message may offer the name of a macro.
    if stderr and entry.macros != key.form.macros:
        return None
    if (depfile is None) != (prepared.depfile is None):
        return None
    if len(result.side) != len(prepared.side_paths):
        return None
    if prepared.share is not None and result.origin:
        maker = prepared.share.checkout._replace(root=entry.made_at.root or entry.made_at.cwd)
        depfile, stderr = maker.spelled_texts(depfile, stderr)
    messages = moved_messages(stderr, entry.made_at, key.places, prepared)
    if messages is None:
        return None
    if depfile is not None:
        depfile = prepared.family.respelled_depfile(
            depfile,
            entry.targets,
            key.form.targets,
            lambda name: key.places.spell(entry.made_at.mark(name)),
        )
        if depfile is None:
            return None
    return result._replace(depfile=depfile, stderr=messages)
