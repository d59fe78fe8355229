"""Each check of a unit that uses a precompiled header is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

GCC = "tests/integration/cache/test_precompiled_headers.py::"
CLANG = "tests/integration/cache/test_precompiled_headers_of_clang.py::"
UNIT = "tests/unit/cache/results/test_precompiled.py::"
CLOSURE, RECORDS = "cache/inputs/closure.py", "cache/results/precompiled.py"

CASES = {
    "files-it-was-made-from": Case(CLOSURE, "            scans |= _made_from(memo, made, request, plain, scans)", "            _made_from(memo, made, request, plain, scans)",
                                   GCC + "test_a_macro_in_it_that_reads_the_clock[g++-12]"),
    "stale": Case(CLOSURE, "[0] != its:", "[0] == b\"\":", GCC + "test_a_header_that_changed_since[g++-12]"),
    "computed": Case(CLOSURE, "            _refuse_unlisted(paths, scans)", "            pass",
                     GCC + "test_a_macro_in_it_that_names_a_header[g++-12]"),
    "own-output-of-clang": Case("cache/results/pending.py", "output if is_header and prepared.written.output_keeps_mode else", "output if is_header else",
                                CLANG + "test_an_old_one_that_its_own_making_takes"),
    "same-root": Case(RECORDS, "return found.files if _reads_root(prepared, path, found) else None", "return found.files",
                      GCC + "test_one_of_another_header_than_the_one_beside_it[g++-12]"),
    "same-flags": Case(RECORDS, "        if found.flags and found.flags != _flags_of_text(prepared):", "        if False:",
                       GCC + "test_a_search_path_that_hides_the_clock_from_the_preprocessor[g++-12]"),
    "same-macros": Case(RECORDS, "        if not set(found.macros) <= set(prepared.invocation.macros):", "        if False:",
                        UNIT + "test_macros_of_its_making_must_be_those_of_its_users"),
    "no-times": Case("compilers/invocation/side.py", "return PLAIN if invocation.inner.has_no_times else", "return PLAIN if True else",
                     CLANG + "test_one_with_times_is_left_to_the_compiler[clang++-17]"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
