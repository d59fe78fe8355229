"""A result is kept only if no input changed, on a simulated kernel that ticks and is set.

The simulation has what decides on a real machine: a clock that stands still between two ticks,
stamps that are finer since Linux 6.13, file systems that stamp by another clock or in whole seconds,
writers that are stopped between a stamp and its bytes, and a user who sets the time. Nothing here
depends on the machine that runs the test.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpcc.cache.base.stamps import Distance, take_start
from hpcc.cache.base.uncacheable import UncacheableError, check_start, is_fresh, settled_ns
from hpcc_testkit.suite.examples import examples

_SECOND: Final = 10**9
_MILLISECOND: Final = 10**6
_LOCAL, _FOREIGN = 1, 2
_TICKS: Final = (_MILLISECOND, 4 * _MILLISECOND, 10 * _MILLISECOND)
_FILES: Final = (b"/local/a.h", b"/local/b.h", b"/foreign/c.h")
# A file system elsewhere may lag behind this machine by less than the window.
_FOREIGN_LAG: Final = 40 * _MILLISECOND


@dataclass(slots=True)
class _Inode:
    number: int
    device: int
    ctime: int = 0
    was_queried: bool = False
    content: bytes = b""


@dataclass(slots=True)
class Machine:
    """A kernel with its file systems. It is the `StampClock` of the code under test."""

    tick: int = 4 * _MILLISECOND
    is_exact: bool = False
    in_seconds: bool = False
    boot: int = 0
    real: int = 1_700_000_000 * _SECOND + 123_456_789
    floor: int = 0
    waits: int = 0
    files: dict[bytes, _Inode] = field(default_factory=dict)
    memory: _Inode = field(default_factory=lambda: _Inode(1, _LOCAL))

    def __post_init__(self) -> None:
        for number, path in enumerate(_FILES, 2):
            device = _LOCAL if path.startswith(b"/local") else _FOREIGN
            self.files[path] = _Inode(number, device)
            self.write(path, b"first")
        self.go(3600 * _SECOND)

    # ---- the world ----

    def go(self, nanoseconds: int) -> None:
        self.boot += nanoseconds

    def set(self, nanoseconds: int) -> None:
        self.real += nanoseconds

    def stamp(self, inode: _Inode) -> None:
        """Change a ctime as Linux does."""
        self.go(300)
        now = self.real + self.boot
        if inode.device == _FOREIGN:
            inode.ctime = now - _FOREIGN_LAG
        else:
            coarse = self.real + self.boot // self.tick * self.tick
            if self.is_exact:
                coarse = max(coarse, self.real + self.floor)
                if inode.was_queried and coarse <= inode.ctime:
                    coarse, self.floor = now, self.boot
            inode.ctime = coarse
        if self.in_seconds and inode is not self.memory:
            inode.ctime -= inode.ctime % _SECOND
        inode.was_queried = False

    def write(self, path: bytes, content: bytes) -> None:
        self.stamp(self.files[path])
        self.files[path].content = content

    def digest(self, path: bytes) -> bytes:
        return hashlib.sha256(self.files[path].content).digest()

    # ---- the clock of the code under test ----

    def wall_ns(self) -> int:
        self.go(100)
        return self.real + self.boot

    def stamp_ns(self) -> int:
        for _ in range(2):
            self.stamp(self.memory)
            self.memory.was_queried = True
        return self.memory.ctime

    def distance(self) -> Distance:
        return self.real - 50, self.real + 50

    def device(self, directory: bytes) -> int | None:
        return _LOCAL if directory.startswith(b"/local") else None

    def stat(self, path: bytes) -> os.stat_result:
        self.go(100)
        inode = self.files.get(path)
        if inode is None:  # a directory, changed long ago
            inode = _Inode(100, _LOCAL if path.startswith(b"/local") else _FOREIGN, _SECOND + 1)
        inode.was_queried = True
        seconds = inode.ctime // _SECOND
        size = len(inode.content)
        return os.stat_result(
            (0o100644, inode.number, inode.device, 1, 0, 0, size, seconds, seconds, seconds),
            {"st_mtime_ns": inode.ctime, "st_ctime_ns": inode.ctime},
        )

    def wait(self) -> None:
        self.waits += 1
        self.go(_MILLISECOND)


SEEN: Counter[str] = Counter()

_CONTENTS = st.sampled_from((b"first", b"other", b"third"))
_PAUSES = st.sampled_from((0, 500, 100_000, _MILLISECOND, 3 * _MILLISECOND, 60 * _MILLISECOND))
_WRITES = st.tuples(st.just("write"), st.sampled_from(_FILES), _CONTENTS)
# The kernel stamps the file now, and gets the bytes when the writer goes on.
_STAMPS = st.tuples(st.just("stamp"), st.sampled_from(_FILES), _CONTENTS)
_COPIES = st.tuples(st.just("copy"), st.sampled_from(_FILES), st.just(b""))
_GOES = st.tuples(st.just("go"), st.just(b""), _PAUSES)
_SETS = st.tuples(
    st.just("set"), st.just(b""), st.sampled_from((-3600, -1, 1, 3600)).map(lambda s: s * _SECOND)
)
_SMALL_SETS = st.tuples(
    st.just("set"),
    st.just(b""),
    st.sampled_from((-5_000_000, -2_000_000, 2_000_000, -20_000, 20_000)),
)
_EVENTS = st.lists(st.one_of(_WRITES, _STAMPS, _COPIES, _GOES, _SETS, _SMALL_SETS), max_size=5)


class _World:
    """Plays events; `torn` holds what stopped writers will still copy."""

    def __init__(self, machine: Machine, *, tears: bool) -> None:
        self.machine, self._tears = machine, tears
        self._torn: dict[bytes, bytes] = {}

    def play(self, events: list[tuple[str, bytes, object]]) -> None:
        machine = self.machine
        for what, path, value in events:
            if what == "write" or (what == "stamp" and not self._tears):
                assert isinstance(value, bytes)
                machine.write(path, value)
            elif what == "stamp":
                assert isinstance(value, bytes)
                machine.stamp(machine.files[path])
                self._torn[path] = value
            elif what == "copy" and path in self._torn:
                machine.files[path].content = self._torn.pop(path)
            elif what in {"go", "set"}:
                assert isinstance(value, int)
                (machine.go if what == "go" else machine.set)(value)


@settings(max_examples=examples(1500), deadline=None)
@given(
    tick=st.sampled_from(_TICKS),
    is_exact=st.booleans(),
    in_seconds=st.sampled_from((False, False, True)),
    is_known=st.booleans(),
    before=_EVENTS,
    early=_EVENTS,
    late=_EVENTS,
)
def test_what_is_kept_was_made_from_what_is_there(
    tick: int,
    is_exact: bool,
    in_seconds: bool,
    is_known: bool,
    before: list[tuple[str, bytes, object]],
    early: list[tuple[str, bytes, object]],
    late: list[tuple[str, bytes, object]],
) -> None:
    machine = Machine(tick=tick, is_exact=is_exact, in_seconds=in_seconds)
    world = _World(machine, tears=is_known)
    world.play(before)
    started = take_start(
        machine, (b"/local", b"/foreign"), _FILES if is_known else (), machine.digest
    )
    world.play(early)
    read = {path: inode.content for path, inode in machine.files.items()}
    world.play(late)
    kept = []
    for path in _FILES:
        digest = machine.digest(path)
        status = machine.stat(path)
        for start in (started, int(started)):
            if not is_fresh(status, start):
                continue
            assert max(status.st_mtime_ns, status.st_ctime_ns) >= settled_ns(start), path
        if not is_fresh(status, started):
            kept.append((path, digest))
    try:
        check_start(started, kept)
    except UncacheableError as error:
        SEEN[error.reason] += 1
        return
    SEEN["kept"] += len(kept)
    # A straddling writer elsewhere than on a local file system is what the window was made for.
    sure = [k for k in kept if not (is_known and machine.files[k[0]].device == _FOREIGN)]
    for path, digest in sure:
        assert hashlib.sha256(read[path]).digest() == digest, path


@pytest.mark.parametrize("is_exact", [True, False])
@pytest.mark.parametrize("tick", _TICKS)
def test_a_file_that_was_written_just_before_is_kept(tick: int, is_exact: bool) -> None:
    for pause in (0, 1000, 300_000, 2 * _MILLISECOND, 20 * _MILLISECOND):
        machine = Machine(tick=tick, is_exact=is_exact)
        machine.write(_FILES[0], b"other")
        machine.write(_FILES[1], b"other")
        machine.go(pause)
        started = take_start(machine, (b"/local",), _FILES[:1], machine.digest)
        assert machine.waits * _MILLISECOND <= tick + _MILLISECOND
        assert not is_exact or machine.waits <= 1
        machine.go(_SECOND)
        # The second was not known, but was stamped in the same tick.
        assert not any(is_fresh(machine.stat(path), started) for path in _FILES[:2])
        check_start(started, ((path, machine.digest(path)) for path in _FILES[:2]))


@pytest.mark.parametrize("is_exact", [True, False])
def test_a_file_that_is_written_just_after_is_not_kept(is_exact: bool) -> None:
    """Also if another writer changed it in the same tick before the start."""
    machine = Machine(is_exact=is_exact)
    machine.write(_FILES[0], b"other")
    started = take_start(machine, (b"/local",), (), machine.digest)
    machine.write(_FILES[0], b"third")
    assert is_fresh(machine.stat(_FILES[0]), started)


def test_a_tick_is_waited_for_only_if_an_input_is_in_it() -> None:
    machine = Machine()
    take_start(machine, (b"/local",), _FILES, machine.digest)
    assert machine.waits == 0
    machine.write(_FILES[0], b"other")
    take_start(machine, (b"/local",), _FILES, machine.digest)
    assert machine.waits > 0


@pytest.mark.parametrize("seconds", [-3600, -1, 1, 3600])
def test_a_clock_that_is_set_during_a_compile_makes_nothing_to_keep(seconds: int) -> None:
    machine = Machine()
    started = take_start(machine, (b"/local",), _FILES, machine.digest)
    machine.set(seconds * _SECOND)
    with pytest.raises(UncacheableError) as caught:
        check_start(started, ())
    assert caught.value.reason == "clock-set"


@pytest.mark.parametrize("step", [-50_000, 50_000])
def test_clocks_that_drift_apart_are_not_set(step: int) -> None:
    """As in emulated kernels. The start is that much too early, so a change still shows."""
    machine = Machine(is_exact=True)
    started = take_start(machine, (b"/local",), _FILES, machine.digest)
    machine.set(step)
    machine.write(_FILES[0], b"other")
    check_start(started, ())
    assert is_fresh(machine.stat(_FILES[0]), started)


def test_a_small_step_is_no_setting_where_the_window_judges() -> None:
    machine = Machine()
    started = take_start(machine, (b"/foreign",), _FILES, machine.digest)
    machine.set(-10 * _MILLISECOND)
    check_start(started, ())
    machine.set(-40 * _MILLISECOND)
    with pytest.raises(UncacheableError):
        check_start(started, ())


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("is_exact", [True, False])
def test_a_stamp_of_the_future_is_settled_for_a_known_file(is_exact: bool, is_known: bool) -> None:
    """The clock was set back after the checkout: all files are younger than now."""
    machine = Machine(is_exact=is_exact)
    machine.write(_FILES[0], b"other")
    machine.set(-600 * _SECOND)
    started = take_start(machine, (b"/local",), _FILES if is_known else (), machine.digest)
    assert machine.waits == 0
    machine.go(_SECOND)
    assert is_fresh(machine.stat(_FILES[0]), started) is not is_known
    machine.write(_FILES[0], b"third")
    assert is_fresh(machine.stat(_FILES[0]), started)


def test_what_was_stamped_long_ago_needs_no_look_at_the_clock() -> None:
    machine = Machine()
    started = take_start(machine, (b"/local", b"/foreign"), _FILES, machine.digest)
    machine.go(60 * _MILLISECOND)
    old = machine.stat(_FILES[0])
    assert max(old.st_mtime_ns, old.st_ctime_ns) < settled_ns(started)
    machine.write(_FILES[0], b"other")
    assert machine.stat(_FILES[0]).st_ctime_ns >= settled_ns(started)


@pytest.mark.parametrize(("ago", "is_kept"), [(60 * _MILLISECOND, True), (_MILLISECOND, False)])
def test_a_file_elsewhere_is_judged_by_the_window(ago: int, is_kept: bool) -> None:
    machine = Machine()
    machine.write(_FILES[2], b"other")
    machine.go(ago)
    started = take_start(machine, (b"/local", b"/foreign"), _FILES, machine.digest)
    assert is_fresh(machine.stat(_FILES[2]), started) is not is_kept


@pytest.mark.parametrize(("ago", "is_kept"), [(3100, True), (1500, False)])
def test_stamps_in_whole_seconds_need_two_seconds(ago: int, is_kept: bool) -> None:
    machine = Machine(in_seconds=True)
    machine.write(_FILES[0], b"other")
    machine.go(ago * _MILLISECOND)
    started = take_start(machine, (b"/local",), _FILES, machine.digest)
    assert is_fresh(machine.stat(_FILES[0]), started) is not is_kept


def test_a_writer_that_stops_between_stamp_and_bytes_is_noticed() -> None:
    machine = Machine(is_exact=True)
    machine.stamp(machine.files[_FILES[0]])
    started = take_start(machine, (b"/local",), _FILES, machine.digest)
    machine.files[_FILES[0]].content = b"other"
    assert not is_fresh(machine.stat(_FILES[0]), started)  # the stamp does not show it
    with pytest.raises(UncacheableError) as caught:
        check_start(started, [(_FILES[0], machine.digest(_FILES[0]))])
    assert caught.value.reason == "modified-during-compile"
