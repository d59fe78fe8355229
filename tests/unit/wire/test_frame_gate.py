"""How many frames a guest may send, and what raises that number."""

from __future__ import annotations

import pytest

from hpcc.core import IntegrityError
from hpcc.wire import frame_gate as gate_module
from hpcc.wire.frame_gate import (
    BURST_FRAMES,
    CONTENT_BYTES_PER_FRAME,
    FRAMES_PER_EXEC,
    FRAMES_PER_SECOND,
    MAX_FRAME_PAYLOAD_BYTES,
    MAX_SETTINGS_FRAMES,
    PROTOCOL_VIOLATION,
    SENT_BYTES_PER_FRAME,
    STRAY_BYTES_PER_FRAME,
    FrameGate,
)

START = 1000.0
STREAM, STRANGER = 1, 3
DATA, HEADERS, SETTINGS, PING = 0, 1, 4, 6


def frame(kind: int, size: int = 0, *, flags: int = 0, stream: int = 0) -> bytes:
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + bytes(size)


PINGS = frame(PING, 8)


def opened(now: float = START) -> FrameGate:
    """Return a gate that has received the first frame of a session."""
    gate = FrameGate({STREAM}, now)
    gate.feed(frame(SETTINGS), now)
    return gate


def refused(gate: FrameGate, data: bytes, now: float) -> str:
    with pytest.raises(IntegrityError) as caught:
        gate.feed(data, now)
    assert caught.value.reason == PROTOCOL_VIOLATION
    return str(caught.value)


def spent() -> FrameGate:
    """Return a gate that has used its whole allowance of frames."""
    gate = opened()
    gate.feed(PINGS * (BURST_FRAMES - 1), START)
    return gate


def test_a_burst_is_allowed_and_one_frame_more_is_not() -> None:
    assert "too many frames" in refused(spent(), PINGS, START)


def test_each_second_allows_so_many_frames_more() -> None:
    gate = spent()
    gate.feed(PINGS * FRAMES_PER_SECOND, START + 1)
    gate.feed(PINGS * FRAMES_PER_SECOND, START + 2)
    assert "too many frames" in refused(gate, PINGS, START + 2)


def test_the_same_moment_is_paid_for_once() -> None:
    gate = spent()
    for _ in range(FRAMES_PER_SECOND):
        gate.feed(PINGS, START + 1)
    assert "too many frames" in refused(gate, PINGS, START + 1)


def test_a_long_silence_allows_no_more_than_a_burst() -> None:
    gate = spent()
    gate.feed(PINGS * BURST_FRAMES, START + 3600)
    assert "too many frames" in refused(gate, PINGS, START + 3600)


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    gate = opened()
    gate.feed(PINGS * (BURST_FRAMES - 1), START - 100)
    assert "too many frames" in refused(gate, PINGS, START - 100)


def test_each_exec_and_what_is_sent_pay_for_frames() -> None:
    gate = spent()
    gate.earn(execs=1)
    gate.feed(PINGS * FRAMES_PER_EXEC, START)
    gate.earn(sent_bytes=3 * SENT_BYTES_PER_FRAME)
    gate.feed(PINGS * 3, START)
    assert "too many frames" in refused(gate, PINGS, START)


def test_what_is_earned_is_bounded_too() -> None:
    gate = spent()
    gate.earn(execs=BURST_FRAMES)
    gate.feed(PINGS * BURST_FRAMES, START)
    assert "too many frames" in refused(gate, PINGS, START)


def test_content_of_an_answer_pays_for_its_frames() -> None:
    """A frame of expected content with at least `CONTENT_BYTES_PER_FRAME` bytes costs nothing."""
    gate = spent()
    gate.earn(execs=1)  # a frame is paid for before its content counts
    for _ in range(2 * BURST_FRAMES):
        gate.feed(frame(DATA, CONTENT_BYTES_PER_FRAME, stream=STREAM), START)
    assert "too many frames" in refused(gate, PINGS * (FRAMES_PER_EXEC + 1), START)


def test_content_that_nobody_waits_for_costs_more() -> None:
    size = 2 * STRAY_BYTES_PER_FRAME
    gate = opened()
    gate.feed(frame(DATA, size, stream=STRANGER) * ((BURST_FRAMES - 1) // 3), START)
    assert "too many frames" in refused(gate, PINGS, START)


def test_settings_are_counted_for_the_whole_session() -> None:
    gate = opened()
    for _ in range(MAX_SETTINGS_FRAMES - 1):
        gate.feed(frame(SETTINGS), START + 100)
    assert "too many frames" in refused(gate, frame(SETTINGS), START + 200)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (frame(PING, 8), "does not begin with its settings"),
        (frame(SETTINGS, flags=1), "does not begin with its settings"),
        (frame(SETTINGS) + frame(2, 5), "a frame of kind 2"),
        (frame(SETTINGS) + frame(5, 5), "a frame of kind 5"),
        (frame(SETTINGS) + frame(DATA, 8, flags=8), "DATA with flags 0x8"),
        (frame(SETTINGS) + frame(HEADERS, 9, flags=1), "headers that are too long"),
        (frame(SETTINGS) + frame(HEADERS, 4097, flags=4), "headers that are too long"),
        (frame(SETTINGS, 7), "SETTINGS of 7 bytes"),
        (frame(SETTINGS, 17 * 6), "SETTINGS of 102 bytes"),
        (frame(SETTINGS) + frame(SETTINGS, 6, flags=1), "SETTINGS of 6 bytes"),
        ((MAX_FRAME_PAYLOAD_BYTES + 1).to_bytes(3, "big"), "an overlong frame"),
    ],
)
def test_what_an_agent_never_sends_is_refused_by_its_head(data: bytes, said: str) -> None:
    assert said in refused(FrameGate({STREAM}, START), data, START)


@pytest.mark.parametrize(
    "data",
    [
        frame(HEADERS, 4096, flags=4),
        frame(DATA, MAX_FRAME_PAYLOAD_BYTES, stream=STREAM),
        frame(SETTINGS, 16 * 6),
        frame(SETTINGS, flags=1),
    ],
)
def test_what_is_just_within_the_bounds_is_taken(data: bytes) -> None:
    opened().feed(data, START)


def setting(name: int, value: int) -> bytes:
    content = name.to_bytes(2, "big") + value.to_bytes(4, "big")
    return frame(SETTINGS, len(content))[:9] + content


def test_a_setting_may_not_raise_what_the_host_allocates() -> None:
    most = gate_module._MAX_TABLE_BYTES
    for good in (setting(1, most), setting(5, MAX_FRAME_PAYLOAD_BYTES), setting(3, 1 << 31)):
        opened().feed(good, START)
    for bad in (setting(1, most + 1), setting(5, MAX_FRAME_PAYLOAD_BYTES + 1), setting(5, 1)):
        assert "a setting" in refused(opened(), bad, START)
