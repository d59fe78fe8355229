"""Says where outputs of one action differ, from the objects that a worker's store still has.

The trail has digests only. The outputs themselves are in the tenant's cache until it evicts them.
So of an old execution the report has often only the names of outputs. It renews and writes nothing
there. The bytes are a guest's: a bounded parser reads them, and only printable names come out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, Digest, TenantId
from hpcc.reapi.delta import common_prefix
from hpcc.worker.explain.sections import SectionDifference, differing_sections
from hpcc.worker.stores.retained import RetainedReader

# Two of them are in memory.
_MAX_OBJECT_BYTES: Final = 16 << 20
# How many results of an output are read.
_MAX_READ: Final = 4
_MAX_NAMED: Final = 4
# Relocations and symbols mostly differ because of what they point at, so they are named last.
_CONSEQUENCES: Final = (".rel", ".symtab", ".strtab")
GONE: Final = "not held here any more"
_TOO_LARGE: Final = "too large to be compared"


class HeldOutputs:
    """Compares outputs that a worker's store holds."""

    def __init__(self, store: Path) -> None:
        self._store = store

    def where(self, tenants: Iterable[str], outputs: Iterable[str]) -> str:
        """Return where the outputs with these digests differ, in words, or why that is unknown.

        `tenants` are those in whose rows the digests are.
        """
        digests = [d for d in map(_digest_or_none, outputs) if d is not None]
        small = [d for d in digests if d.size_bytes <= _MAX_OBJECT_BYTES]
        found = self._held(tuple(tenants), small)
        first = next(found, b"")
        compared = [(differing_sections(first, o), common_prefix(first, o)) for o in found]
        if not compared:
            return _TOO_LARGE if len(small) < len(digests) else GONE
        sections = [difference for difference, _ in compared if difference is not None]
        changed = [name for d in sections for name in d.changed or _headers(d)]
        single = [name for d in sections for name in d.single]
        offsets = [offset for difference, offset in compared if difference is None]
        parts = [_names(changed)] if changed else []
        parts += [f"sections of some only: {_names(single)}"] if single else []
        parts += [f"bytes from {min(offsets)} on"] if offsets else []
        read = len(compared) + 1
        return "; ".join(parts) + (f" ({read} compared)" if read < len(digests) else "")

    def _held(self, tenants: tuple[str, ...], digests: list[Digest]) -> Iterator[bytes]:
        readers = [RetainedReader(self._store, t) for t in map(_tenant_or_none, tenants) if t]
        left = _MAX_READ
        for digest in digests:
            blob = next((b for r in readers if (b := r.get_or_none(digest)) is not None), None)
            if blob is not None:
                left -= 1
                yield blob.data
            if not left:
                return


def _headers(difference: SectionDifference) -> tuple[str, ...]:
    return () if difference.single else ("its headers",)


def _digest_or_none(text: str) -> Digest | None:
    """Return a digest of a row; None if it is not one, because a trail may be anybody's."""
    try:
        return Digest.parse(text)
    except CallerError:
        return None


def _tenant_or_none(text: str) -> TenantId | None:
    try:
        return TenantId(text)
    except CallerError:
        return None


def _names(found: list[str]) -> str:
    names = sorted(dict.fromkeys(found), key=lambda name: name.startswith(_CONSEQUENCES))
    more = len(names) - _MAX_NAMED
    shown = ", ".join(names[:_MAX_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown
