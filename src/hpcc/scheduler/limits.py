"""Raises the process limits that a scheduler needs before it serves."""

from __future__ import annotations

import logging
import resource
from typing import Final

from hpcc.scheduler.registry import MAX_WORKERS
from hpcc.scheduler.watchers import MAX_WATCHERS

_log: Final = logging.getLogger(__name__)
# A connection for each worker and each watching daemon, and 1,024 for everything else.
WANTED_FILES: Final = MAX_WORKERS + MAX_WATCHERS + 1024


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return it, and log if it is too low.

    The usual soft limit of 1,024 is less than the connections of a farm.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else hard
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft != resource.RLIM_INFINITY and soft < WANTED_FILES:
        _log.warning(
            "at most %d files may be open, a farm of %d workers needs %d: raise LimitNOFILE",
            soft,
            MAX_WORKERS,
            WANTED_FILES,
        )
    return soft
