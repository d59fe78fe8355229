"""Lines that a random sample of mutations showed to be untested; a fast test now covers each.

Every case changes one line in a copy of the tree and runs that test there, as in
`test_identity_notices.py`. A line that belongs to one subject is in that subject's file instead.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

REGISTRY = "tests/unit/scheduler/test_registry.py::"
POOL = "tests/unit/worker/pool/test_core.py::"
LOOKUP = "tests/unit/cache/inputs/test_lookup.py::"
SHARE = "tests/unit/cache/results/test_share_check.py::"
FLAGS = "tests/golden/test_flag_rows.py::test_no_row_was_dropped_or_changed_by_accident"
LAUNCHER = "tests/unit/wire/test_launcher.py::"
REPLAYS = "tests/unit/cache/replay/test_replays.py::"
GATE = "tests/unit/wire/test_frame_gate.py::"


CASES = {
    "family-in-the-memo": Case(
        "cache/key/prepare.py",
        "memo_key = (family.name, request.compiler, expanded)",
        'memo_key = ("", request.compiler, expanded)',
        "tests/integration/msvc/test_clang_cl.py"
        "::test_a_response_file_with_the_words_of_cl_mode_is_not_read_as_a_known_cl_compile",
    ),
    "registry-shared": Case(
        "scheduler/registry.py",
        "if row is not None and row.since == lease.since:\n                is_kept",
        "if row is not None or row.since == lease.since:\n                is_kept",
        REGISTRY + "test_news_of_a_former_life_says_nothing_of_the_next",
    ),
    "session-deadline": Case(
        "worker/pool/core.py",
        "times.append(guest.ready_at + limits.session_seconds)",
        "times.append(guest.ready_at - limits.session_seconds)",
        POOL + "test_a_busy_guest_is_looked_at_when_its_session_ends",
    ),
    "driver-absent": Case(
        "cache/inputs/lookup.py",
        'self._look(path.rpartition(b"/")[0] or b"/", names, frozenset())',
        "pass",
        LOOKUP + "test_an_absent_name_beside_the_driver_is_watched",
    ),
    "driver-present": Case(
        "cache/inputs/lookup.py",
        "raise UncacheableError(UncacheableReason.CONFIG_FILE)",
        "pass",
        LOOKUP + "test_a_name_beside_the_driver_that_is_there_is_not_guessed_at",
    ),
    "share-beginning": Case(
        "cache/results/share_check.py",
        "found |= _Finding.BEGINNING",
        "found |= _Finding.NOTHING",
        SHARE + "test_what_ties_a_source_to_its_checkout",
    ),
    "share-same-directory": Case(
        "cache/key/share.py",
        'if not one.startswith(b"/"):',
        'if one.startswith(b"/"):',
        SHARE + "test_another_spelling_of_the_working_directory_keeps_a_result_private",
    ),
    "flag-msvc": Case("compilers/msvc/flags.py", ' "validate-charset",', "", FLAGS),
    "flag-gnu": Case("compilers/gnu/flags.py", ', "-Qy")', ")", FLAGS),
    "launcher-name": Case(
        "wire/launcher.py",
        "if not equals or not name:",
        "if not equals and not name:",
        LAUNCHER + "test_a_request_that_contradicts_itself_is_refused",
    ),
    "replay-limit": Case(
        "cache/replay/replay.py",
        "if size > MAX_ONE_BYTES:",
        "if size >= MAX_ONE_BYTES:",
        REPLAYS + "test_the_limit_of_one_replay_is_what_it_takes_in_memory",
    ),
    "plan-limit": Case(
        "cache/replay/engine.py",
        "if len(plan.outputs) > MAX_OUTPUTS or len(plan.answer) > MAX_ANSWER_BYTES:",
        "if len(plan.outputs) > MAX_OUTPUTS and len(plan.answer) > MAX_ANSWER_BYTES:",
        REPLAYS + "test_a_plan_holds_so_many_outputs_and_so_long_an_answer",
    ),
    "gate-clock": Case(
        "wire/frame_gate.py",
        "max(now - self._at, 0.0)",
        "max(now + self._at, 0.0)",
        GATE + "test_each_second_allows_so_many_frames_more",
    ),
    "gate-clock-kept": Case(
        "wire/frame_gate.py",
        "min(self._allowance + more, BURST_FRAMES), now\n",
        "min(self._allowance + more, BURST_FRAMES), self._at\n",
        GATE + "test_the_same_moment_is_paid_for_once",
    ),
    "block-timeout": Case(
        "dispatch/calls.py",
        'reason="worker-gone") from error\n            raise\n',
        'reason="worker-gone") from error\n',
        "tests/unit/dispatch/test_channels.py"
        "::test_only_a_worker_that_is_gone_ends_the_block_that_uses_it",
    ),
    "pipe-waiting": Case(
        "daemon/accept_threads.py",
        "return len(self.since)",
        "return 0",
        "tests/unit/daemon/test_pipe_listener.py::test_what_is_under_way_is_counted_where_it_is",
    ),
    "known-costs": Case(
        "cache/results/records.py",
        'line[3].get("ms")',
        'line[3].get("cost")',
        "tests/unit/cache/results/test_records.py"
        "::test_a_hit_saves_what_the_result_took_also_after_a_restart",
    ),
    "exec-limits": Case(
        "wire/exec_frames.py",
        "min(counts) > 0",
        "min(counts) >= 0",
        "tests/unit/wire/test_exec_request_checks.py::test_every_limit_is_positive",
    ),
    "foreign-record": Case(
        "audit/base/canonical.py",
        "if not is_canonical:",
        "if False:",
        "tests/unit/audit/test_records.py::test_what_a_peer_may_not_send_is_refused",
    ),
    "isolation-label": Case(
        "worker/execute/runner.py",
        "if lease.guest.identity.isolation is not domain.isolation:",
        "if False:",
        "tests/unit/worker/execute/test_runner.py"
        "::test_nothing_runs_in_a_guest_with_another_isolation_than_was_promised",
    ),
    "deaths-count": Case(
        "core/quarantine.py",
        "MAX_GUEST_DEATHS: Final = 2",
        "MAX_GUEST_DEATHS: Final = 1",
        "tests/unit/dispatch/test_deaths.py"
        "::test_an_action_that_ended_two_guests_stays_home_for_half_an_hour",
    ),
    "bytes-after-a-frame": Case(
        "daemon/transport.py",
        "if len(buffer) > end:",
        "if len(buffer) > end + 1:",
        "tests/unit/daemon/test_transport.py::test_what_is_no_single_frame_is_refused",
    ),
    "peeked-claims": Case(
        "identity/oidc/verify.py",
        "    except (binascii.Error, ValueError) as error:\n"
        '        raise IdpTokenError("not a signed JWT", reason="idp-token-malformed") from error',
        "    except (binascii.Error, ValueError):\n        return {}",
        "tests/unit/identity/test_idp_token.py::test_peeking_believes_nothing_and_says_what_is_written",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_line_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
