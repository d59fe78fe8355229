"""The tests of replayed hits prove something: each fails against a source without one check.

The cases work as in test_hostile_tests_notice.py. The C library is built from the copy, too.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

CHECKS = "tests/contract/test_replay_contract.py"
OUTPUTS = "tests/contract/test_replay_outputs_contract.py"
TALK = "tests/contract/test_replay_talk_contract.py"
MODEL = "tests/property/test_replay_model.py"
FUZZ = "tests/fuzz/test_replay_corpus.py"
REAL = "tests/integration/cache/test_cache_replay.py"
LACKS = "tests/contract/test_replay_lacks_contract.py"
C, NAMES, PINS, HITS, TWIN, FILES = (
    "native/replay.c",
    "native/names.h",
    "cache/replay/replay.py",
    "cache/results/hits.py",
    "cache/replay/python_engine.py",
    "cache/base/outputs.py",
)


CASES = {
    # ---- what is compared and written ----
    "ctime": Case(
        C,
        " && v[4] == nanoseconds(st->st_ctim)",
        "",
        f"{CHECKS}::test_an_edit_of_the_same_size_whose_mtime_was_put_back_is_seen",
    ),
    "absent-names-of-another-state": Case(
        "cache/base/files.py",
        "self._absent.get(asked) == signature",
        "asked in self._absent",
        "tests/unit/cache/base/test_absent_names.py"
        "::test_names_are_looked_up_once_for_each_state_of_their_directory",
    ),
    "inode": Case(
        C, " || v[1] != st->st_ino", "", f"{CHECKS}::test_each_field_of_a_state_is_compared"
    ),
    "dangling-link": Case(
        NAMES,
        "fstatat(directory, name, &st, AT_SYMLINK_NOFOLLOW)",
        "fstatat(directory, name, &st, 0)",
        f"{CHECKS}::test_a_link_that_leads_nowhere_is_neither_absent_nor_present",
    ),
    "not-told-is-not-absent": Case(
        NAMES,
        " && is_missing(errno);",
        ";",
        f"{CHECKS}::test_a_directory_that_may_not_be_searched_cannot_be_told",
    ),
    "default-acl": Case(
        C,
        "keeps_mode && !is_new ? NO : has_default_acl(path);",
        "NO;",
        f"{OUTPUTS}::test_an_object_in_a_directory_with_a_default_acl_is_for_no_more_people"
        "_than_the_compilers",
    ),
    "default-acl-twin": Case(
        FILES,
        "if is_new or not output.keeps_mode:",
        "if False:",
        f"{OUTPUTS}::test_an_object_in_a_directory_with_a_default_acl_is_for_no_more_people"
        "_than_the_compilers",
    ),
    "link-count": Case(
        C,
        "st->st_nlink == 1 && ",
        "",
        f"{OUTPUTS}::test_what_is_not_a_plain_file_of_ours_is_left_to_the_compiler",
    ),
    "source": Case(
        C,
        "!(st->st_dev == placing->source_device && st->st_ino == placing->source_inode)",
        "true",
        f"{OUTPUTS}::test_the_source_under_another_name_is_never_overwritten",
    ),
    "all-or-nothing": Case(
        C,
        "unlink(placing->touched[i]);",
        "continue;",
        f"{OUTPUTS}::test_where_nothing_can_be_made_the_compiler_says_so",
    ),
    "cut": Case(
        C,
        "return !ftruncate(fd, (off_t)bytes);",
        "return true;",
        f"{OUTPUTS}::test_an_old_file_is_overwritten_in_place",
    ),
    "looked-at-before-it-is-opened": Case(
        C,
        "if (is_new ? errno != ENOENT : !is_ours(&st, placing)) return false;",
        "",
        f"{OUTPUTS}::test_who_waits_at_a_fifo_is_not_woken",
    ),
    "peer": Case(
        C, " || peer.uid != uid", "", f"{TALK}::test_a_peer_of_another_user_is_turned_away"
    ),
    "end-of-plan": Case(
        C,
        "r->is_bad || bytes > (uint64_t)(r->end - r->at)",
        "r->is_bad",
        f"{FUZZ}::test_no_plan_makes_the_library_read_or_touch_what_it_may_not",
    ),
    "end-of-string": Case(
        C,
        "if (p && (p[bytes] || memchr(p, 0, bytes))) r->is_bad = true;",
        "",
        f"{FUZZ}::test_no_plan_makes_the_library_read_or_touch_what_it_may_not",
    ),
    "new-file-mode": Case(
        C,
        "if (is_done && is_listed == NO && (is_new || (",
        "if (is_done && is_listed == NO && ((",
        f"{OUTPUTS}::test_the_umask_of_the_process_has_no_say",
    ),
    "twin-kind": Case(
        TWIN,
        "os.lstat(check.path)",
        "os.stat(check.path)",
        f"{CHECKS}::test_a_link_that_leads_nowhere_is_neither_absent_nor_present",
    ),
    "twin-links": Case(
        FILES,
        "        and status.st_nlink == 1\n",
        "",
        f"{OUTPUTS}::test_what_is_not_a_plain_file_of_ours_is_left_to_the_compiler",
    ),
    "read-names": Case(
        NAMES,
        "if (answer != NO) return answer;",
        "",
        f"{LACKS}::test_each_of_the_names_is_seen_whatever_it_is",
    ),
    "names-in-other-case": Case(
        NAMES,
        "is_alike(name, entry) && !is_absent(directory, name)",
        "is_alike(name, entry)",
        f"{LACKS}::test_names_that_are_nearly_there_are_absent",
    ),
    "entries-beyond-ascii": Case(
        NAMES,
        "if (high & HIGH_BITS) return CANNOT_TELL;",
        "",
        f"{FUZZ}::test_no_plan_makes_the_library_read_or_touch_what_it_may_not",
    ),
    "file-systems-that-list-all": Case(
        NAMES,
        " && can_be_read(directory)",
        "",
        f"{FUZZ}::test_no_plan_makes_the_library_read_or_touch_what_it_may_not",
    ),
    "slots-beyond-text": Case(
        NAMES,
        "if (at > names->text_bytes) return CANNOT_TELL;",
        "",
        f"{FUZZ}::test_no_plan_makes_the_library_read_or_touch_what_it_may_not",
    ),
    "records-beyond-what-was-read": Case(
        NAMES,
        " || length > n - at",
        "",
        f"{FUZZ}::test_no_plan_makes_the_library_read_or_touch_what_it_may_not",
    ),
    "state-of-a-directory": Case(
        C,
        " && is_same(check, &st))",
        ")",
        f"{LACKS}::test_a_directory_as_it_was_needs_no_other_look",
    ),
    "state-of-a-file": Case(
        C,
        "S_ISDIR(st.st_mode) && is_same",
        "is_same",
        f"{LACKS}::test_a_file_whose_state_was_recorded_is_no_directory",
    ),
    "twin-state-of-a-file": Case(
        TWIN,
        "    if not stat.S_ISDIR(status.st_mode):\n        return False\n",
        "",
        f"{LACKS}::test_a_file_whose_state_was_recorded_is_no_directory",
    ),
    "search-directory-that-is-closed": Case(
        C,
        "if (fd < 0) fd = openat(directory, path, O_PATH | O_DIRECTORY | O_CLOEXEC);",
        "",
        f"{LACKS}::test_in_a_directory_that_cannot_be_read_names_are_asked_for",
    ),
    # ---- what is pinned ----
    "pins-headers": Case(
        PINS,
        "        self.files(inputs.files)\n",
        "",
        f"{REAL}::test_after_a_change_the_next_compile_is_right[header-of-same-size-and-mtime-native]",
    ),
    "pins-absent-by-directory": Case(
        PINS,
        "self._add(Check(CheckKind.STATE, absence.directory, absence.signature))",
        "pass",
        f"{REAL}::test_after_a_change_the_next_compile_is_right[header-earlier-native]",
    ),
    "pins-absent-by-name": Case(
        PINS,
        "self._add(Check(CheckKind.LACKS, directory, signature or (), listed))",
        "pass",
        f"{REAL}::test_a_name_that_appears_where_every_compile_leaves_something_is_seen[native]",
    ),
    "pins-compiler": Case(
        "cache/host/evidence.py",
        "        pins.files(self.files)\n",
        "",
        f"{REAL}::test_a_driver_that_is_overwritten_is_another[native]",
    ),
    "pins-programs-that-appear": Case(
        "cache/host/evidence.py",
        "        pins.absent(self.absent)\n",
        "",
        f"{REAL}::test_an_assembler_that_appears_earlier_on_the_path_is_used[native]",
    ),
    "pins-epoch": Case(
        HITS,
        "            self._results.pin_epoch(pins)\n",
        "",
        f"{REAL}::test_what_happens_to_the_store_and_the_daemon[native]",
    ),
    "pins-farm": Case(
        HITS,
        "            self._pin_farm(pins, outcome)\n",
        "",
        f"{REAL}::test_what_happens_to_the_store_and_the_daemon[native]",
    ),
    "response-files": Case(
        HITS,
        "if prepared.replay_ok and prepared.request.frame:",
        "if prepared.request.frame:",
        f"{REAL}::test_a_response_file_is_read_each_time[native]",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
