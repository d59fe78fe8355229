"""Each check of a run of cppcheck is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

CPPCHECK = "tests/integration/cache/test_cppcheck.py::"
EDITS = CPPCHECK + "test_each_edit_that_can_change_findings_is_a_miss"
DOUBTS = CPPCHECK + "test_what_is_not_certain_is_not_kept"
DIRECTORIES = CPPCHECK + "test_directories_of_headers_are_inputs"
TEXTS = "tests/unit/compilers/cppcheck/test_cppcheck_text.py::"
OPAQUE = TEXTS + "test_other_texts_are_opaque"
COMMANDS = "tests/unit/compilers/cppcheck/test_cppcheck_command.py::"
NAMES = "cache/inputs/own_text.py"
TEXT = "compilers/cppcheck/text.py"

CASES = {
    "beside": Case(NAMES, "(home, *directories) if is_quoted", "directories if is_quoted", EDITS),
    "opaque": Case(NAMES, "            if found.is_opaque:\n", "            if False:\n", DOUBTS),
    "clock": Case(NAMES, "        if found.scan.hazards & _CLOCKS:\n", "        if False:\n", DOUBTS),
    "library": Case(NAMES, "            if more:\n", "            if False:\n", DOUBTS),
    "removed": Case("cache/results/config_files.py", "        _check_absent(absent, pending.watch, started_ns)", "        pass",
                    CPPCHECK + "test_a_header_that_is_removed_once_it_was_read_is_not_kept"),
    "given-up": Case("cache/results/config_files.py", "            raise UncacheableError(UncacheableReason.ANALYSER_FAILED)", "            pass",
                     CPPCHECK + "test_a_check_that_was_given_up_is_not_kept"),
    "directory": Case(NAMES, "            if os.path.isdir(path):\n", "            if False:\n", DIRECTORIES),
    "search": Case(NAMES, "(absolute(cwd, d) for d in unlisted.directories)", "()", DIRECTORIES),
    "first-of-line": Case(TEXT, " or _ENDS.search(line):", ":",
                          TEXTS + "test_names_of_a_certain_text"),
    "spliced": Case(TEXT, "return NamesInText(found.names | more.names, found", "return NamesInText(found.names, found",
                    TEXTS + "test_names_of_a_certain_text"),
    "unspliced": Case(TEXT, "    found = _read(text)\n", "    found = NamesInText(frozenset(), False)\n",
                      TEXTS + "test_names_of_a_certain_text"),
    "piece": Case(TEXT, "(OF_QUESTION, _PIECE, _ODD_RAW)", "(OF_QUESTION, _ODD_RAW)", OPAQUE),
    "question-piece": Case(TEXT, "(OF_QUESTION, _PIECE, _ODD_RAW)", "(_PIECE, _ODD_RAW)", OPAQUE),
    "raw": Case(TEXT, "(OF_QUESTION, _PIECE, _ODD_RAW)", "(OF_QUESTION, _PIECE)", OPAQUE),
    "mark": Case(TEXT, "{2}", "{9}", OPAQUE),
    "spliced-comment": Case(TEXT, " and _has_spliced_comment(text)", " and False", OPAQUE),
    "condition": Case(TEXT, " and not _is_in_condition(text, match.start())", " and False", OPAQUE),
    "condition-ends": Case(TEXT, " and not _ENDS.search(line)", "", OPAQUE),
    "spliced-string": Case(TEXT, "and _CLOSES.search(line) is not None", "and False",
                           TEXTS + "test_names_of_a_certain_text"),
    "defined-piece": Case("compilers/cppcheck/options.py", " or ANY_PIECE.search(text) is not None", "",
                          COMMANDS + "test_other_forms_are_refused"),
    "library-piece": Case("compilers/cppcheck/family.py", " or ANY_PIECE.search(d[0])", "",
                          COMMANDS + "test_a_library_may_define_no_piece_of_a_clock_or_question"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
