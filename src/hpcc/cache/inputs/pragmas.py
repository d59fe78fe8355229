"""Tells whether a compile's own preprocessor can be asked about it (`compilers.scan.pragmas`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.scan.pragmas import Pragmas, define_macros, is_compilers_own, read_pragmas

_DOUBT = Pragmas.WHOLE


def is_preprocessor_blind(memo: FileMemo, prepared: Prepared, paths: Iterable[bytes]) -> bool:
    """Tell whether `-E` and `-M` may take other branches than this compile.

    `paths` are the files that it read, at least up to the first such pragma.
    """
    return prepared.family.has_blind_preprocessor and define_macros(_pieces(memo, prepared, paths))


def _pieces(memo: FileMemo, prepared: Prepared, paths: Iterable[bytes]) -> Iterator[Pragmas]:
    yield read_pragmas(b"\n".join(prepared.invocation.arguments))
    for name in paths:
        path = absolute(prepared.cwd, name)
        if is_compilers_own(path):
            continue
        digest = memo.digest(path)
        found = None if digest is None else memo.derived(path, digest, "pragmas", read_pragmas)
        yield _DOUBT if found is None else found
