"""Each check of a trail's signer is needed: without it, the test of its attack fails.

The cases work as in `test_identity_notices.py`.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

LEDGER, SLOTS = "audit/signer/ledger.py", "audit/signer/slots.py"
MESSAGES, SERVED = "audit/signer/messages.py", "audit/signer/served.py"
DECIDES = "tests/unit/audit/signer/test_ledger.py::"
KEEPS = "tests/unit/audit/signer/test_slots.py::"
SAYS = "tests/unit/audit/signer/test_signer_messages.py::"

CASES = {
    "number": Case(LEDGER, "if record.sequence < count:", "if False:",
                   DECIDES + "test_another_record_under_a_signed_number_is_refused"),
    "gap": Case(LEDGER, "if record.sequence > count or record.previous != head:", "if record.previous != head:",
                DECIDES + "test_a_gap_is_refused"),
    "previous": Case(LEDGER, "if record.sequence > count or record.previous != head:", "if record.sequence > count:",
                     DECIDES + "test_a_record_behind_another_one_is_refused"),
    "worker": Case(LEDGER, "if record.worker != self._worker:", "if False:",
                   DECIDES + "test_a_record_of_another_worker_is_refused"),
    "canonical": Case(LEDGER, "            check_canonical(record)\n", "",
                      DECIDES + "test_what_is_not_a_canonical_record_is_refused"),
    "again": Case(LEDGER, "if known and list(records) == known:", "if False:",
                  DECIDES + "test_the_last_group_gets_the_same_signatures_again"),
    "signed-from": Case(LEDGER, "if wanted.signed_from not in allowed:", "if False:",
                        DECIDES + "test_a_seal_does_not_move_where_signing_began"),
    "empty-seal": Case(LEDGER, "start.first == first < state.tip.count", "start.first == first",
                       DECIDES + "test_an_empty_segment_gets_no_seal"),
    "whose-seal": Case(LEDGER, "if (seal.signed.worker, seal.signed.key, seal.first) != (", "if () and () != (",
                       DECIDES + "test_an_index_of_an_earlier_segment_needs_its_seal"),
    "pending": Case(LEDGER, "state, base=tip, pending=(), segment=start,", "state, base=tip, segment=start,",
                    DECIDES + "test_a_seal_is_of_the_open_segment"),
    "durable": Case(SERVED, "        self._store(encode_state(state, self._ledger.public_key))\n", "",
                    SAYS + "test_a_state_that_is_not_durable_signs_nothing"),
    "begin-once": Case(SERVED, "            if state is not None:\n", "            if False:\n",
                       SAYS + "test_a_trail_begins_once"),
    "heads-only": Case(SERVED, "if kind not in {MessageKind.HEAD, MessageKind.TREE}:", "if False:",
                       SAYS + "test_the_connection_of_heads_changes_nothing"),
    "length": Case(MESSAGES, "if length > _LIMITS.get(kind, _SMALL_BYTES):", "if False:",
                   SAYS + "test_nothing_is_read_of_a_message_that_is_too_long_or_unknown"),
    "group": Case(MESSAGES, "if not 0 < count <= MAX_RECORDS:", "if not count:",
                  SAYS + "test_wrong_groups_are_refused"),
    "digest": Case(SLOTS, "return (number, data) if _digest(number, data) == digest else None", "return number, data",
                   KEEPS + "test_a_write_that_was_cut_leaves_the_state_before"),
    "one-process": Case(SLOTS, "            self._take_lock(directory, sleep)\n", "",
                        KEEPS + "test_one_process_has_the_files"),
    "in-turn": Case(SLOTS, "file = self._files[number % len(self._files)]", "file = self._files[0]",
                    KEEPS + "test_a_write_that_was_cut_leaves_the_state_before"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
