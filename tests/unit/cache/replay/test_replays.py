from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from hpcc.cache.base.files import FileMemo, signature_of
from hpcc.cache.base.manifest import Absence, InputSet
from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.replay import replay as _replay
from hpcc.cache.replay.engine import (
    MAX_ANSWER_BYTES,
    MAX_OUTPUTS,
    Check,
    CheckKind,
    Plan,
    check_fits,
    open_engine,
)
from hpcc.cache.replay.replay import (
    MAX_ABSENT_NAMES,
    MAX_ONE_BYTES,
    MAX_RENEW_SECONDS,
    RENEW_FACTOR,
    RENEW_SECONDS,
    NotPinnedError,
    Pins,
    Replays,
)

NOTHING = Plan((), (), 0o644, (0, 0), b"")


def nobody() -> None:
    return


def in_a_while() -> int:
    """Return a time, in nanoseconds, at which all present files count as old."""
    return time.time_ns() + 10**11


def test_a_result_with_long_messages_is_put_in_place(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path / "main.o")
    plan = Plan(
        checks=(),
        outputs=(OutputFile(target, b"object"),),
        mode=0o644,
        source=(0, 0),
        answer=bytes(MAX_ANSWER_BYTES + 1),
    )
    assert Replays(open_engine(), time.monotonic).put(plan)
    assert (tmp_path / "main.o").read_bytes() == b"object"


def test_the_oldest_replays_go_first_when_there_are_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_replay, "MAX_REPLAYS", 2)
    replays = Replays(open_engine(), time.monotonic)
    for frame in (b"one", b"two", b"one", b"three"):
        assert replays.remember(frame, NOTHING, nobody)
    assert [replays.find(f) is not None for f in (b"one", b"two", b"three")] == [True, False, True]


def test_the_oldest_replays_go_first_when_they_are_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_replay, "MAX_BYTES", 5000)
    replays = Replays(open_engine(), time.monotonic)
    large = NOTHING._replace(outputs=(OutputFile(b"/a.o", bytes(2000)),))
    for _ in range(20):  # what is replaced does not count
        assert replays.remember(b"one", large, nobody)
    assert replays.remember(b"two", large, nobody)
    assert replays.find(b"one") is not None
    assert replays.remember(b"three", large, nobody)
    assert replays.find(b"one") is None
    assert replays.find(b"two") is not None


def test_what_is_too_large_is_not_remembered() -> None:
    replays = Replays(open_engine(), time.monotonic)
    names = tuple(b"%0255d" % i for i in range(MAX_ONE_BYTES // 270))
    many = NOTHING._replace(checks=(Check(CheckKind.LACKS, b"/", (), names),))
    assert not replays.remember(b"one", many, nobody)
    large = NOTHING._replace(outputs=(OutputFile(b"/a.o", bytes(MAX_ONE_BYTES)),))
    assert not replays.remember(b"one", large, nobody)
    assert replays.find(b"one") is None


def test_the_limit_of_one_replay_is_what_it_takes_in_memory() -> None:
    """Frame, answer, outputs and checks count; the limit itself is allowed."""
    frame, answer, path = b"f" * 10, b"a" * 20, b"/watched"
    rest = 5 * len(frame) + len(answer) + len(path) + 120
    plan = NOTHING._replace(answer=answer, checks=(Check(CheckKind.ABSENT, path),))
    for more, is_kept in ((0, True), (1, False)):
        replays = Replays(open_engine(), time.monotonic)
        output = OutputFile(b"/a.o", bytes(MAX_ONE_BYTES - rest + more))
        assert replays.remember(frame, plan._replace(outputs=(output,)), nobody) is is_kept
        assert (replays.find(frame) is not None) is is_kept


def test_a_plan_holds_so_many_outputs_and_so_long_an_answer() -> None:
    outputs = tuple(OutputFile(b"/%d.o" % i, b"") for i in range(MAX_OUTPUTS + 1))
    check_fits(NOTHING._replace(outputs=outputs[1:], answer=bytes(MAX_ANSWER_BYTES)))
    for plan in (
        NOTHING._replace(outputs=outputs),
        NOTHING._replace(answer=bytes(MAX_ANSWER_BYTES + 1)),
    ):
        with pytest.raises(ValueError, match="too much"):
            check_fits(plan)
    replays = Replays(open_engine(), time.monotonic)
    assert not replays.remember(b"one", NOTHING._replace(outputs=outputs), nobody)
    assert not replays.put(NOTHING._replace(outputs=outputs))


@pytest.mark.parametrize(
    ("length", "is_apart"), [(MAX_ANSWER_BYTES, False), (MAX_ANSWER_BYTES + 1, True)]
)
def test_an_answer_that_is_too_long_for_a_plan_is_sent_apart(
    length: int, *, is_apart: bool
) -> None:
    replays = Replays(open_engine(), time.monotonic)
    assert replays.remember(b"one", NOTHING._replace(answer=bytes(length)), nobody)
    replay = replays.find(b"one")
    assert replay is not None
    assert (replay.is_answered_apart, len(replay.answer)) == (is_apart, length if is_apart else 0)


def test_a_provisional_replay_is_renewed_ever_more_seldom_but_within_the_hour() -> None:
    replays = Replays(open_engine(), lambda: 100.0)
    periods = []
    for _ in range(400):
        replays.remember(b"one", NOTHING, nobody, is_provisional=True)
        replay = replays.find(b"one")
        assert replay is not None
        periods.append(replay.renew_at - 100)
    assert periods[:2] == [RENEW_SECONDS, RENEW_SECONDS * RENEW_FACTOR]
    assert periods[-1] == MAX_RENEW_SECONDS


def test_a_replay_of_what_is_quiet_lasts() -> None:
    replays = Replays(open_engine(), lambda: 100.0)
    replays.remember(b"one", NOTHING, nobody)
    replay = replays.find(b"one")
    assert replay is not None
    assert replay.renew_at == float("inf")


# ---- pins ----


def test_a_file_is_pinned_by_the_stat_its_content_was_read_under(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "a.h")
    (tmp_path / "a.h").write_text("1")
    memo = FileMemo(in_a_while)
    digest = memo.digest(path)
    assert digest is not None
    read = signature_of(os.stat(path))
    (tmp_path / "a.h").write_text("22")
    pins = Pins(memo)
    pins.files([(path, digest)])
    assert pins.checks() == (Check(CheckKind.STATE, path, read),)


def test_a_file_that_was_young_when_it_was_read_cannot_be_pinned(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path / "a.h")
    (tmp_path / "a.h").write_text("1")
    memo = FileMemo(time.time_ns)
    digest = memo.digest(path)
    assert digest is not None
    with pytest.raises(NotPinnedError):
        Pins(memo).files([(path, digest)])


def pinned(pins: Pins) -> set[tuple[CheckKind, bytes]]:
    return {(check.kind, check.path.rpartition(b"/")[2]) for check in pins.checks()}


def test_few_names_in_a_directory_that_cannot_answer_are_pinned_one_by_one(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path)
    absence = Absence(directory, frozenset({b"a.h", b"b.h"}), frozenset({b"a.h.gch"}))
    pins = Pins(FileMemo(time.time_ns))
    pins.inputs(InputSet((), (), (absence,), b""))
    absent = {(CheckKind.ABSENT, name) for name in (b"a.h", b"b.h", b"a.h.gch")}
    assert pinned(pins) == absent | {(CheckKind.PLACE, b".")}
    assert pins.is_provisional


def test_many_names_in_a_directory_that_cannot_answer_are_pinned_together(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path)
    names = frozenset(b"%d.h" % i for i in range(9))
    odd = {"ü.h".encode(), b"x" * 256}
    absence = Absence(directory, names, frozenset({b"0.h", *odd}))
    pins = Pins(FileMemo(time.time_ns))
    pins.inputs(InputSet((), (), (absence,), b""))
    together = Check(CheckKind.LACKS, directory, (), tuple(sorted(names)))
    assert together in pins.checks()
    # What reading cannot tell is asked for.
    absent = {(CheckKind.ABSENT, name) for name in odd}
    assert pinned(pins) == absent | {
        (CheckKind.PLACE, b"."),
        (CheckKind.LACKS, os.fsencode(tmp_path.name)),
    }
    assert pins.is_provisional


@pytest.mark.parametrize("count", [1, 9])
def test_a_directory_that_outputs_go_to_is_pinned_by_names_as_well(
    tmp_path: Path, count: int
) -> None:
    directory = os.fsencode(tmp_path)
    absence = Absence(directory, frozenset(b"%d.h" % i for i in range(count)), frozenset())
    memo = FileMemo(in_a_while)
    assert absence.holds(memo)
    pins = Pins(memo)
    pins.inputs(InputSet((), (), (absence,), b""), {directory})
    names = tuple(sorted(absence.files))
    assert Check(CheckKind.LACKS, directory, absence.signature or (), names) in pins.checks()
    assert absence.signature is not None
    # No later look would find it quiet for long.
    assert not pins.is_provisional


@pytest.mark.parametrize("spelling", ["/.", "/", "/./."])
def test_two_spellings_of_a_directory_are_one_look_at_it(tmp_path: Path, spelling: str) -> None:
    """`-I.` names the source's directory a second time."""
    directory = os.fsencode(tmp_path)
    one = Absence(directory, frozenset(b"a%d.h" % i for i in range(9)), frozenset())
    two = Absence(directory + spelling.encode(), frozenset({b"b.h"}), frozenset({b"c.h"}))
    pins = Pins(FileMemo(time.time_ns))
    pins.inputs(InputSet((), (), (one, two), b""), {directory})
    names = tuple(sorted({*one.files, b"b.h", b"c.h"}))
    looks = [check for check in pins.checks() if check.kind is not CheckKind.PLACE]
    assert looks == [Check(CheckKind.LACKS, directory, (), names)]
    # A stat counts only if it was the one of both looks.
    memo = FileMemo(in_a_while)
    assert one.holds(memo)
    for signature, expected in ((None, ()), (one.signature, one.signature)):
        two.signature = signature
        pins = Pins(memo)
        pins.inputs(InputSet((), (), (one, two), b""), {directory})
        (values,) = (c.values for c in pins.checks() if c.kind is CheckKind.LACKS)
        assert values == expected


def test_a_directory_that_can_answer_is_pinned_as_it_was_looked_at(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path)
    absence = Absence(directory, frozenset({b"a.h"}), frozenset())
    memo = FileMemo(in_a_while)
    assert absence.holds(memo)
    looked_at = signature_of(os.stat(directory))
    (tmp_path / "a.h").write_text("")
    pins = Pins(memo)
    pins.inputs(InputSet((), (), (absence,), b""))
    assert pins.checks() == (Check(CheckKind.STATE, directory, looked_at),)
    assert not pins.is_provisional


def test_too_many_names_to_look_for_are_not_pinned(tmp_path: Path) -> None:
    names = frozenset(b"%d.h" % i for i in range(MAX_ABSENT_NAMES))
    absence = Absence(os.fsencode(tmp_path), names, frozenset())
    Pins(FileMemo(time.time_ns)).inputs(InputSet((), (), (absence,), b""))
    absence = Absence(os.fsencode(tmp_path), names | {b"one-more.h"}, frozenset())
    with pytest.raises(NotPinnedError):
        Pins(FileMemo(time.time_ns)).inputs(InputSet((), (), (absence,), b""))


def test_two_looks_at_one_name_that_differ_pin_nothing(tmp_path: Path) -> None:
    pins = Pins(FileMemo(time.time_ns))
    pins.state(b"/a", (1, 2, 3, 4, 5))
    pins.state(b"/a", (1, 2, 3, 4, 5))
    for other in ((1, 2, 3, 4, 6), None):
        with pytest.raises(NotPinnedError):
            pins.state(b"/a", other)


def test_a_directory_may_be_pinned_as_a_place_and_by_its_state(tmp_path: Path) -> None:
    """`-I.` and the working directory's own pin name the same place."""
    pins = Pins(FileMemo(lambda: time.time_ns() + 10**10))
    directory = os.fsencode(tmp_path)
    pins.place(directory)
    pins.quiet(directory + b"/.")
    assert [check.kind for check in pins.checks()] == [CheckKind.PLACE, CheckKind.STATE]
