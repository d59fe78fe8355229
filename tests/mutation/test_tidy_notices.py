"""Each check of a run of clang-tidy is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TIDY = "tests/integration/cache/test_clang_tidy.py::"
COMMAND = "tests/unit/compilers/tidy/test_tidy_command.py::"
CONFIGS = "cache/results/config_files.py"

CASES = {
    "above-headers": Case(CONFIGS, "_above(prepared, read)", "_above(prepared, read[:1])",
                          TIDY + "test_each_edit_that_can_change_findings_is_a_miss"),
    "for-a-moment": Case(CONFIGS, "        if place not in quiet:\n", "        if not place:\n",
                         TIDY + "test_a_configuration_that_is_there_only_while_it_is_read_is_not_kept"),
    "names-more": Case(CONFIGS, "        if has_more:\n", "        if False:\n",
                       TIDY + "test_what_depends_on_more_is_not_kept"),
    "user": Case(CONFIGS, "\n    if family.shows_more(pending.messages):\n", "\n    if False:\n",
                 TIDY + "test_what_depends_on_more_is_not_kept"),
    "other-database": Case("cache/host/databases.py", "os.path.lexists(posixpath.join(directory, _OTHER_NAME)) or ", "",
                           "tests/unit/cache/host/test_databases.py::test_an_edit_is_seen_and_a_second_database_refuses"),
    "one-source": Case("cache/host/databases.py", "posixpath.normpath(whole.replace(b\"\\\\\", b\"/\"))", "whole",
                       "tests/unit/cache/host/test_databases.py::test_a_source_with_two_entries_is_not_certain"),
    "ambiguous": Case("compilers/tidy/invocation.py", "elif _is_ambiguous(part, dropped or operands):", "elif False:",
                      COMMAND + "test_other_forms_are_refused"),
    "response-value": Case("compilers/tidy/options.py", "if any(argument.startswith(RESPONSE) for argument in arguments[:end]):", "if False:",
                           COMMAND + "test_other_forms_are_refused"),
    "response-driver": Case("compilers/tidy/invocation.py", " or words[0].startswith(RESPONSE)", "",
                            COMMAND + "test_other_forms_are_refused"),
    "response-in-front": Case("compilers/tidy/invocation.py", " or entry.words[0].startswith(RESPONSE)", "",
                              COMMAND + "test_entries_of_another_form_are_refused"),
    "driver": Case("compilers/tidy/invocation.py", "return (*self.driver, *(", "return (*(), *(",
                   COMMAND + "test_the_compiler_of_an_entry_is_the_driver"),
    "roots-of-the-driver": Case("compilers/tidy/family.py", "(*roots, posixpath.dirname(posixpath.dirname(invocation.driver[0])) or b\"/\")", "roots",
                                TIDY + "test_a_driver_that_gets_headers_is_another_driver"),
    "link-of-a-flag": Case("cache/local.py", "        check_places(more, pending.places, started)\n", "",
                           "tests/integration/cache/test_cache_places.py::test_a_link_to_what_a_flag_names_moved_during_a_compile"),
    "exports-missing": Case("cache/results/hits.py", "        if data or not file.may_be_missing\n", "",
                            TIDY + "test_exported_fixes_are_put_in_place"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
