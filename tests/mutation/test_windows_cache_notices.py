"""Each check of the local cache on Windows is needed: without it, the test named after it fails.

Every case removes one check from a copy of the tree and runs that test there. A case fails, too, if
its text is no longer in the source: the check moved, so the case must move with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TESTS = "tests/unit/cache/windows/test_inputs.py::"
INPUTS, NAMES = "cache/windows/inputs.py", "compilers/scan/windows_names.py"
DISK, STATE = "cache/windows/disk.py", "cache/windows/state.py"
MADE, KEEPING = "cache/windows/precompiled.py", "cache/windows/keeping.py"
OF_MADE = "tests/unit/cache/windows/test_precompiled.py::"
WRITERS = "windows/writers.py"
KEPT = "tests/unit/cache/windows/test_kept_hits.py::"
DEPFILES = "tests/unit/cache/windows/test_depfiles.py::"
FARM, OF_FARM = (
    "cache/windows/farm_results.py",
    "tests/integration/msvc/test_windows_farm_results.py::",
)
SEVERAL = "tests/unit/cache/windows/test_several.py::"

CASES = {
    "farm-terms": Case(
        FARM,
        "if found is None or not counts_under(found.result, terms):",
        "if found is None:",
        f"{OF_FARM}test_a_result_counts_only_under_terms_that_its_basis_meets",
    ),
    "farm-key": Case(
        FARM,
        "[_KEY_FORMAT, job.key, compiled.key]",
        "[_KEY_FORMAT, compiled.key]",
        f"{OF_FARM}test_another_image_tenant_or_boundary_is_asked",
    ),
    "farm-or-here": Case(
        FARM,
        "key = hashlib.sha256(encode_fields([_KEY_FORMAT, job.key, compiled.key])).digest()",
        "key = compiled.key",
        f"{OF_FARM}test_results_of_the_farm_and_of_this_machine_do_not_mix",
    ),
    "farm-asked-for": Case(
        KEEPING,
        "kept = make_set(key, tuple(files.values()), inputs.present, inputs.absences)",
        "kept = make_set(key, inputs.files, inputs.present, inputs.absences)",
        f"{OF_FARM}test_a_file_that_was_only_asked_for_is_an_input",
    ),
    "farm-link": Case(
        FARM,
        "if is_link or (times is not None and not (times.is_plain and times.links == 1)):",
        "if False:",
        f"{OF_FARM}test_a_link_in_place_of_the_object_is_not_written_through",
    ),
    "marker-state": Case(
        "cache/windows/noting_disk.py",
        "        else:\n            self.times(path, is_at_rest=False)\n",
        "",
        f"{KEPT}test_below_a_marker_the_daemon_is_asked_after_any_change",
    ),
    "real-paths": Case(
        "cache/windows/noting_disk.py",
        "        self.note(real_check(path, found))\n",
        "",
        f"{KEPT}test_below_a_marker_the_daemon_is_asked_after_any_change",
    ),
    "object-of-another-source": Case(
        "cache/windows/several.py",
        "if room < 0 or _reads_one(located[0], written):",
        "if room < 0:",
        f"{SEVERAL}test_an_object_that_is_read_leaves_the_command_to_the_compiler",
    ),
    "flags-for-sharing": Case(
        "cache/windows/several.py",
        "        and asked.injected == each[0].injected\n",
        "",
        f"{SEVERAL}test_sources_that_get_other_flags_for_sharing_are_left_to_the_compiler",
    ),
    "depfile-of-several": Case(
        "cache/windows/several.py",
        "            and compiled.depfile is None  # all would write the same one\n",
        "",
        f"{DEPFILES}test_sources_of_one_command_do_not_share_a_depfile",
    ),
    "depfile-names-the-root": Case(
        "cache/windows/depfiles.py",
        "return None if is_left else _text(marked, data)",
        "return _text(marked, data)",
        f"{DEPFILES}test_a_text_that_cannot_be_marked",
    ),
    "depfile-of-a-launcher": Case(
        "cache/windows/kept_hits.py",
        "writing.disturb(kept.outputs)",
        "writing.disturb(kept.outputs[:1])",
        f"{DEPFILES}test_a_depfile_that_a_launcher_wrote_is_not_that_of_a_running_compile",
    ),
    "depfile-of-a-withdrawn-hit": Case(
        "cache/windows/kept_hits.py",
        "writing.disturb(kept.outputs[1:])",
        "pass",
        f"{DEPFILES}test_a_depfile_that_a_launcher_wrote_is_not_that_of_a_running_compile",
    ),
    "header-of-cl-by-setting": Case(
        KEEPING,
        "if compiled.made is not None and self._why_not_restored(compiled, compiled.made):",
        "if False:",
        f"{OF_MADE}test_with_a_setting_those_of_cl_are_put_back",
    ),
    "mixed-messages": Case(
        "cache/windows/several.py",
        'return None if rest else [b""] * len(several.parts)',
        'return [b""] * len(several.parts)',
        f"{SEVERAL}test_messages_that_belong_to_an_unknown_source_are_not_stored",
    ),
    "at-rest": Case(
        INPUTS,
        "before = disk.times(name, is_at_rest=True)",
        "before = disk.times(name, is_at_rest=False)",
        f"{TESTS}test_a_file_that_is_open_for_writing_is_refused",
    ),
    "times": Case(
        INPUTS,
        "        or after.may_have_changed_since(started_ns)\n",
        "",
        f"{TESTS}test_a_file_that_may_have_changed_since_the_start_is_refused",
    ),
    "no-time-of-a-change": Case(
        DISK,
        "            return True  # FAT",
        "            return False  # FAT",
        f"{TESTS}test_a_file_that_may_have_changed_since_the_start_is_refused",
    ),
    "new-and-unread": Case(
        INPUTS,
        "if times is None or times.may_have_changed_since(self._compiled.started_ns):",
        "if times is None:",
        f"{TESTS}test_a_new_file_that_was_not_read_is_refused",
    ),
    "vanished-names": Case(
        INPUTS,
        "(before is not None and not absent.isdisjoint(before))",
        "False",
        f"{TESTS}test_a_name_that_vanished_from_a_changed_directory_is_refused",
    ),
    "changed-directories": Case(
        INPUTS,
        "if (asks and before is None) or",
        "if",
        f"{TESTS}test_a_name_that_vanished_from_a_changed_directory_is_refused",
    ),
    "wide": Case(
        NAMES,
        'return _OTHER.sub(lambda match: "?" * (len(match[0].encode("utf-16-le")) // 2), folded)',
        "return folded",
        f"{TESTS}test_letters_that_ntfs_may_fold_count_as_equal",
    ),
    "short-names": Case(
        NAMES,
        "    if any(map(is_short_name, words)):\n        raise UnclearNameError\n",
        "",
        f"{TESTS}test_what_no_list_shows_is_refused",
    ),
    "modules": Case(
        INPUTS,
        "if any(text.has_module for text in found):",
        "if False:",
        f"{TESTS}test_what_no_list_shows_is_refused",
    ),
    "twins": Case(
        INPUTS,
        "if self._once and self._state.digest(str(path).encode()) in self._once:",
        "if False:",
        f"{TESTS}test_two_files_of_one_content_that_is_read_once_are_refused",
    ),
    "read-again": Case(
        INPUTS,
        "if disk.times(str(file.path), is_at_rest=False) != file.times:",
        "if False:",
        f"{TESTS}test_a_doubt_is_settled_by_the_preprocessor_or_refuses",
    ),
    "present": Case(
        STATE,
        "all(self._disk.is_directory(path.decode()) is False for path in inputs.present)",
        "True",
        f"{TESTS}test_a_file_that_was_there_and_not_read_must_stay",
    ),
    "absent": Case(
        STATE,
        "            and all(map(self._lacks, inputs.absences))\n",
        "",
        f"{TESTS}test_it_does_not_hold_when_a_header_appears_in_an_earlier_directory",
    ),
    "behind-a-macro": Case(
        INPUTS,
        "            quoted |= names_below(path, every.values())\n",
        "            pass\n",
        f"{TESTS}test_a_file_behind_a_macro_is_looked_for_by_its_name",
    ),
    "precompiled-flags": Case(
        MADE,
        "if flags != _flags_of_text(compiled) or key_of(self._root(compiled, search)) != root:",
        "if False:",
        f"{OF_MADE}test_other_flags_or_text_before_it_refuse_the_result",
    ),
    "precompiled-state": Case(
        MADE,
        "if not state.holds(made):",
        "if False:",
        f"{OF_MADE}test_a_header_that_appears_in_an_earlier_directory_refuses_the_users",
    ),
    "precompiled-texts": Case(
        KEEPING,
        "    return listed + used.texts\n",
        "    return listed\n",
        f"{OF_MADE}test_every_text_in_it_is_an_input_of_its_users",
    ),
    "precompiled-file": Case(
        KEEPING,
        "data=(used.path,) if used else (),",
        "data=(),",
        f"{OF_MADE}test_one_that_was_written_during_the_compile_refuses_the_result",
    ),
    "precompiled-times": Case(
        KEEPING,
        "return UncacheableReason.PCH_TIMESTAMP if made.has_times else None",
        "return None",
        f"{OF_MADE}test_one_with_times_is_made_each_time_and_its_users_are_cached",
    ),
    "precompiled-record": Case(
        KEEPING,
        "return all(self._precompiled.has_record(compiled, data) for data in result.side)",
        "return True",
        f"{OF_MADE}test_a_record_that_is_gone_keeps_the_stored_header_away",
    ),
    "owner-of-a-program": Case(
        WRITERS,
        "{*allowed, owner}",
        "{*allowed}",
        "tests/unit/windows/test_writers.py::test_an_owner_may_change_the_list_and_no_list_is_everyones",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
