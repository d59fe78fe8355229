"""Further processes that answer hits on the daemon's socket, because one Python uses one core.

A helper is forked before the daemon has any thread, and serves only replays. A request without a
replay, or whose replay does not hold any more, goes to the daemon together with its connection.
The daemon answers it and sends the helper the replay for the next time. Helpers report which
replays they served. A helper ends when its daemon is gone.

Each helper has one SOCK_SEQPACKET pair, so that a message arrives whole or not at all. To the
daemon: `ASK` + frame, with the connection; `HITS` + length of build facts, the facts, and for each
hit its number, when it ended and how many seconds it took. To the helper: `LEARN` + number, the
time to renew in milliseconds (0 for never), the request's key, with a memory file that holds the
length of its outputs' paths, the paths with a NUL behind each, and the plan.

What the outputs of hits are decides whether a compile at the same time is stored: `Marks`.

Helpers decide no build: they report the facts of each hit, and the daemon decides.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import mmap
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Final, NoReturn

from hpcc.cache.replay.engine import REQUEST_BUFFER_BYTES, Engine
from hpcc.cache.replay.replay import MAX_REPLAYS, OnHit, Replay, Replays
from hpcc.cache.replay.writing import Marks
from hpcc.wire import launcher as wire
from hpcc.wire.build_facts import MAX_FACTS_BYTES

_log: Final = logging.getLogger("hpcc.daemon.helpers")
_ASK: Final = b"A"
_HITS: Final = b"H"
_LEARN: Final = b"L"
_LEARNED: Final = struct.Struct("<QQ")
_HIT: Final = struct.Struct("<Qdd")
_FACTS_BYTES: Final = struct.Struct("<I")
_PATHS_BYTES: Final = struct.Struct("<I")
_MAX_MESSAGE: Final = REQUEST_BUFFER_BYTES + MAX_FACTS_BYTES + 64
_HITS_PER_MESSAGE: Final = 2048
_FLUSH_SECONDS: Final = 0.2
_STOP_SECONDS: Final = 5.0

Serve = Callable[
    [socket.socket, Replays, Callable[[socket.socket, bytes], None]], Callable[[], None]
]
"""Starts to answer replays on a listener and gives other connections away; returns its stop."""
Adopt = Callable[[socket.socket, bytes, Callable[[Replay | None], None]], None]
"""Answers a connection that a helper gave away, then passes on the replay, if there is one."""


def _ignore() -> None:
    return


class Helpers:
    """The daemon's side of its helpers, by pid. Thread-safe."""

    def __init__(self, pairs: dict[int, socket.socket], marks: Marks | None = None) -> None:
        """`marks` is shared with the helpers; without helpers there is no need for one."""
        self._pairs, self.marks = pairs, marks
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._on_hit: dict[int, OnHit] = {}  # oldest first
        self._threads: list[threading.Thread] = []
        self._on_replayed: Callable[[], None] = _ignore

    @property
    def pids(self) -> list[int]:
        """Return the pids of the helpers, those that ended too."""
        return sorted(self._pairs)

    def start(self, adopt: Adopt, on_replayed: Callable[[], None]) -> None:
        """Listen to the helpers; `on_replayed` is called for each request they answered."""
        self._on_replayed = on_replayed
        for pid, pair in self._pairs.items():
            thread = threading.Thread(
                target=self._listen, args=(pid, pair, adopt), name=f"hpcc-helper-{pid}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def close(self) -> None:
        """Let the helpers finish what is under way, receive their last counts, and end them."""
        for pair in self._pairs.values():
            with contextlib.suppress(OSError):
                pair.shutdown(socket.SHUT_WR)
        for thread in self._threads:
            thread.join(_STOP_SECONDS)
        for pid, pair in self._pairs.items():
            pair.close()
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)  # no effect on one that ended
                os.waitpid(pid, 0)

    def _listen(self, pid: int, pair: socket.socket, adopt: Adopt) -> None:
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(pair, _MAX_MESSAGE, 1)
            except OSError:
                data, descriptors = b"", []
            if not data:
                _log.info("helper %d has ended", pid)
                return
            frame = data[1:]
            if data[:1] == _HITS:
                self._count(frame)
            elif data[:1] == _ASK and descriptors:
                connection = socket.socket(
                    socket.AF_UNIX, socket.SOCK_STREAM, fileno=descriptors[0]
                )
                adopt(connection, frame, lambda replay, f=frame: self._teach(pair, f, replay))  # type: ignore[misc]  # the default binds this turn's frame

    def _count(self, hits: bytes) -> None:
        (length,) = _FACTS_BYTES.unpack_from(hits)
        start = _FACTS_BYTES.size + length
        facts = hits[_FACTS_BYTES.size : start]
        for number, at, seconds in _HIT.iter_unpack(hits[start:]):
            self._on_replayed()
            on_hit = self._on_hit.get(number)
            if on_hit is not None:
                on_hit(facts, at, seconds)

    def _teach(self, pair: socket.socket, frame: bytes, replay: Replay | None) -> None:
        """Send a replay to one helper. If that fails, the helper asks again at the next request."""
        if replay is None or replay.is_answered_apart or type(replay.prepared) is not bytes:
            return
        number = next(self._numbers)
        with self._lock:
            self._on_hit[number] = replay.on_hit
            if len(self._on_hit) > MAX_REPLAYS * len(self._pairs):
                del self._on_hit[next(iter(self._on_hit))]
        memory = os.memfd_create("hpcc-replay", os.MFD_CLOEXEC)
        try:
            with open(memory, "wb", closefd=False) as file:
                paths = b"".join(path + b"\0" for path in replay.outputs)
                file.write(_PATHS_BYTES.pack(len(paths)) + paths + replay.prepared)
            renew_ms = 0 if replay.renew_at == math.inf else int(replay.renew_at * 1000)
            key, _ = wire.split_request(frame)
            message = _LEARN + _LEARNED.pack(number, renew_ms) + key
            socket.send_fds(pair, [message], [memory], socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            _log.info("a helper process rejected a replay: %s", error)
        finally:
            os.close(memory)


def fork_helpers(
    count: int, listener: socket.socket, engine: Engine, serve: Serve, close: Callable[[], None]
) -> Helpers:
    """Fork `count` helpers. The caller must not have started a thread yet.

    `close` runs in the child and closes what only the daemon may hold.
    """
    pairs: dict[int, socket.socket] = {}
    marks = Marks()
    for _ in range(count):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if not pid:
            ours.close()
            for other in pairs.values():
                other.close()
            close()
            _run(theirs, listener, Replays(engine, time.monotonic, marks), serve)
        theirs.close()
        pairs[pid] = ours
    return Helpers(pairs, marks)


def _run(pair: socket.socket, listener: socket.socket, replays: Replays, serve: Serve) -> NoReturn:
    """Run as a helper process; never returns."""
    status = 1
    try:
        # On a terminal's Ctrl-C the daemon ends, and a helper ends with its daemon.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        _Helper(pair, listener, replays, serve).run()
        status = 0
    except BaseException:  # noqa: BLE001 - no code of the daemon may continue in this process
        _log.exception("a helper failed")
    finally:
        os._exit(status)


class _Helper:
    def __init__(
        self, pair: socket.socket, listener: socket.socket, replays: Replays, serve: Serve
    ) -> None:
        self._pair, self._replays = pair, replays
        self._lock = threading.Lock()
        self._hits: dict[bytes, list[bytes]] = {}  # packed, by build facts
        self._has_ended = threading.Event()
        self._stop = serve(listener, self._replays, self._give_away)

    def run(self) -> None:
        """Receive replays until the daemon closes the pair, then finish what is under way."""
        flusher = threading.Thread(target=self._flush_often, name="hpcc-flush", daemon=True)
        flusher.start()
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._pair, _MAX_MESSAGE, 1)
            except OSError:
                break
            if not data:
                break
            for memory in descriptors:
                try:
                    self._learn(data, memory)
                finally:
                    os.close(memory)
        self._stop()
        self._has_ended.set()
        flusher.join(_STOP_SECONDS)
        self._flush()

    def _learn(self, data: bytes, memory: int) -> None:
        number, renew_ms = _LEARNED.unpack_from(data, 1)
        key = data[1 + _LEARNED.size :]
        with mmap.mmap(memory, 0, prot=mmap.PROT_READ) as content:
            (length,) = _PATHS_BYTES.unpack_from(content)
            start = _PATHS_BYTES.size + length
            paths = tuple(content[_PATHS_BYTES.size : start].split(b"\0")[:-1])
            prepared = content[start:]
        self._replays.adopt(
            key,
            prepared,
            paths,
            lambda facts, at, seconds: self._note(_HIT.pack(number, at, seconds), facts),
            renew_ms / 1000 if renew_ms else math.inf,
        )

    def _note(self, hit: bytes, facts: bytes) -> None:
        with self._lock:
            self._hits.setdefault(facts, []).append(hit)

    def _give_away(self, connection: socket.socket, data: bytes) -> None:
        """Pass a connection to the daemon. If that fails, it closes and its launcher compiles."""
        with contextlib.suppress(OSError), connection:
            socket.send_fds(self._pair, [_ASK + data], [connection.fileno()], socket.MSG_NOSIGNAL)

    def _flush_often(self) -> None:
        while not self._has_ended.wait(_FLUSH_SECONDS):
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            hits, self._hits = self._hits, {}
        for facts, found in hits.items():
            head = _HITS + _FACTS_BYTES.pack(len(facts)) + facts
            for start in range(0, len(found), _HITS_PER_MESSAGE):
                packed = b"".join(found[start : start + _HITS_PER_MESSAGE])
                with contextlib.suppress(OSError):  # the daemon is gone, so the counts are lost
                    self._pair.send(head + packed, socket.MSG_NOSIGNAL)
