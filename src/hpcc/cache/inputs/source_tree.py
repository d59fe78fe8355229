"""Gives the include walk of `hpcc.compilers.scan` the files of this machine."""

from __future__ import annotations

import os
import stat
from dataclasses import replace

from hpcc.cache.base.files import FileMemo, Listing
from hpcc.cache.inputs.questions import uses
from hpcc.cache.inputs.system_names import SystemNames
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.scan.include_closure import UnscannableError
from hpcc.compilers.scan.includes import Includes, scan_definitions, scan_includes
from hpcc.compilers.scan.questions import Definitions, Questions
from hpcc.compilers.scan.scan import HAZARD_REASONS, Hazard, Scan
from hpcc.core.reasons.closure import ClosureReason


class DiskTree:
    """A `SourceTree` over real files, for one walk. `digests` holds those of all files read.

    `tolerated` are hazards that do not refuse the walk.
    """

    def __init__(
        self,
        memo: FileMemo,
        system: SystemNames,
        *,
        system_dirs: tuple[bytes, ...],
        tolerated: Hazard,
        family: CompilerFamily,
    ) -> None:
        self._memo, self._system, self._tolerated = memo, system, tolerated
        self.system_dirs, self._family = system_dirs, family
        self._listings: dict[bytes, Listing | None] = {}
        self.digests: dict[bytes, bytes] = {}
        # True if a file was read that may make others be read once.
        self.makes_others_once = False

    def includes(self, path: bytes) -> Includes:
        """See `SourceTree.includes`; raises for hazards that are not tolerated."""
        found = self._memo.examine(path)
        if found is None:
            raise UnscannableError(ClosureReason.INPUT_VANISHED)
        self.check(found.scan)
        self.digests[path] = found.digest
        found_includes = self._memo.derived(path, found.digest, "includes", self._scan_includes)
        return self._family.includes(_known(found_includes))

    def _scan_includes(self, data: bytes) -> Includes:
        return scan_includes(data, self._memo.preambles)

    def check(self, scan: Scan) -> None:
        """Check a scan for hazards that are not tolerated.

        Raises:
            UnscannableError: the scan has one.
        """
        if scan.hazards is not Hazard.NONE:
            self.makes_others_once |= Hazard.READ_ONCE in scan.hazards
        left = scan.hazards & ~self._tolerated
        if left:
            for hazard, reason in HAZARD_REASONS.items():
                if hazard in left:
                    raise UnscannableError(reason)

    def definitions(self, path: bytes, names: frozenset[bytes]) -> Definitions:
        """See `SourceTree.definitions`."""
        question = ("definitions", names)
        found = _known(
            self._memo.derived(
                path, self.digests[path], question, lambda data: scan_definitions(data, names)
            )
        )
        return self._family.definitions(found)

    def system_definitions(self, names: frozenset[bytes]) -> Definitions:
        """See `SourceTree.system_definitions`."""
        return self._system.definitions(names, self.system_dirs)

    def uses(self, path: bytes, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        """See `SourceTree.uses`."""
        return self._asked(_known(uses(self._memo, path, self.digests[path], synonyms, aliases)))

    def system_uses(self, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        """See `SourceTree.system_uses`."""
        return self._asked(self._system.uses(synonyms, aliases, self.system_dirs))

    def _asked(self, found: Questions) -> Questions:
        questions = self._family.questions
        return replace(found, names=questions(found.names), loose=questions(found.loose))

    def names(self, directory: bytes) -> frozenset[bytes] | None:
        """See `SourceTree.names`."""
        listing = self.listing(directory)
        return None if listing is None else listing.names

    def listing(self, directory: bytes) -> Listing | None:
        """Return a directory's listing from when the walk first asked; None without a directory."""
        try:
            return self._listings[directory]
        except KeyError:
            found = self._listings[directory] = self._memo.listing(directory)
            return found

    def is_file(self, path: bytes) -> bool:
        try:
            status = os.lstat(path)
            is_link = stat.S_ISLNK(status.st_mode)
            if is_link:
                status = os.stat(path)
        except OSError as error:
            # A dangling link may get a target later.
            raise UnscannableError(ClosureReason.INPUT_VANISHED) from error
        if stat.S_ISDIR(status.st_mode):
            if is_link:
                raise UnscannableError(ClosureReason.DIRECTORY_LINK)
            return False
        if not stat.S_ISREG(status.st_mode):
            raise UnscannableError(ClosureReason.SPECIAL_INPUT)
        return True

    def is_link(self, path: bytes) -> bool:
        return os.path.islink(path)

    def system(
        self, names: frozenset[bytes]
    ) -> tuple[frozenset[bytes], frozenset[bytes], Questions]:
        """See `SourceTree.system`."""
        return self._system.asked_by(names, self.system_dirs)


def _known[T](found: T | None) -> T:
    if found is None:
        raise UnscannableError(ClosureReason.INPUT_VANISHED)  # it is changing now
    return found
