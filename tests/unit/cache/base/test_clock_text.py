from __future__ import annotations

import calendar
import time

import pytest

from hpcc.cache.base.clock_text import mentions_clock

_NOON = calendar.timegm((2026, 3, 7, 12, 30, 20)) * 10**9


@pytest.mark.parametrize(
    "text", [b"Mar  7 2026", b"Mar  6 2026", b"Mar  8 2026", b"12:30:20", b"03:15:21", b"18:00:22"]
)
def test_the_time_of_the_compile_is_found_in_any_zone(text: bytes) -> None:
    assert mentions_clock(b"\0ELF" + text + b"\0", _NOON, _NOON + 2 * 10**9)


@pytest.mark.parametrize(
    "text",
    [b"", b"Mar 27 2026", b"Mar  7 2025", b"12:30:50", b"12:30:2", b"12:99:20", b"12:30:201"],
)
def test_other_times_are_not(text: bytes) -> None:
    assert not mentions_clock(b"\0ELF" + text + b"\0", _NOON, _NOON + 2 * 10**9)


def test_the_compilers_own_spelling_is_ours() -> None:
    now = time.time()
    text = time.strftime("%b %e %Y", time.gmtime(now)).encode()
    assert mentions_clock(text, int(now * 10**9), int(now * 10**9))
