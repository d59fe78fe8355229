"""Each check of a command that makes no object is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

SYNTAX = "tests/integration/cache/test_syntax_only.py::"
PRINTED = "tests/integration/cache/test_printed_text.py::"
TEXT = "tests/integration/cache/test_preprocessed_text.py::"
CLOCKS = "tests/integration/cache/test_clocks.py::"
UNIT = "tests/unit/compilers/gnu/test_product.py::"
PRODUCT = "compilers/gnu/product.py"

CASES = {
    "content": Case("compilers/invocation/content.py", " or invocation.product is not Product.OBJECT", "",
                    UNIT + "test_only_objects_leave_their_checkout"),
    "share": Case("compilers/invocation/share.py", "invocation.product is Product.OBJECT and ", "",
                  UNIT + "test_only_objects_leave_their_checkout"),
    "farm": Case("cache/cache.py", "if self._farm is not None and is_long:", "if self._farm is not None:",
                 SYNTAX + "test_with_a_farm_a_check_stays_here"),
    "several": Case("cache/several.py", "        and prepared.invocation.product is Product.OBJECT\n", "",
                    SYNTAX + "test_other_forms_run_unchanged[gcc-14]"),
    "negated": Case(PRODUCT, "        and not any(other.fullmatch(flag.raw[0]) for flag in flags)\n", "",
                    SYNTAX + "test_other_forms_run_unchanged[gcc-14]"),
    "mode-of-text": Case("compilers/invocation/side.py", "output_keeps_mode=not is_clang, side=()", "output_keeps_mode=False, side=()",
                         TEXT + "test_text_is_a_cached_compile[gcc-14]"),
    "shown": Case("compilers/gnu/headers.py", "            Effect.SHOWN,\n", "",
                  TEXT + "test_a_clock_in_the_text_is_not_kept[gcc-14]"),
    "clock-of-an-object": Case("cache/results/pending.py", "Hazard.PASTED_CLOCK if pending.has_clock else Hazard.NONE", "Hazard.NONE",
                               CLOCKS + "test_a_clock_that_the_scan_did_not_find_shows_in_the_preprocessors_output"),
    "clock-in-a-pragma": Case("cache/inputs/clocks.py", 'if b"pragma" in expanded and _PARSED.search(expanded):', "if False:",
                              CLOCKS + "test_a_clock_in_a_pragma_that_only_the_parser_expands_is_not_kept"),
    "leap-seconds": Case("cache/inputs/embedded_files.py", ", variables=_NO_LEAP_SECONDS", "",
                         CLOCKS + "test_a_clock_in_a_zone_with_other_seconds_is_not_kept[gcc]"),
    "printed": Case("compilers/gnu/invocation.py", " or is_printed else output", " else output",
                    PRINTED + "test_printed_text_is_cached[gcc-14]"),
    "depfile-of-text": Case(PRODUCT, '        and ("-MF" in spellings or "-c" in spellings or', "        and (True or",
                            PRINTED + "test_other_forms_run_unchanged[gcc-14]"),
    "text-is-no-message": Case("cache/local.py", "stderr if prints_text else ", "",
                               PRINTED + "test_text_that_looks_like_a_message_is_none"),
    "long-text": Case("cache/local.py", "        if report.is_truncated:\n", "        if False:\n",
                      PRINTED + "test_what_is_not_kept_is_printed_whole[gcc-14]"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
