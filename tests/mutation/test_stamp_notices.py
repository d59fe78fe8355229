"""Each check of a file's age is needed: without it, the test named after it fails."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

MODEL = "tests/property/test_stamps_model.py::"
STAMPS, UNCACHEABLE = "cache/base/stamps.py", "cache/base/uncacheable.py"
KEPT = MODEL + "test_a_file_that_was_written_just_before_is_kept[4000000-"

CASES = {
    "after": Case(STAMPS, "if changed_ns < self._stamp_ns:", "if changed_ns < self._stamp_ns + _WINDOW_NS:",
                  MODEL + "test_a_file_that_is_written_just_after_is_not_kept[False]"),
    "seconds": Case(STAMPS, "or changed_ns % _SECOND_NS == 0:", "or False:",
                    MODEL + "test_stamps_in_whole_seconds_need_two_seconds[1500-False]"),
    "elsewhere": Case(STAMPS, "if status.st_dev not in self._devices or", "if",
                      MODEL + "test_a_file_elsewhere_is_judged_by_the_window[1000000-False]"),
    "tick": Case(STAMPS, "if now > newest:", "if True:", KEPT + "False]"),
    "known": Case(STAMPS, "known != _stat(status) or changed_ns <= self._clock.stamp_ns()", "True",
                  MODEL + "test_a_stamp_of_the_future_is_settled_for_a_known_file[True-True]"),
    "set": Case(STAMPS, "return high_now < low - slack or high + slack < low_now", "return False",
                MODEL + "test_a_clock_that_is_set_during_a_compile_makes_nothing_to_keep[-1]"),
    "torn": Case(UNCACHEABLE, "if not started_ns.agrees(files):", "if False:",
                 MODEL + "test_a_writer_that_stops_between_stamp_and_bytes_is_noticed"),
    "stopped": Case("cache/base/files.py", "if self.is_quiet(signature, at_ns):", "if self.is_quiet(signature):",
                    "tests/unit/cache/base/test_manifest.py"
                    "::test_a_process_that_is_stopped_after_a_read_does_not_make_a_young_file_quiet"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
