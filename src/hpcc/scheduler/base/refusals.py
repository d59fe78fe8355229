"""Refusals of workers: an error for the caller, and a line for the operator."""

from __future__ import annotations

import logging
import re
from typing import Final

from hpcc.rpc.base.errors import UnauthenticatedError
from hpcc.rpc.base.method import current_caller

_log: Final = logging.getLogger(__name__)
WORKER_ID: Final = re.compile(r"[a-z0-9][a-z0-9.-]{0,127}")


def event(name: str, worker: str) -> None:
    """Write a security event to the scheduler's log."""
    peer, request = current_caller()
    _log.warning("security event: %s worker=%s peer=%s request=%s", name, worker, peer, request)


def worker_refused(name: str, worker: str, text: str) -> UnauthenticatedError:
    """Return the error for a worker, and log it as a security event of this name."""
    event(name, worker)
    return UnauthenticatedError(text, reason=name)


def token_replayed(worker: str) -> UnauthenticatedError:
    """Return the error for a token that was used already."""
    return worker_refused(
        "enrol-token-replayed", worker, "the token was used already: ask for another"
    )


def printable_name(text: str) -> str:
    """Return a worker's claimed name if it can be one, else "?"."""
    return text if WORKER_ID.fullmatch(text) else "?"
