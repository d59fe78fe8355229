"""Each check of a command with several sources is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TESTS = "tests/integration/cache/test_several_sources.py::"
SEVERAL = "cache/several.py"

CASES = {
    "reads-another": Case(SEVERAL, "if any(_reads_one(written, hit.found.inputs) for hit in hits.values()):", "if False:",
                          TESTS + "test_a_source_that_reads_anothers_object_gets_the_right_one[a.o]"),
    "is-there": Case(SEVERAL, "if n < first or _is_in_place(hits[n])", "if True",
                     TESTS + "test_behind_the_first_miss_only_what_is_there_is_taken"),
    "one-language": Case(SEVERAL, "prepared.invocation.language is first.invocation.language\n        and ", "",
                         TESTS + "test_what_is_more_than_its_sources_is_left_to_the_compiler[two-languages-gcc]"),
    "silent": Case(SEVERAL, "len(hits) == sources and silent and is_ordered", "len(hits) == sources",
                   TESTS + "test_the_driver_complains_once"),
    "missing": Case(SEVERAL, "        and os.path.isfile(prepared.source)\n", "",
                    TESTS + "test_what_is_more_than_its_sources_is_left_to_the_compiler[missing-clang]"),
    "messages": Case("cache/local.py", "if pending.sources > 1 and (report.stdout or report.stderr):", "if False:",
                     TESTS + "test_messages_are_those_of_the_whole_command[gcc]"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
