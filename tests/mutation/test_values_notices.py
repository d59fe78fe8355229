"""Each check that lets a macro have another value is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

EDITS, VALUES = "cache/content/edits.py", "cache/content/values.py"
TEST = "tests/integration/content/test_content_values.py::"
UNIT = "tests/unit/cache/content/test_values.py::"

CASES = {
    "read": Case(EDITS, "return not texts.are_read(prepared, self._names)", "return True",
                 TEST + "test_a_source_that_reads_it_is_compiled[gcc]"),
    "debug": Case(EDITS, "if shows_macros(prepared.invocation) or", "if",
                  TEST + "test_what_shows_or_names_macros_compiles[-g3]"),
    "two": Case(EDITS, "if names is None or names & self._names:", "if names is None:",
                TEST + "test_two_headers_that_define_a_macro_are_compared"),
    "own-lines": Case("cache/content/macros.py", "without = self.edited.get(path, frozenset())",
                      "without = frozenset().union(*self.edited.values()) if path in self.edited else frozenset()",
                      TEST + "test_two_headers_that_define_a_macro_are_compared"),
    "twice": Case(VALUES, "return found if found and is_once else None", "return found or None",
                  UNIT + "test_a_name_with_two_definitions_may_not_change"),
    "mark": Case(VALUES, 'rb"\\1" + _MARK', 'rb"\\1"', UNIT + "test_a_value_does_not_trade_places_with_an_empty_one"),
    "messages": Case("cache/results/contents.py", " or edits.are_named(result.stderr)", "",
                     TEST + "test_a_warning_that_names_the_header_is_made_again"),
    "joined": Case(VALUES, " or _JOINED.search(text)", "", UNIT + "test_other_texts_have_none"),
    "rest": Case(VALUES, "if (self.rest, self.names) != (other.rest, other.names):", "if self.names != other.names:",
                 UNIT + "test_plain_definitions_are_found_and_the_rest_is_compared"),
    "unclear": Case("cache/content/macros.py", "comment_free(text, mode)", "comment_free(text.replace(b'\"', b' '), mode)",
                    "tests/unit/cache/content/test_macros.py::test_a_word_counts_where_comments_are_unclear"),
    "dollar": Case("cache/content/macros.py", '_WORD: Final = rb"A-Za-z0-9_"', '_WORD: Final = rb"A-Za-z0-9_$"',
                   "tests/unit/cache/content/test_macros.py::test_only_whole_words_of_code_count"),
    "wrapped": Case("cache/content/macros.py", '_WRAPPED.sub(b", ", plain)', "plain",
                    TEST + "test_what_a_line_shows_in_other_ways_is_compiled"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
