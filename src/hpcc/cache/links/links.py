"""Runs links with a list of their inputs, and records them after they ended.

The launcher waits for three things only: the decision, the reading of the list, and one look at
each file in it. What the files hold is read later, on the thread that writes the records. A file
that another look then shows to be another one has no digest.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from hpcc.cache.base.api import CompileRequest, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo, signature_of
from hpcc.cache.base.outputs import is_special
from hpcc.cache.base.path_stability import Place, check_places, note_places
from hpcc.cache.base.stamps import CompileStart, StampClock, take_start
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.host.identity import Compilers
from hpcc.cache.key.environment import refusal_of
from hpcc.cache.key.responses import response_reader
from hpcc.cache.links.command import LinkCommand, is_driver, read_link
from hpcc.cache.links.depfile import MAX_LIST_BYTES, MAX_LISTED, listed_names, unescaped
from hpcc.cache.links.linker import LinkerKey, Linkers
from hpcc.cache.recorder.link_record import (
    LinkFile,
    LinkRecord,
    NoDigest,
    digest_of_command,
    digest_of_inputs,
)
from hpcc.cache.recorder.places import LINK_LIMITS, LINKS_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.cache.results.scratch import DiskSpace, ScratchPaths
from hpcc.compilers.families import family_of
from hpcc.compilers.spec.drivers import is_of_nvcc
from hpcc.compilers.spec.response import expand_responses
from hpcc.compilers.spec.table import Bypass
from hpcc.config.paths import Paths

# Links between two flushes, and the files of all of them. Of more the oldest are not recorded.
_MAX_PENDING: Final = 256
_MAX_PENDING_FILES: Final = 2 * MAX_LISTED
# What one flush reads at most, since a stop of the daemon waits for it: some five seconds.
_MAX_READ_BYTES: Final = 4 << 30
# Variables that make a linker run other code; a library path is an ordinary one.
_log: Final = logging.getLogger("hpcc.daemon.links")
_LOADER: Final = frozenset((b"LD_PRELOAD", b"LD_AUDIT", b"LD_DEBUG", b"LD_SHOW_AUXV"))


class LinkPending(NamedTuple):
    """A link under way: the token of its `Run`."""

    request: CompileRequest
    command: LinkCommand
    tools: bytes
    linker: LinkerKey
    depfile: bytes
    start: CompileStart
    places: Mapping[bytes, Place]
    began_at: float
    began_ns: int


class _Seen(NamedTuple):
    """A file as it was when the link had ended; `status` is None without such a file."""

    path: bytes
    status: os.stat_result | None
    is_changed: bool


class _Ended(NamedTuple):
    pending: LinkPending
    took_ns: int
    output: _Seen
    inputs: list[_Seen]


class Links:
    """Records links. Thread-safe. No failure of it costs a link."""

    def __init__(
        self,
        memo: FileMemo,
        compilers: Compilers,
        recorder: Recorder,
        counters: Counters,
        clock: StampClock,
        now: Callable[[], float],
        run_directory: str,
    ) -> None:
        self._memo, self._compilers, self._recorder = memo, compilers, recorder
        self._counters, self._clock, self._now = counters, clock, now
        self._scratch = ScratchPaths(os.fsencode(os.path.join(run_directory, "links")))
        self._linkers = Linkers()
        self._ended: deque[_Ended] = deque(maxlen=_MAX_PENDING)
        self._ended_lock = threading.Lock()
        self._flush_lock = threading.Lock()

    def begin(self, request: CompileRequest, is_cancelled: Callable[[], bool]) -> Run | None:
        """Return the link with a list of its inputs; None if it has to run as it is."""
        command = _command_of(request)
        if command is None:
            return None
        question = family_of(request.compiler, request.argv[1:]).probe_question
        identity = self._compilers.identify(
            request.compiler, request.env, is_cancelled, request.cwd, question
        )
        if isinstance(identity, Bypass):
            return None
        linker = self._linkers.key(request, identity.digest, command)
        if not self._linkers.lists_inputs(linker, request, command, is_cancelled):
            return None
        if self._scratch.room() is not DiskSpace.ENOUGH:
            return None
        # Linkers write beside their inputs, and the way to these is still the same.
        places = note_places(request.cwd, (), (command.output, *command.objects))
        start = take_start(self._clock, (request.cwd, b"/"))
        depfile = self._scratch.take()
        pending = LinkPending(
            request, command, identity.digest, linker, depfile, start, places, self._now(),
            time.monotonic_ns(),
        )  # fmt: skip
        # Not `-Wl,`, which a comma in the path would end. In front, since the user's last word for
        # the linker may lack its value: it takes the next word.
        word = b"--dependency-file=" + depfile
        argv = (request.compiler, b"-Xlinker", word, *request.argv[1:])
        return Run(argv, pending, is_tentative=True)

    def ended(self, pending: LinkPending, report: RunReport | None) -> None:
        """Note the end of a link; without a report its launcher is gone. Raises nothing."""
        try:
            if report is None:
                self.abandon(pending)
            else:
                self.finish(pending, report)
        except Exception:  # noqa: BLE001 - the link has ended; only its record is lost
            _log.exception("a link is not recorded")

    def finish(self, pending: LinkPending, report: RunReport) -> None:
        """Look at the files of a link that has ended; `flush` records it."""
        took_ns = time.monotonic_ns() - pending.began_ns
        try:
            if report.exit_code or report.signal:
                self._linkers.forget(pending.linker)
                return
            names = listed_names(_content(pending.depfile))
        finally:
            self._scratch.give_back(pending.depfile, is_written=True)
        if names is None or pending.start.clock_was_set():
            return
        cwd, start = pending.request.cwd, pending.start
        output = _look(cwd, pending.command.output, None)
        if output.status is not None and not start.may_have_changed(output.status):
            return  # a script named another file
        inputs = _led_as_before([_look(cwd, name, start) for name in names], pending)
        with self._ended_lock:
            self._ended.append(_Ended(pending, took_ns, output, inputs))
            while sum(len(ended.inputs) for ended in self._ended) > _MAX_PENDING_FILES:
                self._ended.popleft()

    def abandon(self, pending: LinkPending) -> None:
        """Forget a link whose launcher is gone."""
        self._scratch.give_back(pending.depfile, is_written=False)

    def flush(self) -> None:
        """Read the files of the links that ended, and write their records."""
        with self._flush_lock:
            with self._ended_lock:
                all_ended = list(self._ended)
                self._ended.clear()
            room = _MAX_READ_BYTES
            for ended in all_ended:
                record, read_bytes = self._record(ended, room)
                self._recorder.add_link(ended.pending.request.build, record)
                room -= read_bytes
            if all_ended:
                self._recorder.flush()
                self._counters.add("links.recorded", len(all_ended))

    def _record(self, ended: _Ended, room: int) -> tuple[LinkRecord, int]:
        """Return a link's record, and how many bytes were read for it, at most `room`."""
        pending, total = ended.pending, 0
        files = []
        for seen in (ended.output, *ended.inputs):  # the output first: no room may be left later
            file, read_bytes = self._file(seen, room - total)
            files.append(file)
            total += read_bytes
        output, *inputs = files
        status = ended.output.status
        record = LinkRecord(
            began_us=int(pending.began_at * 1e6),
            took_us=ended.took_ns // 1000,
            output=output,
            size_bytes=0 if status is None else status.st_size,
            cwd=os.fsdecode(pending.request.cwd),
            compiler=os.fsdecode(pending.request.compiler),
            tools=pending.tools.hex(),
            command=tuple(map(os.fsdecode, pending.request.argv)),
            command_digest=digest_of_command(pending.request.argv),
            inputs=tuple(inputs),
            inputs_digest=digest_of_inputs(inputs),
        )
        return record, total

    def _file(self, seen: _Seen, room: int) -> tuple[LinkFile, int]:
        """Return a file with its digest, and how many bytes were read for that."""
        path, status, is_changed = seen
        name = os.fsdecode(path)
        if status is None:
            return LinkFile(name, NoDigest.GONE), 0
        if is_changed or not _is_as_it_was(path, status):
            return LinkFile(name, NoDigest.CHANGED), 0
        known = self._memo.digest_known(path)
        size = 0 if known is not None and known[0] == signature_of(status) else status.st_size
        if size > room:
            return LinkFile(name, NoDigest.TOO_MUCH), 0
        digest = self._memo.digest_at(path, status)
        if digest is None:
            return LinkFile(name, NoDigest.UNREADABLE), size
        if not _is_as_it_was(path, status):
            return LinkFile(name, NoDigest.CHANGED), size
        return LinkFile(name, digest.hex()), size


def open_links(
    paths: Paths,
    memo: FileMemo,
    compilers: Compilers,
    counters: Counters,
    clock: StampClock,
    now: Callable[[], float],
) -> Links:
    """Build `Links` that are flushed together with the counters."""
    recorder = Recorder(os.path.join(paths.cache, LINKS_NAME), now, LINK_LIMITS)
    links = Links(memo, compilers, recorder, counters, clock, now, os.fspath(paths.run))
    counters.on_flush(links.flush)
    return links


def _command_of(request: CompileRequest) -> LinkCommand | None:
    """Return the link that a request asks for; None if it has to run as it is."""
    # A linker writes colours to a terminal only, and here it would write to a pipe.
    if request.stderr_is_tty or not _LOADER.isdisjoint(request.env):
        return None
    if not is_driver(request.compiler):
        return None
    arguments = expand_responses(request.argv[1:], response_reader(request.cwd, []))
    # Some variables let the driver edit the command or print it.
    env = {name: value for name, value in request.env.items() if not is_of_nvcc(name)}
    if isinstance(arguments, Bypass) or refusal_of(env, arguments):
        return None
    command = read_link(arguments)
    if command is None or is_special(absolute(request.cwd, command.output)):
        return None
    # A pipe can be read once, and a failed link runs again.
    has_pipe = any(_is_pipe(absolute(request.cwd, name)) for name in command.named)
    return None if has_pipe else command


def _look(cwd: bytes, name: bytes, start: CompileStart | None) -> _Seen:
    """Look at a file that the linker named; `start` is that of the link, None for its output."""
    path = absolute(cwd, name)
    status = _status(path)
    other = unescaped(name)
    if other != name:
        meant = absolute(cwd, other)
        found = _status(meant)
        if found is not None and status is not None:
            return _Seen(path, status, is_changed=True)  # either may be meant
        path, status = (path, status) if found is None else (meant, found)
    is_changed = status is not None and start is not None and start.may_have_changed(status)
    return _Seen(path, status, is_changed)


def _led_as_before(inputs: list[_Seen], pending: LinkPending) -> list[_Seen]:
    """Mark those to which another way may have led since the link began."""
    if _is_led((seen.path for seen in inputs if seen.status is not None), pending):
        return inputs
    return [
        seen._replace(is_changed=seen.is_changed or not _is_led((seen.path,), pending))
        for seen in inputs
    ]


def _is_led(paths: Iterable[bytes], pending: LinkPending) -> bool:
    try:
        check_places(paths, pending.places, pending.start)
    except UncacheableError:
        return False
    return True


def _status(path: bytes) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (OSError, ValueError):
        return None


def _is_pipe(path: bytes) -> bool:
    status = _status(path)
    return status is not None and stat.S_ISFIFO(status.st_mode)


def _is_as_it_was(path: bytes, status: os.stat_result) -> bool:
    now = _status(path)
    return now is not None and signature_of(now) == signature_of(status)


def _content(path: bytes) -> bytes:
    """Return the list; empty if there is none. One that is too long is refused by its reader."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with open(fd, "rb") as file:
        return file.read(MAX_LIST_BYTES + 1)
