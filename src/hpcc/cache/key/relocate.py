"""Translates paths in shared entries: the root of a clone becomes a mark, and back."""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.share import ROOT_MARK, under_root
from hpcc.compilers.invocation.share_text import mark_text, render_text

ORIGIN_BYTES: Final = 8
# Before the marked path of a file that a shared set does not name by its content, but by its origin
# (`results.origins`), or by its text with marks. Other paths are absolute or begin with a mark.
BY_ORIGIN: Final = b"origin" + ROOT_MARK
BY_TEXT: Final = b"text" + ROOT_MARK


class Checkout(NamedTuple):
    """One clone of a project. Its depfiles have the layout of compilers of `family`.

    `units` is the directory in which header units of this compile would be, b"" if it asks for
    none. There they have whole paths, and those of the clone's own headers begin with its root.
    """

    root: bytes
    family: CompilerFamily
    units: bytes = b""

    @property
    def origin(self) -> bytes:
        """A short name of this clone (8 bytes), which tells who made an entry."""
        return hashlib.sha256(self.root).digest()[:ORIGIN_BYTES]

    def mark(self, path: bytes) -> bytes:
        """Replace the root at the start of a path by the mark; other paths stay."""
        rest = under_root(path, self.root)
        return path if rest is None else ROOT_MARK + rest

    def spell(self, path: bytes) -> bytes:
        """Reverse `mark`. Replaces only text, so that `..` and links are resolved in this clone."""
        path = path.removeprefix(BY_ORIGIN).removeprefix(BY_TEXT)
        return self.root + path[len(ROOT_MARK) :] if path.startswith(ROOT_MARK) else path

    def marked_absences(self, absences: tuple[Absence, ...]) -> tuple[Absence, ...]:
        """Return absences with marked directories."""
        return tuple(absence.renamed(self.mark) for absence in absences)

    def files_by(self, name: bytes, inputs: InputSet) -> tuple[tuple[bytes, bytes], ...]:
        """Return the files here that a stored set names by their origin or text, with that name.

        `name` is `BY_ORIGIN` or `BY_TEXT`.
        """
        files = (file for file in inputs.files if file[0].startswith(name))
        return tuple((self.spell(path), its) for path, its in files)

    def spelled_set(self, inputs: InputSet) -> InputSet:
        """Return a stored set of inputs with this clone's paths, without those of `files_by`."""
        names = (BY_ORIGIN, BY_TEXT)
        files = tuple(file for file in inputs.files if not file[0].startswith(names))
        found = inputs._replace(files=files).renamed(self.spell)
        if not self.units:
            return found
        # The clone that stored them watched for header units below its root, not below this one.
        first = frozenset({self.root.split(b"/")[1]})
        return found._replace(absences=(*found.absences, Absence(self.units, frozenset(), first)))

    def marked_texts(
        self, depfile: bytes | None, stderr: bytes
    ) -> tuple[bytes | None, bytes] | None:
        """Return depfile and messages with marks, as they are stored; None if not possible."""
        text = mark_text(stderr, self.root)
        rules = None if depfile is None else self.family.mark_depfile(depfile, self.root)
        if text is None or (rules is None) is not (depfile is None):
            return None
        return rules, text

    def spelled_texts(self, depfile: bytes | None, stderr: bytes) -> tuple[bytes | None, bytes]:
        """Reverse `marked_texts`."""
        if depfile is not None:
            depfile = self.family.render_depfile(depfile, self.root)
        return depfile, render_text(stderr, self.root)
