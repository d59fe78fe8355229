"""Each check of a back end of ThinLTO is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TESTS = "tests/integration/cache/test_thinlto.py::"
PRODUCT = "tests/unit/compilers/gnu/test_product.py::"
UNIT = "tests/unit/compilers/scan/test_bitcode.py::"
OWN = "cache/inputs/own_text.py"
OTHER_FORMS = TESTS + "test_other_forms_run_unchanged[clang-19]"

CASES = {
    "imports": Case(OWN, "        names += (absolute(prepared.cwd, name) for name in found)\n", "",
                    TESTS + "test_a_back_end_is_a_cached_compile[clang-19]"),
    "missing": Case(OWN, "            raise UncacheableError(UncacheableReason.INPUT_VANISHED, path)\n        if memo.derived",
                    "            continue\n        if memo.derived",
                    TESTS + "test_a_missing_module_is_never_kept[clang-19]"),
    "assembler": Case(OWN, "may_direct_assembler) is not False:", "may_direct_assembler) is None:",
                      TESTS + "test_a_module_that_may_read_a_file_is_not_kept[clang-19]"),
    "odd-index": Case(OWN, "raise UncacheableError(UncacheableReason.THINLTO_INDEX, path)", "found = ()",
                      TESTS + "test_an_index_that_cannot_be_read_is_not_kept[clang-19]"),
    "message": Case("cache/results/pending.py", "if is_back_end and pending.messages:", "if False:",
                    TESTS + "test_a_message_is_never_kept[clang-19]"),
    "private": Case("compilers/gnu/invocation.py", "Product.BACK_END if is_back_end else Product.OBJECT", "Product.OBJECT",
                    PRODUCT + "test_only_objects_leave_their_checkout"),
    "flags": Case("compilers/spec/back_end.py", " and all(map(_is_known, flags))", "", OTHER_FORMS),
    "one-index": Case("compilers/spec/back_end.py", " and len(indexes) <= 1", "", OTHER_FORMS),
    "not-bitcode": Case("compilers/gnu/invocation.py", "refusal = refusal or BypassReason.THINLTO_BACKEND", "pass", OTHER_FORMS),
    "version": Case("compilers/invocation/side.py", "is_back_end and not (is_clang and major in BACK_ENDS_OF_CLANG)", "False",
                    OTHER_FORMS),
    "cut-off": Case("compilers/scan/bitcode.py", "tuple(names) if has_table else None", "tuple(names)",
                    UNIT + "test_an_index_that_is_cut_off_is_none"),
    "array": Case("compilers/scan/bitcode.py", "if left != 2 or not operands[-1].kind:", "if left != 2:",
                  UNIT + "test_an_array_of_literals_takes_no_memory"),
    "symbol": Case("compilers/scan/bitcode.py", "symbols is None or any(_may_begin_directive(name) for name in symbols)",
                   "symbols is None", UNIT + "test_the_name_of_a_symbol_may_begin_a_directive"),
    "no-names": Case("compilers/scan/bitcode.py", "    if not modules or versions != modules or len(tables) != 1:\n", "    if len(tables) != 1:\n",
                     UNIT + "test_a_module_whose_names_are_elsewhere_may_direct_the_assembler"),
    "other-form": Case("compilers/scan/bitcode.py", " or record[1] in blocks", "",
                       UNIT + "test_a_module_whose_names_are_elsewhere_may_direct_the_assembler"),
    "every-bit": Case("compilers/scan/bitcode.py", "for word in _WORDS for shift in range(8)", "for word in _WORDS for shift in (0, 4)",
                      UNIT + "test_a_directive_is_found_at_every_bit"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
