"""Tells the farm of recorded builds, in the background.

The recorder's files are what is read, as for OTLP (`export`): no compile waits for this thread or
tells it anything. A build is reported while it runs and when it has been quiet for a moment, each
time as a whole, so that a lost report costs nothing but time. A report goes through the dispatcher
that the build's compiles started, and starts no dispatcher: a build that never asked the farm is
not the farm's.

A farm gets no build that began before the login to it: the compiles may be another tenant's.

What a report costs is bounded: after one that took long to make, the next one waits for nine times
as long.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpcc.cache.base.api import TakesBuilds
from hpcc.cache.git.ancestors import head_of
from hpcc.cache.git.reading import GitError
from hpcc.cache.recorder.compiles import CompileKind
from hpcc.cache.recorder.places import PartFile
from hpcc.cache.recorder.reading import RecordedBuild, files_of, read_build
from hpcc.cache.recorder.summary import summary_of_build
from hpcc.core import CallerError, NotFoundError
from hpcc.core.build_summary import NO_DISPATCHER, NO_REPORTS, BuildSummary
from hpcc.files.whole import Sync, write_whole

_log: Final = logging.getLogger("hpcc.daemon.builds")
STATE_NAME: Final = "build-reports.json"
REPORTED: Final = "builds.reported"
FAILED: Final = "builds.report-failed"
_LOOK_SECONDS: Final = 5.0
# A build that goes on is reported so often; a quiet one at the next look.
_LONG_SECONDS: Final = 20.0
# Some thousand compiles. To read more takes a part of a second from the threads that answer hits,
# so such a build is reported less often while it goes on.
_LARGE_BYTES: Final = 1 << 20
_LARGE_SECONDS: Final = 300.0
_PAUSES: Final = 9
_MAX_RETRY_SECONDS: Final = 300.0
# After a refusal: this scheduler knows no such call, or keeps no builds.
_OFF_SECONDS: Final = 3600.0
_OFF: Final = frozenset({"builds-off", "bad-request", NO_REPORTS})
# This build is not taken, as by a scheduler of an older version with other bounds.
_NOT_THIS: Final = frozenset({"build", "frame"})
_NO_FAULT: Final = frozenset({NO_DISPATCHER, NO_REPORTS})
_FARM: Final = frozenset({CompileKind.FARM, CompileKind.FARM_CACHE, CompileKind.REFUSED})
# What the end of a daemon waits for the last report.
_LAST_SECONDS: Final = 2.0
# In one look; the others have the next.
_MAX_AT_ONCE: Final = 4
_MAX_STATE_BYTES: Final = 4 << 10
_SOURCE: Final = re.compile(r"[0-9a-f]{16}")

Send = Callable[[BuildSummary], str]
"""Sends a summary; returns why it was not taken, "" if it was."""


class BuildReports:
    """What the thread does: `turn` sends what is due. One thread at a time uses it."""

    def __init__(
        self,
        cache_directory: str,
        send: Send,
        count: Callable[[str, int], None],
        *,
        login: Callable[[], object] = lambda: "",
        monotonic: Callable[[], float] = time.monotonic,  # noqa: TID251 - no event loop runs here
    ) -> None:
        """`login` returns what names farm and person of now, None if nobody is logged in."""
        self._directory, self._send, self._count = cache_directory, send, count
        self._login_of, self._login, self._monotonic = login, login(), monotonic
        # Builds that were recorded when the login became another one.
        self._others: frozenset[str] = frozenset()
        self._source = _source(Path(cache_directory, STATE_NAME))
        # By build: the files that it had when it was reported, or when this began, and when.
        self._told = {build: (files, 0.0) for build, files in self._files().items()}
        # By build: the files that it had at the last look.
        self._seen: dict[str, tuple[PartFile, ...]] = {}
        # Builds of which a part was removed to make room: what is left is not all.
        self._partial = set[str]()
        self._not_before, self._retry_seconds = 0.0, _LOOK_SECONDS
        self._is_troubled = False

    def note_login(self) -> bool:
        """Note who is logged in now; return whether that is nobody, or another than before."""
        login = self._login_of()
        if login is None or login == self._login:
            return login is None
        is_other, self._login = self._login is not None, login
        if is_other:
            self._others = frozenset(self._files())
            # What one farm refused says nothing of another.
            self._not_before, self._retry_seconds = 0.0, _LOOK_SECONDS
        return is_other

    def turn(self, *, is_last: bool = False) -> None:
        """Report the builds that have got compiles since they were reported last.

        `is_last`: nothing follows, so one that may go on is reported, too.
        """
        if self.note_login():
            return
        now = self._monotonic()
        if now < self._not_before and not is_last:
            return
        found = self._files()
        due = [
            build
            for build, files in found.items()
            if build not in self._others
            and self._is_due(build, files, float("inf") if is_last else now)
        ]
        self._partial &= found.keys()
        self._partial |= {build for build, files in found.items() if self._has_lost(build, files)}
        self._seen = found
        self._told = {build: told for build, told in self._told.items() if build in found}
        for build in due[:_MAX_AT_ONCE]:
            if not self._report(build, found[build]):
                return

    def _files(self) -> dict[str, tuple[PartFile, ...]]:
        found: dict[str, tuple[PartFile, ...]] = {}
        for file in files_of(self._directory):
            found[file.build] = (*found.get(file.build, ()), file)
        return found

    def _has_lost(self, build: str, files: tuple[PartFile, ...]) -> bool:
        return not {f.name for f in self._seen.get(build, ())} <= {f.name for f in files}

    def _is_due(self, build: str, files: tuple[PartFile, ...], now: float) -> bool:
        told, at = self._told.get(build, ((), float("-inf")))
        if files == told:
            return False
        is_large = sum(file.size_bytes for file in files) > _LARGE_BYTES
        pause = _LARGE_SECONDS if is_large else _LONG_SECONDS
        return self._seen.get(build) == files or now - at >= pause

    def _report(self, build: str, files: tuple[PartFile, ...]) -> bool:
        """Report one build; False if no other one can be reported now."""
        began = self._monotonic()
        summary = self._summary(build)
        ended = self._monotonic()
        took = ended - began
        # Each build of one look adds its rest to that of those before it.
        self._not_before = max(self._not_before + took, ended) + _PAUSES * took
        if summary is None:
            # Until it has other files: otherwise files that cannot be read are read at each look,
            # in the place of other builds.
            self._told[build] = (files, began)
            return True
        if self.note_login():
            return False
        refusal = self._send(summary)
        if refusal == NO_DISPATCHER:
            return False
        self._tell("" if refusal in _NO_FAULT else refusal)
        if refusal:
            if refusal not in _NO_FAULT:
                self._count(FAILED, 1)
            if refusal in _NOT_THIS:
                # Sent again it would be refused again, and hold up all others.
                self._told[build] = (files, ended)
                return True
            pause = _OFF_SECONDS if refusal in _OFF else self._retry_seconds
            self._retry_seconds = min(2 * self._retry_seconds, _MAX_RETRY_SECONDS)
            self._not_before = max(self._not_before, self._monotonic() + pause)
            return False
        self._told[build] = (files, ended)
        self._retry_seconds = _LOOK_SECONDS
        self._count(REPORTED, 1)
        return True

    def _summary(self, build: str) -> BuildSummary | None:
        """Return what to send of a build; None if that is nothing."""
        try:
            recorded = read_build(self._directory, build)
            if not _asks_farm(recorded):
                return None
            summary = summary_of_build(recorded, self._source, _commit_of(recorded))
            is_damaged = summary.is_damaged or build in self._partial
            return dataclasses.replace(summary, is_damaged=is_damaged)
        except NotFoundError:
            return None  # removed meanwhile to make room, or not readable
        except (CallerError, OSError) as error:
            _log.warning("a build cannot be reported: %s", error)
            self._count(FAILED, 1)
            return None

    def _tell(self, refusal: str) -> None:
        if refusal and not self._is_troubled:
            _log.warning("the farm takes no reports of builds: %s", refusal)
        elif not refusal and self._is_troubled:
            _log.warning("the farm takes reports of builds again")
        self._is_troubled = bool(refusal)


def _asks_farm(recorded: RecordedBuild) -> bool:
    """Return whether a compile of a build went to the farm, or should have."""
    return any(c.kind in _FARM or c.fallback_word for c in recorded.compiles)


def _commit_of(recorded: RecordedBuild) -> str:
    """Return what the repository of the last compile has checked out now; "" if unknown."""
    # A link, which often comes last, has no source.
    sources = (c.source for c in reversed(recorded.compiles) if c.source.startswith("/"))
    source = next(sources, "")
    if not source:
        return ""
    # Unlike `Path.expanduser` this raises nothing where nobody has a home.
    home = os.fsencode(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - see above
    with contextlib.suppress(GitError, OSError, ValueError):
        return head_of(os.fsencode(Path(source).parent), home)
    return ""


def _source(path: Path) -> str:
    """Return the name of this cache directory's recorder: of what is random, and made once.

    The file itself is a part of it: CI jobs that got copies of one cache directory are several
    recorders, and with one name their reports would replace each other.
    """
    try:
        return _kept_source(path)
    except (OSError, ValueError, RecursionError):
        pass
    source = secrets.token_hex(8)
    try:
        text = json.dumps({"format": 1, "source": source})
        write_whole(path, text.encode(), sync=Sync.NONE, makes_parent=True)
        return _kept_source(path)
    except (OSError, ValueError) as error:
        _log.warning("the name of this recorder is not kept: %s", error)
    return source


def _kept_source(path: Path) -> str:
    """Return the name that a file gives; raises ValueError if it gives none."""
    with path.open("rb") as file:
        table = json.loads(file.read(_MAX_STATE_BYTES))
        status = os.fstat(file.fileno())
    match table:
        case {"format": 1, "source": str(source)} if _SOURCE.fullmatch(source):
            said = f"{source} {status.st_ino} {status.st_ctime_ns}"
            return hashlib.sha256(said.encode()).hexdigest()[: len(source)]
        case _:
            raise ValueError("not the name of a recorder")


def start_build_reports(
    cache_directory: str, farm: TakesBuilds, count: Callable[[str, int], None]
) -> None:
    """Report builds from now on, in a thread that ends with the process.

    Before the farm's client closes, what is left is reported. That takes a moment at most: a CI job
    that stops its daemon is shown whole, and one whose machine goes away lacks its last seconds.
    """
    pause = threading.Event()

    def login() -> object:
        now = farm.farm()
        return None if now is None else (now.scheduler, now.tenant, now.principal, now.engine)

    def run() -> None:
        try:
            reports = BuildReports(cache_directory, farm.report, count, login=login)
            while not pause.wait(_LOOK_SECONDS):
                reports.note_login()
                if farm.can_report():
                    reports.turn()
            if farm.can_report():
                reports.turn(is_last=True)
        except Exception:  # noqa: BLE001 - the root of a thread
            _log.exception("the reports of builds have failed")

    thread = threading.Thread(target=run, name="hpcc-builds", daemon=True)

    def end() -> None:
        pause.set()
        thread.join(_LAST_SECONDS)

    farm.before_close(end)
    thread.start()
