"""Finds the names that the files of a compile ask for with `__has_include` through macros."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.closure_types import ClosureRequest
from hpcc.compilers.scan.includes import argument_definitions, scan_definitions
from hpcc.compilers.scan.questions import (
    Definitions,
    Questions,
    definition_lines,
    merged,
    read_uses,
    settle_questions,
)
from hpcc.compilers.scan.scan import Scan
from hpcc.compilers.scan.text import joined
from hpcc.core.reasons.uncacheable import UncacheableReason


def names_asked(
    memo: FileMemo,
    scans: Mapping[bytes, tuple[bytes, Scan]],
    in_arguments: Questions,
    request: ClosureRequest,
    macros: tuple[bytes, ...],
) -> frozenset[tuple[bool, bytes]]:
    """Return the (is quoted, name) pairs that any of the files may ask for through macros.

    What a file asks without a macro is not among them. `macros` are those of the command line, and
    of those of precompiled headers.

    Raises:
        UncacheableError: a name cannot be read, or a file is changing.
    """
    asked = in_arguments
    for _, scan in scans.values():
        if scan.asked.in_macros:
            asked |= scan.asked.without_names()
    texts = _Texts(memo, {path: digest for path, (digest, _) in scans.items()}, request, macros)
    for scan in texts.more:
        asked |= replace(scan.asked.without_names(), is_opaque=False)
    if not asked.in_macros:
        return asked.names
    names, is_opaque = settle_questions(asked, texts.uses, texts.definitions)
    if is_opaque:
        raise UncacheableError(UncacheableReason.HAS_INCLUDE)
    return names


def uses(
    memo: FileMemo,
    path: bytes,
    digest: bytes,
    synonyms: frozenset[bytes],
    aliases: frozenset[bytes],
) -> Questions | None:
    """Return what a file asks through these macros; None if its content is another now."""
    return memo.derived(
        path,
        digest,
        ("uses", synonyms, aliases),
        lambda data: read_uses(joined(data), synonyms, aliases),
    )


class _Texts:
    """The texts in which the macros of one compile are defined and used."""

    def __init__(
        self,
        memo: FileMemo,
        digests: dict[bytes, bytes],
        request: ClosureRequest,
        macros: tuple[bytes, ...],
    ) -> None:
        self._memo, self._macros = memo, macros
        self._digests = digests
        self.more: list[Scan] = []
        for name in request.texts:
            path = absolute(request.cwd, name)
            found = memo.scan(path) if path not in digests else None
            if found is not None:
                digests[path], scan = found
                self.more.append(scan)

    def uses(self, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        found = read_uses(definition_lines(self._macros), synonyms, aliases)
        for path, digest in self._digests.items():
            more = uses(self._memo, path, digest, synonyms, aliases)
            if more is None:
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
            found |= more
        return found

    def definitions(self, names: frozenset[bytes]) -> Definitions:
        return merged(self._definitions(names))

    def _definitions(self, names: frozenset[bytes]) -> Iterator[Definitions]:
        yield argument_definitions(self._macros, names)
        question = ("definitions", names)
        for path, digest in self._digests.items():
            found = self._memo.derived(
                path, digest, question, lambda data: scan_definitions(data, names)
            )
            if found is None:
                raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
            yield found
