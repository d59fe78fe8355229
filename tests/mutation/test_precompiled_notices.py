"""Each check of a unit that uses a precompiled header is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

GCC = "tests/integration/cache/test_precompiled_headers.py::"
CLANG = "tests/integration/cache/test_precompiled_headers_of_clang.py::"
ASKED = "tests/integration/cache/test_precompiled_headers_and_preprocessors.py::"
UNIT = "tests/unit/cache/inputs/test_closure_precompiled.py::"
CLONES = "tests/integration/sharing/test_share_precompiled.py::"
TEXTS = "tests/unit/compilers/invocation/test_share_texts.py::"
SHARED, CHECK = "cache/results/share_results.py", "cache/results/share_check.py"
CLOSURE, RECORDS = "cache/inputs/closure.py", "cache/results/precompiled.py"

CASES = {
    "files-it-was-made-from": Case(CLOSURE, "            scans |= _texts_of(memo, made, request, plain, scans)", "            _texts_of(memo, made, request, plain, scans)",
                                   GCC + "test_a_macro_in_it_that_reads_the_clock[g++-14]"),
    "stale": Case(CLOSURE, "[0] != its:", "[0] == b\"\":", GCC + "test_a_header_that_changed_since[g++-14]"),
    "computed": Case(CLOSURE, "            _refuse_unlisted(paths, scans)", "            pass",
                     GCC + "test_a_macro_in_it_that_names_a_header[g++-14]"),
    "own-output-of-clang": Case("cache/results/pending.py", "output if is_header and prepared.written.output_keeps_mode else", "output if is_header else",
                                CLANG + "test_an_old_one_that_its_own_making_takes"),
    "same-root": Case(RECORDS, "if found is None or not _reads_root(prepared, path, found):", "if found is None:",
                      GCC + "test_one_of_another_header_than_the_one_beside_it[g++-14]"),
    "same-flags": Case(RECORDS, "        if record.flags != _flags_of_text(prepared):", "        if False:",
                       GCC + "test_a_search_path_that_hides_the_clock_from_the_preprocessor[g++-14]"),
    "same-names": Case(RECORDS, "return bool(states) and all(state.holds(self._memo) for state in states)", "return bool(states)",
                       ASKED + "test_a_header_that_appeared_before_one_in_it[g++-14]"),
    "names-behind-imacros": Case(RECORDS, "return not invocation.values(\"-imacros\")", "return True",
                                 ASKED + "test_macros_of_a_header_that_clang_reads_behind_it"),
    "before-E": Case("cache/inputs/embedded_files.py", "    check()\n", "", ASKED + "test_a_macro_in_it_that_switches_on_a_clock_of_the_unit[g++-14]"),
    "before-M": Case(CLOSURE, "        if request.asks_preprocessor:", "        if False:",
                     ASKED + "test_headers_that_are_listed_by_the_preprocessor[g++-14]"),
    "behind-a-macro": Case("cache/results/files_read.py", "may_begin_with_macro) is False:", "may_begin_with_macro) is not None:",
                           ASKED + "test_a_macro_that_names_the_first_header"),
    "with-its-record": Case("cache/local.py", "            self._precompiled.has_record(prepared, found[0].result.object_data)\n            and ", "            ",
                            ASKED + "test_one_whose_record_was_evicted[g++-14]"),
    "macros-of-its-making": Case(CLOSURE, "        macros = (*request.macros, *(macro for its in made.values() for macro in its.macros))", "        macros = request.macros",
                                 UNIT + "test_a_question_with_a_macro_of_its_making"),
    "no-times": Case("compilers/invocation/side.py", "return PLAIN if invocation.inner.has_no_times else", "return PLAIN if True else",
                     CLANG + "test_one_with_times_is_left_to_the_compiler[clang++-17]"),
    "compared-before-it-counts": Case(SHARED, "if self._is_proved(view.by_origin, files, _made_with(result)):", "if True:",
                                      CLONES + "test_a_difference_ends_the_sharing[g++-14]"),
    "difference": Case(SHARED, "                self._origins.note_different(origin)", "                pass",
                       CLONES + "test_a_difference_ends_the_sharing[g++-14]"),
    "after-a-difference": Case(SHARED, "            counts = counts and self._origins.are_equal(origin, one, other)\n", "",
                               CLONES + "test_a_difference_ends_the_sharing[g++-14]"),
    "origin-of-a-name": Case("cache/results/origins.py", "_key(b\"content\", os.path.realpath(path), digest, root)", "_key(b\"content\", digest, root)",
                             "tests/unit/cache/results/test_origins.py::test_an_origin_belongs_to_a_name_a_content_and_a_checkout"),
    "origin-of-a-clone": Case("cache/results/origins.py", "os.path.realpath(path), digest, root)", "os.path.realpath(path), digest)",
                              CLONES + "test_one_that_another_clone_uses_in_its_place[False-g++-14]"),
    "read-as-data-too": Case(SHARED, "        if not closure.data.isdisjoint(binary):", "        if False:",
                             CLONES + "test_one_that_is_read_as_data_too[clang++-19]"),
    "origin-here": Case(SHARED, "if digest is None or origin not in self._origins.of(path, digest, root):", "if digest is None:",
                        CLONES + "test_a_copy_from_another_clone[g++-14]"),
    "two-others": Case("cache/results/origins.py", "equal if one in equal or other in equal else ()", "equal",
                       "tests/unit/cache/results/test_origins.py::test_two_contents_prove_nothing_about_two_others"),
    "md5-of-a-source": Case(CHECK, "    if any(source.md5 in made.object_data for source in sources_here.values()):", "    if False:",
                            CLONES + "test_the_md5_of_a_source_that_names_the_clone[clang++-19]"),
    "line-in-a-message": Case(CHECK, "    if any(posixpath.basename(path) in made.stderr for path in sources_here):", "    if False:",
                              CLONES + "test_a_message_about_a_source_that_names_the_clone[g++-14]"),
    "include-line-that-is-none": Case("compilers/invocation/share_text.py", "if ROOT_MARK in text or _JOINS_LINES.search(text):", "if ROOT_MARK in text:",
                                      TEXTS + "test_the_root_in_include_lines"),
    "line-directive": Case("compilers/invocation/share_text.py", "    if _RENAMES.search(text):", "    if False:",
                           TEXTS + "test_the_root_in_include_lines"),
    "any-space-joins-lines": Case("compilers/invocation/share_text.py", r"\\[ \t\r\f\v]*\n", r"\\[ \t\r]*\n",
                                  TEXTS + "test_the_root_in_include_lines"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
