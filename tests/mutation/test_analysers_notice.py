"""Each check that keeps a run of an analyser here is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

FARM = "tests/integration/cache/test_analysers_on_a_farm.py::"
STAYS = FARM + "test_what_a_guest_could_judge_otherwise_stays_here"
SHOWS = FARM + "test_a_report_that_shows_the_guest_is_made_here"
FILTERS = "tests/property/test_tidy_filters.py::"
SETTINGS = FILTERS + "test_settings_that_stay"
PLAN, REPORT = "cache/analysers/plan.py", "cache/analysers/report.py"
TEXT = "compilers/tidy/filters.py"

CASES = {
    "prefix": Case(TEXT, "for at in range(len(_PREFIX))", "for at in ()",
                   FILTERS + "test_a_filter_that_travels_matches_alike"),
    "alternatives": Case(TEXT, "return all(_matches_alike(text", "return any(_matches_alike(text",
                         FILTERS + "test_a_filter_that_travels_matches_alike"),
    "all-filters": Case(TEXT, "    if len(filters) != text.count(_KEY):\n", "    if False:\n", SETTINGS),
    "option": Case(TEXT, "    if option := _OPTION.search(text):\n", "    if option := None:\n", SETTINGS),
    "system-headers": Case(TEXT, 'return "SystemHeaders" if _SYSTEM.search(text) else ""', 'return ""', SETTINGS),
    "settings": Case(PLAN, "            if why:\n", "            if False:\n", STAYS + "[such a filter in a file]"),
    "above": Case(PLAN, "            if not is_under(plain, guest.root):\n", "            if False:\n", STAYS + "[a settings file above]"),
    "link": Case(PLAN, "        if os.path.realpath(path) != posixpath.normpath(path):\n", "        if False:\n", STAYS + "[a link]"),
    "word": Case(PLAN, "        self._refuse_words(prepared, guest, closure)\n", "", STAYS + "[the guest's own name]"),
    "elsewhere": Case(PLAN, "        if not is_own and not is_under(", "        if False and not is_under(", STAYS + "[a name elsewhere]"),
    "suppressed": Case("compilers/cppcheck/guest.py", ' or (name == b"--suppress" and b":" in value)', "", STAYS + "[a suppressed file]"),
    "outside": Case(REPORT, "        if not is_under(found[1], guest.root):\n", "        if False:\n",
                    "tests/unit/cache/analysers/test_report.py::test_a_report_that_tells_more_is_not"),
    "user": Case(REPORT, "    if prepared.family.shows_more(messages):\n", "    if False:\n", SHOWS),
    "guard": Case(REPORT, "    if re.search(rb", "    if False and re.search(rb", SHOWS),
    "exact": Case("cache/farm.py", "if is_report and not (parity.is_exact or parity.is_open):", "if False:",
                  FARM + "test_an_image_without_the_same_tool_gets_no_run"),
    "alike": Case("core/parity.py", "return self.is_exact and host.headers == image.headers", "return self.is_exact",
                  "tests/integration/test_parity_farm.py::test_an_analyser_runs_only_in_an_image_with_the_same_tool"),
    "dispatcher": Case("dispatch/compile.py", "if request.needs_exact and not verdict.finding.is_alike:", "if False:",
                       "tests/integration/test_parity_farm.py::test_an_analyser_runs_only_in_an_image_with_the_same_tool"),
    "never": Case("cache/farm.py", 'if farm is None or (is_report and policy.fallback == "never"):', "if farm is None:",
                  FARM + "test_where_no_compile_may_fall_back_an_analyser_runs_here"),
    "apart": Case("rpc/scheduler/toolchain_messages.py", "message.analysers if is_analyser else message.compilers", "message.compilers",
                  "tests/unit/compilers/test_analyser_probe.py::test_an_earlier_client_reads_the_compilers_and_no_analyser"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
