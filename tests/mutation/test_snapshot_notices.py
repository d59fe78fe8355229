"""Each check of a snapshot is needed: without it, the test named after the damage fails.

Every case removes one check from a copy of the tree and runs that test there. A case fails, too, if
its text is no longer in the source: the check moved, so the case must move with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TESTS = "tests/unit/runtime/vm/test_snapshots.py::"
STORE, FILES = "runtime/vm/snapshot_store.py", "runtime/vm/snapshot_files.py"


CASES = {
    "digest": Case(
        STORE,
        'if digests != (record["memory_digest"], record["state_digest"]):',
        "if False:",
        f"{TESTS}test_one_changed_byte_ends_a_snapshot",
    ),
    "pin": Case(
        STORE,
        "if known is not None and known[1] == pins:",
        "if known is not None:",
        f"{TESTS}test_one_changed_byte_ends_a_snapshot",
    ),
    "writable": Case(
        STORE,
        "if any(p.owner != os.geteuid() or p.mode & 0o222 for p in pins):",
        "if False:",
        f"{TESTS}test_a_snapshot_that_is_not_whole_is_removed",
    ),
    "memory-size": Case(
        STORE,
        "if saved.memory.lstat().st_size != memory_bytes:",
        "if False:",
        f"{TESTS}test_memory_of_another_size_is_refused",
    ),
    "regular-file": Case(
        FILES,
        "if not stat.S_ISREG(status.st_mode) or status.st_size > max_bytes:",
        "if False:",
        f"{TESTS}test_only_a_regular_file_of_the_right_size_is_sealed",
    ),
    "links": Case(
        FILES,
        "os.O_RDONLY | os.O_NOFOLLOW |",
        "os.O_RDONLY |",
        f"{TESTS}test_only_a_regular_file_of_the_right_size_is_sealed",
    ),
    "reseed": Case(
        "agent/linux/machine.py",
        "fcntl.ioctl(device, _RNDRESEEDCRNG)",
        "pass",
        "tests/unit/agent/base/test_first_exec.py::test_time_and_entropy_come_before_anything_runs",
    ),
    "tries": Case(
        "runtime/vm/warm.py",
        "if self._making or self._is_given_up(key):",
        "if self._making:",
        f"{TESTS}test_a_failed_restore_is_a_boot_and_is_not_tried_for_ever",
    ),
    "owner": Case(
        STORE,
        "p.owner != os.geteuid() or p.mode & 0o222",
        "p.mode & 0o222",
        f"{TESTS}test_a_snapshot_of_another_user_is_not_used",
    ),
    "stopped": Case(
        STORE,
        "        except InterruptedError:\n            raise\n",
        "",
        f"{TESTS}test_who_asks_to_stop_is_told_so_and_the_snapshot_stays",
    ),
    "find-missing-file": Case(
        STORE,
        "except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:",
        "except (IntegrityError, ValueError, KeyError, TypeError) as error:",
        f"{TESTS}test_a_snapshot_without_one_of_its_files_is_removed",
    ),
    "find-missing-field": Case(
        STORE,
        "except (IntegrityError, OSError, ValueError, KeyError, TypeError) as error:",
        "except (IntegrityError, OSError, ValueError, TypeError) as error:",
        f"{TESTS}test_a_record_that_is_none_removes_its_snapshot",
    ),
    "evict-missing-field": Case(
        STORE,
        "except (OSError, ValueError, KeyError, TypeError):",
        "except (OSError, ValueError, TypeError):",
        f"{TESTS}test_a_record_that_is_none_removes_its_snapshot",
    ),
    "evict-no-object": Case(
        STORE,
        "except (OSError, ValueError, KeyError, TypeError):",
        "except (OSError, ValueError, KeyError):",
        f"{TESTS}test_a_record_that_is_none_removes_its_snapshot",
    ),
    "long-record": Case(
        STORE,
        'raise ValueError("an overlong record")',
        "pass",
        f"{TESTS}test_a_record_that_is_none_removes_its_snapshot",
    ),
    "larger-than-the-store": Case(
        STORE,
        'raise OSError(f"snapshot {key} was removed at once: it is larger than the store")',
        "pass",
        f"{TESTS}test_a_snapshot_larger_than_the_store_is_an_error_that_says_so",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
