"""Each check of what goes to a collector is needed: without it, its test fails.

A case fails, too, if its text is no longer in the source: the check moved, so the case must move
with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TARGET = "tests/unit/obs/otlp/test_target.py::"
QUEUE = "tests/unit/obs/otlp/test_export.py::"
SPANS = "tests/unit/cache/recorder/test_spans.py::"

CASES = {
    "otlp-loopback": Case(
        "core/endpoints.py",
        "if is_plain and not is_loopback(host):",
        "if False:",
        TARGET + "test_a_wrong_address_is_refused",
    ),
    "otlp-headers": Case(
        "obs/receiver_files.py",
        "if not access.is_regular or not access.is_private:",
        "if False:",
        TARGET + "test_headers_that_others_can_read_or_replace_are_not_used",
    ),
    "otlp-queue": Case(
        "obs/otlp/export.py",
        "if len(self._waiting) >= MAX_WAITING:",
        "if False:",
        QUEUE + "test_what_has_no_place_is_counted_and_the_next_one_tells",
    ),
    "otlp-names": Case(
        "cache/recorder/spans.py",
        "    if names:",
        "    if True:",
        SPANS + "test_names_of_files_are_sent_only_when_asked_for",
    ),
    "otlp-words": Case(
        "cache/recorder/spans.py",
        "return word if _WORD.fullmatch(word) else _UNKNOWN_WORD",
        "return word",
        SPANS + "test_hostile_texts_are_words_or_one_line",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
