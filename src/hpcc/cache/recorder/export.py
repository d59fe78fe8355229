"""Sends recorded builds to a collector in the background, when `[trace]` of hpcc.toml names one.

The recorder's files are the queue: what a collector does not take stays in them until it does, or
until newer builds displace it. A thread looks there every few seconds; no compile waits for it or
tells it anything. How far each build was sent is in a small file, so that a new daemon goes on
where the old one ended.

A build is sent when its files were not written for half a minute, and one that does not end every
few minutes. What was recorded before the setting was made is not sent.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from hpcc.cache.recorder.places import DIRECTORY_NAME, MAX_BUILDS, find_parts
from hpcc.cache.recorder.reading import read_build
from hpcc.cache.recorder.spans import TracedBuild, requests_of
from hpcc.config.settings import TraceSettings
from hpcc.core import CallerError, NotFoundError
from hpcc.files.whole import Sync, write_whole
from hpcc.obs.otlp.sender import TRACES, CollectorAnswer, OtlpSender, PostEnding
from hpcc.obs.otlp.target import OtlpTarget

_log: Final = logging.getLogger("hpcc.daemon.trace")
STATE_NAME: Final = "trace-export.json"
SENT: Final = "traces.sent"
DROPPED: Final = "traces.dropped"
_MAX_STATE_BYTES: Final = 64 << 10
_MAX_MARKS: Final = 2 * MAX_BUILDS
_LOOK_SECONDS: Final = 15.0
_MAX_RETRY_SECONDS: Final = 300.0
_QUIET_US: Final = 30_000_000
_LONG_US: Final = 300_000_000
# A compile is in the files a few seconds after its end.
_WRITTEN_US: Final = 10_000_000
_US: Final = 1_000_000


class _Files(NamedTuple):
    """The files of one build: when the first was begun, and when one was written last."""

    begun_us: int
    written_us: int


def _files_by_build(directory: str) -> dict[str, _Files]:
    """Return the files by the hash of their build. No file is read for that."""
    found: dict[str, _Files] = {}
    for part in find_parts(directory):
        try:
            written_us = Path(directory, part.name).stat().st_mtime_ns // 1000
        except OSError:
            continue  # removed meanwhile to make room
        known = found.get(part.build, _Files(part.began_ms * 1000, 0))
        found[part.build] = known._replace(written_us=max(written_us, known.written_us))
    return found


class TraceExport:
    """What a thread does: `turn` sends what is due. One thread at a time uses it."""

    def __init__(
        self,
        cache_directory: str,
        post: Callable[[bytes], CollectorAnswer],
        place: str,
        count: Callable[[str, int], None],
        *,
        names: bool,
        now: Callable[[], float] = time.time,  # noqa: TID251 - no event loop runs here
    ) -> None:
        self._directory, self._post, self._place, self._count = cache_directory, post, place, count
        self._names, self._now = names, now
        self._state = Path(cache_directory, STATE_NAME)
        # What is sent begins here, and by build after the end of its last compile that was sent.
        self._since_us, self._sent_us = _read_state(self._state)
        self._is_troubled = False
        now_us = int(now() * _US)
        if not 0 < self._since_us <= now_us:
            self._since_us = now_us
            self._write_state()

    def turn(self) -> bool:
        """Send what is due; False if the collector takes nothing now."""
        now_us = int(self._now() * _US)
        # A daemon that is about to end may have sent some.
        for build, sent_us in _read_state(self._state)[1].items():
            self._sent_us[build] = max(sent_us, self._sent_us.get(build, 0))
        files = _files_by_build(str(Path(self._directory, DIRECTORY_NAME)))
        for build, found in files.items():
            if self._is_due(build, found, now_us) and not self._send(build, found, now_us):
                return False
        if self._sent_us.keys() - files.keys():
            self._sent_us = {b: at for b, at in self._sent_us.items() if b in files}
            self._write_state()
        return True

    def _after_us(self, build: str, now_us: int) -> int:
        """Return the time up to which a build was sent."""
        sent_us = self._sent_us.get(build, 0)
        # A mark in the future is of a clock that has been set back.
        return sent_us if 0 < sent_us <= now_us else self._since_us

    def _is_due(self, build: str, files: _Files, now_us: int) -> bool:
        after_us = self._after_us(build, now_us)
        if files.written_us <= after_us:
            return False
        is_quiet = now_us - files.written_us >= _QUIET_US
        return is_quiet or now_us - max(after_us, files.begun_us) >= _LONG_US

    def _send(self, build: str, files: _Files, now_us: int) -> bool:
        """Send a build's compiles that were not sent yet; False if a later try may succeed."""
        until_us = now_us - _WRITTEN_US
        after_us = self._after_us(build, now_us)
        try:
            recorded = read_build(self._directory, build)
        except NotFoundError:
            return True
        compiles = [c for c in recorded.compiles if after_us < c.ended_us <= until_us]
        traced = TracedBuild(recorded.build, recorded.compiles[0].began_us)
        for request in requests_of(traced, compiles, names=self._names) if compiles else ():
            answer = self._post(request.body)
            self._tell(answer)
            if answer.ending is PostEnding.LATER:
                return False
            lost = request.spans if answer.ending is PostEnding.REFUSED else answer.rejected
            lost = min(lost, request.spans)
            for counter, amount in ((SENT, request.spans - lost), (DROPPED, lost)):
                if amount:
                    self._count(counter, amount)
        # Everything in files that were written before ended before.
        self._sent_us[build] = min(files.written_us, until_us)
        self._write_state()
        return True

    def _tell(self, answer: CollectorAnswer) -> None:
        what = answer.what or (f"it rejected {answer.rejected} spans" if answer.rejected else "")
        if what and not self._is_troubled:
            _log.warning("OTLP at %s takes no builds: %s", self._place, what)
        elif not what and self._is_troubled:
            _log.warning("OTLP at %s takes builds again", self._place)
        self._is_troubled = bool(what)

    def _write_state(self) -> None:
        marks = dict(sorted(self._sent_us.items(), key=lambda mark: mark[1])[-_MAX_MARKS:])
        text = json.dumps({"format": 1, "since": self._since_us, "sent": marks})
        try:
            write_whole(self._state, text.encode(), sync=Sync.NONE, makes_parent=True)
        except OSError as error:
            _log.warning("how far builds were sent is not kept: %s", error.strerror)


def _read_state(path: Path) -> tuple[int, dict[str, int]]:
    """Return since when, and how far by build; 0 and nothing if there is no such file."""
    try:
        with path.open("rb") as file:
            table = json.loads(file.read(_MAX_STATE_BYTES))
    except (OSError, ValueError, RecursionError):
        return 0, {}
    match table:
        case {"format": 1, "since": int(since), "sent": dict(sent)} if since >= 0:
            marks = [(k, v) for k, v in sent.items() if isinstance(k, str) and type(v) is int]
            return since, dict(marks[:_MAX_MARKS])
        case _:
            return 0, {}


def sender_of(trace: TraceSettings) -> OtlpSender:
    """Return what sends to the collector of the settings. It reads the files that they name.

    Raises:
        CallerError: no collector is set, or a file cannot be used.
    """
    files = {"headers_file": trace.otlp_headers_file, "ca_file": trace.otlp_ca_file}
    target = OtlpTarget.of(trace.otlp, **files)
    if target is None:
        raise CallerError(
            "no collector is named: set `otlp` in [trace] of hpcc.toml, or write --otlp URL",
            reason="config",
        )
    return OtlpSender.of(target)


def start_trace_export(
    cache_directory: str, trace: TraceSettings, count: Callable[[str, int], None]
) -> None:
    """Send builds from now on, in a thread that ends with the process."""
    try:
        sender = sender_of(trace)
    except CallerError as error:
        _log.warning("no build is sent to OTLP: %s", error)
        return

    def run() -> None:
        export = TraceExport(
            cache_directory, lambda body: sender.post(TRACES, body), sender.place, count,
            names=trace.names,
        )  # fmt: skip
        pause, delay = threading.Event(), _LOOK_SECONDS
        while not pause.wait(delay):
            delay = _LOOK_SECONDS if export.turn() else min(2 * delay, _MAX_RETRY_SECONDS)

    def guarded() -> None:
        try:
            run()
        except Exception:  # noqa: BLE001 - the root of a thread
            _log.exception("the export of builds over OTLP has failed")

    threading.Thread(target=guarded, name="hpcc-trace", daemon=True).start()
