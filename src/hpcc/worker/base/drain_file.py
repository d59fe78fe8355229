"""How `hpcc worker drain` talks to the worker of its machine: two files in the state directory.

The command writes a request; the worker obeys it and writes a report. Who can write there is the
worker's user or root, and may end the worker anyway. Both files count for one process: the next
worker removes them, so that a machine that has rebooted takes compiles. A worker that ends leaves
its last report until then. So a command that finds no report learns that there was a restart.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hpcc.config.private_file import write_private_file
from hpcc.config.service_file import load_service_file
from hpcc.core import CallerError
from hpcc.files import open_file

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
        self._writing, self._number = threading.Lock(), 0

    def clear(self) -> None:
        """Remove both files, which an earlier process has left.

        Raises:
            OSError: one of them stays. A request that stays is never returned.
        """
        self._seen = self._stamp_or_none()
        failure: OSError | None = None
        for path in (self._request, self._report):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    def request_or_none(self) -> DrainRequest | None:
        """Return a request that was not returned before.

        Raises:
            CallerError: it cannot be read; it is not looked at again until it changes.
        """
        seen = self._stamp_or_none()
        if seen is None or seen == self._seen:
            return None
        self._seen = seen
        return load_service_file(self._request, DrainRequest)

    def write(self, report: DrainReport, number: int) -> None:
        """Replace the report, unless one with a larger number was written.

        A thread whose caller was cancelled goes on, and may be overtaken by the next one.

        Raises:
            InfrastructureError: it cannot be written.
        """
        with self._writing:
            if number > self._number:
                write_private_file(self._report, json.dumps(asdict(report)).encode())
                self._number = number

    def _stamp_or_none(self) -> tuple[int, int] | None:
        """Return what tells one request file from another; None without a file."""
        try:
            found = self._request.stat()
        except OSError:
            return None
        return found.st_ino, found.st_ctime_ns


def become_owner(state: Path) -> None:
    """Give up root's rights for those of the directory's owner, for the rest of this process.

    Root must not write there: the owner could replace what root has written with a link.

    Raises:
        CallerError: there is no such directory, it is a link, or the rights cannot be changed.
    """
    if sys.platform == "win32" or os.geteuid() != 0:
        if not state.is_dir():
            raise CallerError(f"{state} is not a directory that this user can read", reason="drain")
        return
    try:
        # A worker's user that makes a link to a directory of root would let root keep its rights.
        directory = open_file(state, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        why = error.strerror
        if state.is_symlink():
            why = "it is a symbolic link: name the directory itself as `state`"
        raise CallerError(f"cannot open the directory {state}: {why}", reason="drain") from error
    try:
        owner = os.fstat(directory)
    finally:
        os.close(directory)
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
    try:
        return load_service_file(state / REPORT_NAME, DrainReport)
    except CallerError as error:
        # Asking first whether it exists would race with the worker that removes it.
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
