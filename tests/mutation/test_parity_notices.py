"""Each check of reported compilers, of hosts and of guests, is needed: without it, its test fails.

The cases work as in test_identity_notices.py.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

UNIT = "tests/unit/compilers/test_probe.py::"
GUEST = "tests/unit/images/test_toolchains.py::"
SURVEY = "tests/unit/images/test_survey.py::"
FARM = "tests/integration/test_parity_farm.py::"
CACHE = "tests/integration/cache/test_cache_parity.py::"


CASES = {
    "description": Case(
        "core/toolchain.py", "if not is_good:", "if False:",
        UNIT + "test_a_description_that_could_mislead_or_fill_is_refused",
    ),
    "descriptions": Case(
        "core/toolchain.py", "or len(content) > MAX_TOOLCHAINS:", "or False:",
        UNIT + "test_descriptions_without_end_are_refused",
    ),
    "terminal": Case(
        "compilers/probe.py", 'c if c.isascii() and c.isprintable() else "?"', "c",
        UNIT + "test_escapes_in_an_answer_do_not_reach_a_terminal",
    ),
    "guest-output": Case(
        "images/toolchains.py", "if path != _OUTPUT:", "if False:",
        GUEST + "test_a_guest_that_sends_more_than_it_was_asked_for_is_given_up",
    ),
    "guest-bytes": Case(
        "images/toolchains.py", "if len(sink) + len(data) > room:", "if False:",
        GUEST + "test_a_guest_that_sends_more_than_it_was_asked_for_is_given_up",
    ),
    "guest-names": Case(
        "images/toolchains.py", "programs = listed[:MAX_TOOLCHAINS]", "programs = listed",
        GUEST + "test_a_listing_without_end_starts_few_programs",
    ),
    "windows-names": Case(
        "images/toolchains.py", "enumerate(paths[:_MAX_PATHS], start=1)", "enumerate(paths, start=1)",
        GUEST + "test_a_guest_with_windows_and_no_end_of_compilers",
    ),
    "windows-paths": Case(
        "compilers/windows_probe.py", "for line in lines if _PATH.fullmatch(line)}", "for line in lines}",
        GUEST + "test_odd_lines_of_a_guest_with_windows_are_no_programs",
    ),
    "windows-one-of-many": Case(
        "core/parity.py", "there = choose(named, key=lambda t: _likeness(host, t), default=None)", "there = next(iter(named), None)",
        "tests/integration/msvc/test_cl_on_windows_client.py::test_a_policy_of_equal_compilers_keeps_others_here",
    ),
    "partial-answer": Case(
        "images/kept_answers.py", "if survey.is_understood:", "if survey.compilers:",
        SURVEY + "test_what_is_not_understood_is_kept_for_people_and_asked_again",
    ),
    "no-compiler": Case(
        "images/kept_answers.py", "if survey.is_understood:", "if survey.is_complete:",
        SURVEY + "test_what_is_not_understood_is_kept_for_people_and_asked_again",
    ),
    "empty-list": Case(
        "images/toolchains.py", 'toolchains_of(table["compilers"]) or None', 'toolchains_of(table["compilers"])',
        SURVEY + "test_a_file_of_an_earlier_release_is_asked_again",
    ),
    "late-compiler": Case(
        "images/toolchains.py", "if answer.why_none:\n        return SurveyAnswer(name", "if False:\n        return SurveyAnswer(name",
        SURVEY + "test_one_question_without_an_answer_is_not_an_absent_compiler",
    ),
    "foreign-image": Case(
        "scheduler/service.py", "if host is not None and policy.allows(host.image):",
        "if host is not None:",
        FARM + "test_nothing_is_said_of_an_image_that_the_tenant_may_not_use",
    ),
    "stale-hit": Case(
        "cache/farm.py", "self._stored(job, farm, session) if parity.serves_stored else None",
        "self._stored(job, farm, session)",
        CACHE + "test_results_of_the_image_are_not_served_where_its_compiler_is_refused",
    ),
    "other-farm": Case(
        "dispatch/farm_files.py", "session is not None and session.is_of(farm)", "session is not None",
        CACHE + "test_a_session_of_another_farm_says_nothing",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
