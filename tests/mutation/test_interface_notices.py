"""Each check of a unit that imports modules of Clang's is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

CLANG = "tests/integration/cache/test_modules_of_clang.py::"
UNIT = "tests/unit/cache/results/test_interfaces.py::"
RECORDS = "cache/results/interfaces.py"

CASES = {
    "sources": Case(RECORDS, "                files |= now", "                pass",
                    CLANG + "test_an_edit_that_leaves_the_interface_as_it_was[clang++-19-base.cppm]"),
    "stale": Case(RECORDS, "        if changed:", "        if False:",
                  CLANG + "test_an_interface_older_than_its_import[clang++-19]"),
    "known": Case(RECORDS, "        if not sets:", "        if False:",
                  CLANG + "test_an_interface_that_the_compiler_alone_made[clang++-19]"),
    "named": Case(RECORDS, "        if name.endswith(INTERFACE_SUFFIX):", "        if False:",
                  UNIT + "test_named_interfaces_are_left_out_of_a_list"),
    "read-by-inline-functions": Case(RECORDS, "        if closure.names_data:", "        if False:",
                                     CLANG + "test_an_inline_function_that_reads_a_file[clang++-19-later]"),
    "listed-for-one-object": Case("cache/inputs/embedded_files.py", "        or prepared.declares\n", "",
                                  "tests/integration/cache/test_modules_of_gcc.py::test_an_inline_function_that_reads_a_file[by-macro]"),
    "record-of-a-hit": Case("cache/local.py", "\n            and self._interfaces.has_record(prepared, found[0].result.side)", "",
                            CLANG + "test_one_whose_record_was_evicted[clang++-19]"),
    "another-name-of-the-directory": Case(RECORDS, "            and is_one_file(pwd, prepared.cwd)", "            and False",
                                          CLANG + "test_a_source_by_another_name_of_the_directory[clang++-19]"),
    "map-in-one-order": Case("cache/key/interfaces.py", "sorted(module_map.splitlines())", "module_map.splitlines()",
                             "tests/integration/cache/test_modules_of_gcc.py::test_the_order_of_a_maps_lines_does_not_count"),
    "by-name": Case("compilers/gnu/invocation.py", "        and all(map(imported_file, invocation.values(IMPORT_FLAG)))\n", "",
                    UNIT + "test_which_commands_are_kept"),
    "interfaces-behind-others": Case(RECORDS, "        every = tuple(dict.fromkeys((*names, *more)))\n", "        every = names\n",
                                     "tests/integration/sharing/test_share_modules.py::test_what_imports_hits_in_another_clone[g++-14]"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
