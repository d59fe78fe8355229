"""Reads the files that a depfile lists, on each host: clients of Windows load no more than this."""

from __future__ import annotations

from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.core import CallerError
from hpcc.core.reasons.uncacheable import UncacheableReason


def parse_dependencies(data: bytes) -> tuple[bytes, ...]:
    """Return the files that a depfile lists, in its order; at least one.

    Raises:
        UncacheableError: the bytes are not a depfile, or list no file.
    """
    try:
        names = prerequisites(parse_depfile(data))
    except CallerError as error:
        raise UncacheableError(UncacheableReason.DEPFILE) from error
    if not names:
        raise UncacheableError(UncacheableReason.DEPFILE)
    return names
