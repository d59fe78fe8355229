"""Each check of a unit that is compiled with modules switched on is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TESTS = "tests/integration/cache/test_modules_switched_on.py::"
FLAGS, READ = "cache/inputs/flag_inputs.py", "cache/results/files_read.py"

CASES = {
    "units-that-are-there": Case(FLAGS, "    elif os.path.lexists(relative):", "    elif False:",
                                 TESTS + "test_units_of_other_headers_make_all_units_possible"),
    "units-of-relative-names": Case(FLAGS, ", (RELATIVE_UNITS,): False}", "}",
                                    TESTS + "test_another_map_is_another_compile"),
    "units-of-absolute-names": Case(FLAGS, "for path in (*files, *closure.existing)", "for path in ()",
                                    TESTS + "test_the_header_unit_below_a_directory_that_is_there_already"),
    "units-below": Case(FLAGS, "                pending.append((prefix + name, its))", "                pass",
                        TESTS + "test_the_header_unit_below_a_directory_that_is_there_already"),
    "units-of-this-clone": Case("cache/key/relocate.py", "        if not self.units:", "        if True:",
                                TESTS + "test_absolute_directories_are_shared_with_a_clone_elsewhere"),
    "list-of-modules": Case(READ, "        and (not listing.is_empty or not mentions_modules(depfile))\n", "",
                            TESTS + "test_a_unit_whose_modules_are_not_known_is_never_kept[importer-False]"),
    "declared-module": Case(READ, "        and listing.provides == pending.prepared.declares\n", "",
                            TESTS + "test_a_unit_whose_modules_are_not_known_is_never_kept[macro-True]"),
    "map-before-the-run": Case("cache/results/pending.py", "(prepared.source, *named, *known)", "(prepared.source, *known)",
                               TESTS + "test_a_map_is_read_before_the_run_and_compared_after_it"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
