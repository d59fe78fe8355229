"""Each check that lets a user's prefix maps stand for a place is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

MAPS, FORM = "cache/content/maps.py", "compilers/invocation/content.py"
TEST = "tests/integration/content/test_content_maps.py::"
FLAGS = "tests/integration/content/test_content_flags.py::"
UNIT = "tests/unit/cache/content/test_maps.py::"
LINE = (
    TEST
    + 'test_a_line_directive_with_the_name_of_one_clone_misses[#line 5 "{place}/gen.y"-True-gcc]'
)

CASES = {
    "above": Case(MAPS, " and place not in outside", "", UNIT + "test_a_map_from_above_replaces_no_place_in_macros"),
    "pretty": Case(FORM, "is_clang and major < MAPPED_CLANG", "False",
                   TEST + "test_the_size_of_a_name_in_the_pretty_name_of_a_function[flags1-clang-14]"),
    "shared": Case("compilers/invocation/share.py", "    if shows_names and any(", "    if False and any(",
                   "tests/integration/sharing/test_share_flag_sets.py::test_the_size_of_a_pretty_name_is_that_of_the_own_clone[p.cc-clang-14-build-abs]"),
    "turned": Case("cache/content/key.py", "            and _spelled_directory(request) == self.spelled_cwd\n", "",
                   TEST + "test_a_link_that_leads_here_during_the_compile_is_noticed[gcc]"),
    "rests": Case(MAPS, " if rests.get(mark) == others.get(mark)", "",
                  UNIT + "test_without_debug_information_the_rest_of_a_name_counts_where_one_shows"),
    "directory": Case(MAPS, "    if not _meets(written, _OF_DEBUG, places.cwd):\n", "    if False:\n",
                      UNIT + "test_the_root_as_working_directory_shows_behind_a_map_with_a_slash"),
    "beginnings": Case(MAPS, "    if form.names_directory:\n        fields", "    if False:\n        fields",
                       UNIT + "test_a_name_that_another_places_map_meets_is_in_the_key"),
    "beside": Case(MAPS, "path.startswith(places) if marked == path", "False if marked == path",
                   TEST + "test_a_header_beside_the_clone_whose_name_begins_like_it_misses[flags0-gcc]"),
    "begins": Case(MAPS, "else _begin_like_a_place(marked, one, other)", "else False",
                   TEST + "test_a_header_whose_directory_begins_like_the_build_directory_misses[True-gcc]"),
    "sources": Case(MAPS, "    return not any(name_place(files, place) for place in places)\n", "    return True\n", LINE),
    "hidden": Case(MAPS, '    if any(memo.derived(p, d, "hidden-lines", hides_line_names) is not False for p, d in files):\n', "    if False:\n",
                   TEST + 'test_a_line_directive_with_the_name_of_one_clone_misses[#line 5 "{octal}/gen.y"-True-gcc]'),
    "split": Case(MAPS, " or rest not in plain", "", UNIT + "test_a_directive_that_may_hide_a_name_is_found"),
    "other": Case(FORM, "    if is_other or is_unmapped:", "    if is_unmapped:",
                  TEST + "test_a_second_clone_misses_where_a_name_may_show[flags7-gcc]"),
    "spelled": Case(MAPS, "    if not form.maps or spelled_cwd:\n", "    if not form.maps:\n",
                    UNIT + "test_what_a_map_writes_and_where_nothing_is_known_is_text"),
    "analyzer": Case(FORM, ', b"-fanalyzer"})', "})", FLAGS + "test_the_analyzer_reads_macros_that_no_file_reads"),
    "bitcode": Case(FORM, " or is_bitcode or part.spec.spelling in _OF_LLVM", "",
                    FLAGS + "test_an_object_that_holds_names_hits_for_another_output_only[clang-19 a.c -mllvm -inline-threshold=3]"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
