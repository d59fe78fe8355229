"""How `hpcc worker drain` talks to the worker of its machine: two files in the state directory.

The command writes a request; the worker obeys it and writes a report. Who can write there is the
worker's user or root, and may end the worker anyway. A request counts for one process: the next
worker removes it, so that a machine that has rebooted takes compiles.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.config.service_file import load_service_file
from hpcc.core import CallerError

REQUEST_NAME: Final = "drain-request.json"
REPORT_NAME: Final = "drain.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainRequest:
    """What the command wants; the worker's next report has its `request` as `obeyed`."""

    request: str
    is_wanted: bool
    seconds: float
    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainReport:
    """How far a worker is. `state` is a `DrainState`; `ends_at` is in seconds since the epoch."""

    obeyed: str
    state: str
    running: int
    queued: int
    ends_at: float
    by: str
    reason: str


class DrainFiles:
    """The worker's end: notices requests and writes reports. Its methods block."""

    def __init__(self, state: Path) -> None:
        self._request, self._report = state / REQUEST_NAME, state / REPORT_NAME
        self._seen: tuple[int, int] | None = None

    def clear(self) -> None:
        """Remove both files, of an earlier process or of this one that ends."""
        for path in (self._request, self._report):
            path.unlink(missing_ok=True)

    def request_or_none(self) -> DrainRequest | None:
        """Return a request that was not returned before.

        Raises:
            CallerError: it cannot be read; it is not looked at again until it changes.
        """
        try:
            found = self._request.stat()
        except OSError:
            return None
        seen = found.st_ino, found.st_ctime_ns
        if seen == self._seen:
            return None
        self._seen = seen
        return load_service_file(self._request, DrainRequest)

    def write(self, report: DrainReport) -> None:
        """Replace the report.

        Raises:
            InfrastructureError: it cannot be written.
        """
        write_private_file(self._report, json.dumps(asdict(report)).encode())


def become_owner(state: Path) -> None:
    """Give up root's rights for those of the directory's owner, for the rest of this process.

    Root must not write there: the owner could replace what root has written with a link.

    Raises:
        CallerError: there is no such directory, or the rights cannot be changed.
    """
    if not state.is_dir():
        raise CallerError(f"{state} is not a directory that this user can read", reason="drain")
    if sys.platform == "win32" or os.geteuid() != 0:
        return
    owner = state.stat()
    if owner.st_uid == 0:
        return
    try:
        os.setgroups([])
        os.setgid(owner.st_gid)
        os.setuid(owner.st_uid)
    except OSError as error:
        raise CallerError(f"run this as the owner of {state}", reason="drain") from error


def write_request(state: Path, request: DrainRequest) -> None:
    """Write a request for the worker with this state directory.

    Raises:
        InfrastructureError: the file cannot be written.
    """
    write_private_file(state / REQUEST_NAME, json.dumps(asdict(request)).encode())


def report_or_none(state: Path) -> DrainReport | None:
    """Return the report of the worker with this state directory; None if there is none.

    Raises:
        CallerError: it is malformed.
    """
    path = state / REPORT_NAME
    return load_service_file(path, DrainReport) if path.is_file() else None
