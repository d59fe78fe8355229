"""The check that fails when a source was edited comes before those of its headers."""

from __future__ import annotations

import pytest

from hpcc.cache.replay.engine import Check, CheckKind, Plan
from hpcc.cache.replay.plan_bytes import encode_plan

SOURCE = (7, 1234)


def state(path: bytes, inode: int = 1) -> Check:
    return Check(CheckKind.STATE, path, (7, inode, 3, 4, 5))


@pytest.mark.parametrize("siblings", [0, 20], ids=["alone", "in a group"])
@pytest.mark.parametrize("at", [0, 150, 300])
def test_the_source_is_checked_first(siblings: int, at: int) -> None:
    checks = [state(b"/p/inc/h%03d.h" % number) for number in range(300)]
    checks += [state(b"/p/lib/x%03d.h" % number) for number in range(3)]
    checks += [state(b"/p/src/s%03d.h" % number) for number in range(siblings)]
    checks.insert(at, state(b"/p/src/unit.c", SOURCE[1]))
    # A name that exists says nothing of the source, wherever it is.
    checks.insert(0, Check(CheckKind.PRESENT, b"/usr/bin/cc"))
    encoded = encode_plan(Plan(tuple(checks), (), 0o644, SOURCE, b""))
    assert encoded.count(b"unit.c\0") == 1
    first = encoded.index(b"unit.c\0")
    for name in (b"h000.h\0", b"x000.h\0", b"s000.h\0", b"/usr/bin/cc\0"):
        assert encoded.find(name) == -1 or first < encoded.index(name)
    assert encoded.count(b".h\0") == 303 + siblings
