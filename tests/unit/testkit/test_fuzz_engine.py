"""The fuzzer finds what only a sequence of branches leads to, and calls each kind of defect one."""

from __future__ import annotations

import threading
import time

import pytest

from hpcc_testkit.fuzz import engine
from hpcc_testkit.fuzz.engine import DefectError, Fuzzer


def stepwise(data: bytes) -> int:
    """Fail for inputs that begin with `hpcc`, one branch for each byte."""
    if data[:1] == b"h":
        if data[1:2] == b"p":
            if data[2:3] == b"c":
                if data[3:4] == b"c":
                    raise LookupError("found")
                return 3
            return 2
        return 1
    return 0


def test_a_defect_behind_four_branches_is_found_by_following_them() -> None:
    fuzzer = Fuzzer(stepwise, [b"abcdefgh"], seed=1)
    with pytest.raises(DefectError, match="LookupError: found") as caught:
        fuzzer.fuzz(cpu_seconds=60)
    assert caught.value.data[:4] == b"hpcc"


def test_an_input_is_kept_for_each_new_branch_and_no_other() -> None:
    def one_byte(data: bytes) -> int:
        return 1 if data[:1] == b"x" else 0

    found = Fuzzer(one_byte, [b"a"], seed=1).fuzz(cpu_seconds=60, executions=20_000)
    assert found.executions == 20_000
    assert [data[:1] for data in found.kept] == [b"x"]


def test_branches_of_other_threads_and_of_older_finalizers_count_for_no_input() -> None:
    class Old:
        def __init__(self) -> None:
            self.ring = self

        def __del__(self) -> None:
            list(map(str, [1]))

    rounds, stop = [0], threading.Event()

    def beside() -> None:
        while not stop.wait(0.001):
            rounds[0] += 1
            scope: dict[str, object] = {}
            exec("def fresh(n):\n    return 1 if n else 0", scope)
            scope["fresh"](rounds[0] % 2)  # type: ignore[operator]  # the function above

    other = threading.Thread(target=beside)
    other.start()
    try:
        old: Old | None = Old()
        del old
        found = Fuzzer(lambda _: time.sleep(0.001), [b"a"], seed=1).fuzz(60, executions=200)
    finally:
        stop.set()
        other.join()
    assert rounds[0] > 1
    assert not found.kept


def test_a_defect_of_the_corpus_is_one() -> None:
    with pytest.raises(DefectError, match="LookupError"):
        Fuzzer(stepwise, [b"hpcc"], seed=1).fuzz(cpu_seconds=60, executions=1)


def test_an_input_that_takes_too_long_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "SLOW_SECONDS", -1.0)
    with pytest.raises(DefectError, match="needs"):
        Fuzzer(len, [b"a"], seed=1).fuzz(cpu_seconds=60, executions=1)


def test_inputs_have_a_limit() -> None:
    longest = 0

    def measure(data: bytes) -> None:
        nonlocal longest
        longest = max(longest, len(data))

    Fuzzer(measure, [b"a" * engine.MAX_BYTES], seed=1).fuzz(cpu_seconds=60, executions=300)
    assert longest == engine.MAX_BYTES
