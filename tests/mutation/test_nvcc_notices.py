"""Each check of a command line of nvcc is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

GRAMMAR = "tests/unit/compilers/nvcc/test_nvcc_grammar.py::"
OPTIONS = "compilers/nvcc/options.py"
READING = "compilers/nvcc/invocation.py"

CASES = {
    "shell": Case(OPTIONS, "if not option.value.fullmatch(value) or", "if",
                  GRAMMAR + "test_everything_else_is_refused"),
    "forwarded": Case(OPTIONS, " and name not in _OPTIONS and name not in _REFUSED", "",
                      GRAMMAR + "test_what_is_not_forwarded"),
    "host": Case(OPTIONS, " or _HOST_REFUSED.fullmatch(word)", "", GRAMMAR + "test_everything_else_is_refused"),
    "divided": Case(OPTIONS, 'value.split(b",") if option.is_list else [value]', "[value]",
                    GRAMMAR + "test_values_are_divided_and_stripped_as_nvcc_does"),
    "quoted": Case(READING, "    if not _PLAIN.fullmatch(content):\n        return None\n", "",
                   GRAMMAR + "test_a_response_file_that_may_mean_something_else_is_refused"),
    "chosen": Case(READING, " or not (is_value or _IN_RESPONSE.match(word))", "",
                   GRAMMAR + "test_a_response_file_that_may_mean_something_else_is_refused"),
    "asked": Case(OPTIONS, "_SEARCHED if is_search else option.spec", "option.spec",
                  GRAMMAR + "test_flags_for_the_search_path_are_asked_with_it"),
    "link": Case("cache/results/config_files.py", "    if invocation.product is Product.CUDA:\n", "    if False:\n",
                 "tests/integration/cache/test_nvcc.py::test_where_a_link_on_the_way_to_the_source_leads_is_an_input"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
