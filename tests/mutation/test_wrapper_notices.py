"""Each check of what a compiler executes and of who owns the store is needed.

Not here: the trace kills processes that appear after its end, which no test can time.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

WRAPPERS = "tests/unit/cache/host/test_wrappers.py::"
LOADER = "tests/unit/cache/host/test_loader.py::"
OWNERS = "tests/unit/config/test_owners.py::"
WRAPPER, OWNER = "cache/host/wrappers.py", "config/owners.py"

CASES = {
    "wrapper-of-identity": Case("cache/host/compiler_probe.py", "if executes_others(", "if not executes_others(",
                                WRAPPERS + "test_a_wrapper_is_asked_once_and_again_when_it_has_changed"),
    "wrapper-same-process": Case(WRAPPER, "if execution.pid in pids or execution", "if execution",
                                 WRAPPERS + "test_a_process_that_becomes_the_driver_twice_is_a_wrapper"),
    "wrapper-other-program": Case(WRAPPER, " or execution.program not in own:", ":",
                                  WRAPPERS + "test_a_program_that_is_not_the_drivers_own_makes_a_wrapper"),
    "wrapper-emulated": Case(WRAPPER, "if seen[0].program != driver:", "if False:",
                             WRAPPERS + "test_an_emulator_in_front_of_the_driver_leaves_the_question_to_its_file"),
    "wrapper-without-a-trace": Case(WRAPPER, "return not _looks_like_a_driver(compiler, programs)", "return False",
                                    WRAPPERS + "test_a_compiler_is_no_wrapper_and_a_wrapper_is_one[False]"),
    "preload-impostor": Case("cache/host/loader.py", "return not all(_OF_THE_SYSTEM", "return False and all(_OF_THE_SYSTEM",
                             LOADER + "test_a_known_name_in_a_foreign_directory_is_an_impostor"),
    "preload-talk": Case("cache/host/loader.py", "if any(map(_TALK", "if False and any(map(_TALK",
                         LOADER + "test_what_makes_a_preloaded_library_write_is_refused"),
    "owner": Case(OWNER, "if status.st_uid in own or", "if True or",
                  OWNERS + "test_what_another_user_owns_is_refused"),
    "owner-of-links": Case(OWNER, "yield path, status", "if not stat.S_ISLNK(status.st_mode): yield path, status",
                           OWNERS + "test_a_link_of_another_user_and_a_link_through_their_directory_are_refused"),
    "owner-unmapped": Case(OWNER, "and path != str(place)", "",
                           OWNERS + "test_an_owner_without_a_number_counts_as_root_on_the_way_only"),
    "owner-at-start": Case("daemon/spawn.py", "refuse_foreign_owner(paths, os.environ)", "pass",
                           "tests/unit/daemon/test_spawn.py::test_no_log_is_written_in_a_directory_of_another_user"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
