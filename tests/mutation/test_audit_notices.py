"""Each check of the audit trail is needed: without it, the test named after the attack fails.

Every case removes one check from a copy of the tree and runs that test there. A case fails, too, if
its text is no longer in the source: the check moved, so the case must move with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TAMPERING = "tests/integration/audit/test_audit_tampering.py::"
REPRODUCE = "tests/integration/audit/test_audit_reproduce.py::"
VERIFY = "tests/unit/audit/test_verify.py::"
GROUPS = "tests/integration/audit/test_audit_groups.py::"
INTAKE = "tests/unit/scheduler/audit/test_intake.py::"
INDEX = "tests/integration/audit/test_audit_forged_index.py::"
COPY = "tests/integration/audit/test_audit_hostile_copy.py::"
HISTORIES = "tests/unit/scheduler/audit/test_histories.py::"
SIGNED = "tests/integration/audit/test_signed_rows.py::"
HOLDS = "tests/integration/audit/test_holds.py::"
ROOM = "tests/integration/audit/test_audit_room.py::"
ROWS = "tests/unit/worker/base/test_rows.py::"
SYSLOG = "tests/integration/audit/test_syslog.py::"
COLUMNS = "tests/unit/audit/test_columns.py::"
COUNTED = "tests/integration/audit/test_counted_events.py::"


CASES = {
    "block-room": Case(
        "audit/base/columns.py",
        "if room < 0:",
        "if False:",
        COLUMNS + "test_a_template_that_every_row_repeats_stays_in_the_announced_size",
    ),
    "block-text": Case(
        "audit/base/columns.py",
        "if zstandard.get_frame_parameters(packed).content_size != header.text_bytes:",
        "if False:",
        COLUMNS + "test_a_bomb_is_refused_before_it_is_unpacked",
    ),
    "block-again": Case(
        "audit/base/columns.py",
        "if again.frames() == frames:",
        "if True:",
        COLUMNS + "test_records_that_are_not_a_chain_are_given_back",
    ),
    "packed-size": Case(
        "audit/roots.py",
        "if tree.size != head.size or tree.root() != head.root:",
        "if False:",
        "tests/integration/audit/test_roots.py::test_removed_records_count_by_their_kept_hashes",
    ),
    "syslog-key": Case(
        "obs/receiver_files.py",
        "if not access.is_regular or not access.is_private:",
        "if False:",
        "tests/integration/audit/test_syslog.py::"
        "test_a_key_that_others_can_read_or_replace_is_not_used[mode]",
    ),
    "counted-once": Case(
        "audit/log.py",
        "if listener not in self._listeners:",
        "if True:",
        COUNTED + "test_events_that_a_trail_or_its_sink_makes_are_counted",
    ),
    "syslog-names": Case(
        "audit/syslog_message.py",
        'shown = f"field_{name}" if name in taken else name',
        "shown = name",
        "tests/unit/audit/test_syslog_message.py::test_no_field_hides_who_reports_or_of_whom",
    ),
    "syslog-lookup": Case(
        "audit/syslog_connection.py",
        "if self._asking is None:",
        "if True:",
        SYSLOG + "test_a_resolver_that_hangs_takes_one_thread_which_nobody_waits_for",
    ),
    "syslog-silent": Case(
        "audit/syslog_connection.py",
        "if option is not None:",
        "if False:",
        SYSLOG + "test_the_system_ends_a_connection_that_acknowledges_nothing",
    ),
    "counted-when-true": Case(
        "audit/log.py",
        "        await self._put(Waiting(event, new_future(), chosen))",
        "        self._tell(event)\n        await self._put(Waiting(event, new_future(), chosen))",
        COUNTED + "test_events_that_a_trail_or_its_sink_makes_are_counted",
    ),
    "chain": Case(
        "audit/base/frames.py",
        "if record.sequence != sequence or record.previous != head:",
        "if record.sequence != sequence:",
        VERIFY + "test_each_damage_is_named_with_its_file",
    ),
    "end-by-anchor": Case(
        "audit/verify.py",
        "if newest > self.count:",
        "if False:",
        TAMPERING + "test_a_cut_tail_is_found_by_an_anchor_and_not_without_one",
    ),
    "head-by-anchor": Case(
        "audit/verify.py",
        "if wanted != head:",
        "if False:",
        TAMPERING + "test_a_tail_that_was_written_anew_is_found_by_an_anchor",
    ),
    "retention-said": Case(
        "audit/verify.py",
        "if self._until < self.first:",
        "if False:",
        TAMPERING + "test_removed_segments_at_the_beginning_are_not_taken_for_retention",
    ),
    "one-key": Case(
        "audit/verify.py",
        "if len(sealed) > 1 or len(anchored) > 1 or (sealed and anchored and sealed != anchored):",
        "if False:",
        TAMPERING + "test_a_seal_that_was_made_with_another_key_is_found",
    ),
    "seal-signature": Case(
        "audit/base/segments.py",
        '    check_head(signed, f"the seal at record {first}")\n',
        "",
        VERIFY + "test_a_head_of_a_seal_of_format_1_is_signed",
    ),
    "whole-seal-signature": Case(
        "audit/base/segments.py",
        '    check_signature(key, signature, seal_message(seal), f"the seal at record {first}")\n',
        "",
        SIGNED + "test_each_part_of_a_seal_is_signed",
    ),
    "seal-format": Case(
        "audit/base/segments.py",
        "if signed_from not in (None, seal.signed_from):",
        "if False:",
        SIGNED + "test_a_seal_of_an_earlier_format_is_none_of_this_version",
    ),
    "signed-retention": Case(
        "audit/verify.py",
        "if record.signature or record.sequence < self._proved:",
        "if True:",
        SIGNED + "test_an_unsigned_event_of_retention_hides_no_rows[format 2]",
    ),
    "signed-retention-query": Case(
        "audit/lookup/reader.py",
        "if not record.signature and record.sequence >= self._proved():",
        "if False:",
        SIGNED + "test_an_unsigned_event_of_retention_hides_no_rows[format 2]",
    ),
    "hold": Case(
        "audit/holds.py",
        "if any(self._keeps(hold, seal) for hold in self.holds):",
        "if False:",
        HOLDS + "test_held_rows_stay[tenant-acme]",
    ),
    "hold-signatures": Case(
        "audit/holds.py",
        "if len(signed_by & self._role.keys) < needed:",
        "if False:",
        HOLDS + "test_single_officer_cannot_retire",
    ),
    "hold-worker": Case(
        "audit/holds.py",
        "if found.worker != self._worker:",
        "if False:",
        HOLDS + "test_a_statement_counts_once_for_one_worker_and_as_it_was_signed",
    ),
    "retirement-allowed": Case(
        "audit/holds.py",
        "if self._role.keys and not any(allowed.covers(seal) for allowed in self._allowed):",
        "if False:",
        HOLDS + "test_without_its_permission_nothing_is_removed_whatever_is_configured",
    ),
    "retirement-of-the-past": Case(
        "audit/holds.py",
        "seal.signed.at < self.before and seal.end <= self.until",
        "seal.signed.at < self.before",
        HOLDS + "test_a_permission_covers_what_was_sealed_before_it_whatever_the_clock_says",
    ),
    "retirement-replayed": Case(
        "audit/holds.py",
        "if self._allowed and found.at <= self._allowed[-1].at:",
        "if False:",
        HOLDS + "test_a_permission_of_the_future_and_one_that_was_given_before_are_refused",
    ),
    "full-disk": Case(
        "audit/spool.py",
        "self.is_disk_full = self.is_disk_full or error.errno in NO_ROOM",
        "pass",
        ROOM + "test_a_write_that_finds_the_disk_full_takes_no_new_work_at_once",
    ),
    "history-silent": Case(
        "scheduler/audit/histories.py",
        "if count > MOST_UNPROVED:",
        "if False:",
        HISTORIES + "test_a_worker_that_only_registers_is_drained",
    ),
    "history-behind": Case(
        "scheduler/audit/histories.py",
        "if new.head.count < said.least:",
        "if False:",
        HISTORIES + "test_a_head_that_stays_while_anchors_grow_drains_the_worker",
    ),
    "anchor-signature": Case(
        "audit/verify.py",
        "        check_head(anchor)\n",
        "",
        TAMPERING + "test_an_anchor_that_was_changed_or_is_unsigned_is_refused",
    ),
    "reproduced-outputs": Case(
        "worker/execute/reproduce.py",
        "if made.get(path) != before.get(path)",
        "if False",
        REPRODUCE + "test_a_row_with_a_forged_output_digest_is_not_reproduced",
    ),
    "reproduced-isolation": Case(
        "worker/execute/reproduce.py",
        "if runtime.isolation.value != row.isolation:",
        "if False:",
        REPRODUCE + "test_another_isolation_than_the_rows_is_no_reproduction",
    ),
    "middle": Case(
        "audit/verify.py",
        "if self.first != self.count:",
        "if False:",
        VERIFY + "test_a_segment_missing_in_the_middle_is_named_by_its_first_record",
    ),
    "older-anchors": Case(
        "audit/verify.py",
        "self.count < count < item.seal.end",
        "self.count < count <= item.seal.end",
        VERIFY + "test_what_retention_removed_is_not_missing",
    ),
    "retired-worker": Case(
        "audit/verify.py",
        "self._workers.add(item.seal.signed.worker)",
        "pass",
        VERIFY + "test_a_removed_segment_of_another_worker_counts_as_another_worker",
    ),
    "retired-event": Case(
        "audit/base/retirement.py",
        'record.kind != "event" or record.body.get("name") != "audit-retired"',
        'record.kind != "event"',
        VERIFY + "test_another_event_that_says_until_is_no_retention",
    ),
    "several-workers": Case(
        "audit/verify.py",
        "if len(self._workers) > 1:",
        "if False:",
        VERIFY + "test_records_of_two_workers_are_no_trail",
    ),
    "anchor-file-size": Case(
        "audit/verify.py",
        "if len(data) > MAX_ANCHOR_FILE_BYTES:",
        "if False:",
        VERIFY + "test_a_file_of_anchors_is_bounded",
    ),
    "anchors-of-one-worker": Case(
        "audit/verify.py",
        "if len(workers) > 1:",
        "if False:",
        VERIFY + "test_anchors_of_two_workers_are_not_mixed",
    ),
    "frame-size": Case(
        "audit/base/frames.py",
        "if not signature_bytes <= length <= MAX_RECORD_BYTES + signature_bytes:",
        "if not signature_bytes <= length < MAX_RECORD_BYTES + signature_bytes:",
        VERIFY + "test_a_record_of_the_largest_size_may_be_announced",
    ),
    "named-file": Case(
        "audit/base/trail.py",
        'raise AuditDamagedError(f"{file.name}: {error}") from error',
        "raise",
        VERIFY + "test_each_damage_is_named_with_its_file",
    ),
    "seal-place": Case(
        "audit/base/segments.py",
        "if seal.first != first or seal.previous != previous or seal.end <= first:",
        "if seal.end <= first:",
        VERIFY + "test_every_field_of_a_seal_counts",
    ),
    "row-lost": Case(
        "worker/execute/runner.py",
        'await self._event("audit-row-lost", work, ("reason", reason))',
        "pass",
        "tests/unit/worker/execute/test_runner.py"
        "::test_a_row_that_cannot_be_written_is_an_event_with_the_compiles_reason",
    ),
    "anchor-fields": Case(
        "audit/base/heads.py",
        'except (ValueError, OverflowError) as error:\n        raise AuditDamagedError("an anchor has other fields") from error',
        "except (ValueError, OverflowError):\n        raise",
        VERIFY + "test_every_field_of_an_anchor_has_its_type",
    ),
    "large-row": Case(
        "audit/group.py",
        'waiting.error = InfrastructureError("audit record is too large", reason="audit")\n'
        "            return None",
        'raise OSError("audit record is too large")',
        GROUPS + "test_a_row_that_cannot_be_written_fails_no_other_tenants_row",
    ),
    "parts": Case(
        "audit/group.py",
        "while rest and place - begin < _MAX_PART_BYTES:",
        "while rest:",
        GROUPS + "test_large_rows_at_once_are_not_all_in_memory_at_once",
    ),
    "large-batches": Case(
        "scheduler/audit/intake.py",
        "self._large if is_large else self._room",
        "self._room",
        INTAKE + "test_large_batches_of_hostile_workers_are_decoded_one_at_a_time",
    ),
    "kind": Case(
        "audit/base/canonical.py",
        '("row", "event")',
        '{"row", "event"}',
        INTAKE + "test_a_record_of_a_strange_form_is_refused_as_damaged",
    ),
    "digits": Case(
        "audit/base/retirement.py",
        "_COUNT.fullmatch(str(pair[-1]))",
        "str(pair[-1]).isdecimal()",
        COPY
        + "test_a_forged_record_is_shown_or_refused_in_words_by_every_command[a-large-retention]",
    ),
    "numbers": Case(
        "audit/base/canonical.py",
        "return not isinstance(value, int | float) or -_MAX_NUMBER <= value < _MAX_NUMBER",
        "return True",
        COPY + "test_a_forged_record_is_shown_or_refused_in_words_by_every_command[a-large-count]",
    ),
    "index-digest": Case(
        "audit/lookup/sealed.py",
        "if not any(statement.names(data) for statement in statements):",
        "if False:",
        INDEX + "test_forged_index_row_is_never_shown_and_no_row_is_left_out",
    ),
    "index-statement-key": Case(
        "audit/lookup/sealed.py",
        "if not seal.is_of(statement):",
        "if False:",
        INDEX + "test_forged_index_row_is_never_shown_and_no_row_is_left_out",
    ),
    "index-seal-key": Case(
        "audit/base/segments.py",
        "if seal.index is not None and not seal.is_of(seal.index):",
        "if False:",
        "tests/unit/audit/test_earlier_seals.py::test_a_statement_of_another_segment_is_refused",
    ),
    "index-signature": Case(
        "audit/base/index_statement.py",
        '    check_signature(key, signature, index_message(statement), "the statement about an index")\n',
        "",
        INDEX + "test_forged_index_row_is_never_shown_and_no_row_is_left_out",
    ),
    "index-hit": Case(
        "audit/lookup/reader.py",
        "if record_hash(frame.data) != found.hash:",
        "if False:",
        INDEX + "test_a_record_that_was_changed_in_its_segment_is_not_shown",
    ),
    "index-record": Case(
        "audit/lookup/comparison.py",
        "if self._index is not None and next(self._rows, None) != index_row(",
        "if False and next(self._rows, None) != index_row(",
        INDEX + "test_an_index_that_the_worker_sealed_without_a_row_is_found_by_verify",
    ),
    "index-missing-segment": Case(
        "audit/lookup/reader.py",
        "            self._require_retired(seal)\n            return\n",
        "            return\n",
        INDEX + "test_a_segment_that_retention_did_not_remove_is_missed_by_a_query",
    ),
    "index-count": Case(
        "audit/lookup/open_index.py",
        "if self._builder is None or self._builder.count != count:",
        "if self._builder is None:",
        "tests/unit/audit/test_open_index.py::test_an_index_that_lacks_a_record_is_not_used",
    ),
    "signed-tail": Case(
        "audit/spool.py",
        "if not is_own and (self._must_be_signed or record.signature):",
        "if False:",
        SIGNED + "test_a_tail_that_another_key_signed_is_not_adopted",
    ),
    "signed-mark": Case(
        "audit/spool.py",
        "self._must_be_signed = self._marked is not None",
        "self._must_be_signed = False",
        SIGNED + "test_a_trail_that_was_cut_to_nothing_and_written_unsigned_is_not_adopted",
    ),
    "signed-shown": Case(
        "audit/lookup/reader.py",
        "if must_be_signed and not record.signature:",
        "if False:",
        SIGNED + "test_a_forged_record_is_not_shown_before_the_first_seal_either",
    ),
    "signed-shown-key": Case(
        "audit/lookup/reader.py",
        "if record.signature and not is_signed_by(record, key):",
        "if False:",
        SIGNED + "test_a_tail_that_another_key_signed_is_not_adopted",
    ),
    "signed-verified": Case(
        "audit/verify.py",
        "if not is_signed_by(record, self._key):",
        "if False:",
        SIGNED + "test_a_sealed_segment_of_another_key_is_found_by_each_record",
    ),
    "signing-event": Case(
        "audit/verify.py",
        "or is_signing_event(record)\n",
        "\n",
        SIGNED + "test_a_trail_without_its_signatures_is_found_by_the_event_that_began_them",
    ),
    "torn-full-disk": Case(
        "audit/tail.py",
        "if not is_kept and not _has_kept(path.parent / name, data, fault):",
        "if not is_kept:",
        "tests/integration/audit/test_torn_tails.py::"
        "test_a_full_disk_does_not_stop_a_start_that_has_to_cut",
    ),
    "tree-proved": Case(
        "audit/tree/head.py",
        "if not is_consistent(held.size, new.size, held.root, new.root, said.proof):",
        "if False:",
        HISTORIES + "test_another_history_of_any_length_is_refused",
    ),
    "tree-from-the-held-head": Case(
        "scheduler/audit/histories.py",
        "if tree is None or new is None or tree.after != held.head.mark:",
        "if tree is None or new is None or tree.after is None:",
        HISTORIES + "test_a_head_that_is_late_is_no_evidence",
    ),
    "tree-silence": Case(
        "scheduler/audit/histories.py",
        "if known.unproved >= MOST_UNPROVED:",
        "if False:",
        HISTORIES + "test_a_worker_that_sends_no_proof_is_drained",
    ),
    "tree-key": Case(
        "scheduler/audit/histories.py",
        "if new.key != held.key else",
        "if False else",
        HISTORIES + "test_another_key_or_beginning_is_refused",
    ),
    "tree-undo": Case(
        "scheduler/drains.py",
        "if await self._store.entry_or_none(CHANGED_SPACE, worker_id) is not None:",
        "if False:",
        HISTORIES + "test_an_operator_acknowledges_and_both_heads_stay",
    ),
    "tree-own-head": Case(
        "audit/tree/history.py",
        "if signed.size > self.size:",
        "if False:",
        "tests/integration/audit/test_history_tree.py::"
        "test_a_start_misses_records_that_its_head_covers",
    ),
    "torn-kept": Case(
        "audit/tail.py",
        "            file.write(data)\n",
        "            pass\n",
        SIGNED + "test_the_bytes_of_a_torn_tail_are_kept_and_named",
    ),
    "reindex-owner": Case(
        "cli/audit/checks.py",
        "    require_own(directory)\n",
        "",
        COPY + "test_the_trail_of_another_user_is_read_and_nothing_is_written_there",
    ),
    "shown-line-ends": Case(
        "cli/audit/audit.py",
        'printable(" ".join(value) if isinstance(value, tuple) else str(value))',
        'str(" ".join(value) if isinstance(value, tuple) else value)',
        COPY + "test_a_line_end_in_an_argument_or_a_name_forges_no_field_of_a_row",
    ),
    "tenants-room": Case(
        "audit/log.py",
        "if not self._room.has_room(tenant, self._spool.free_bytes):",
        "if False:",
        ROOM + "test_a_tenant_that_fills_the_trail_leaves_room_for_every_other",
    ),
    "room-of-removed-segments": Case(
        "audit/group.py",
        "self._room.forget(retired[-1].end)",
        "pass",
        ROOM + "test_what_retention_removes_counts_against_no_tenant",
    ),
    "room-for-hits": Case(
        "worker/execute/session.py",
        "self._deps.audit.require_room(self.tenant.value)\n        answer =",
        "answer =",
        "tests/integration/test_worker_attacks.py"
        "::test_a_tenant_whose_rows_fill_the_trail_gets_neither_a_hit_nor_a_compile",
    ),
    "rows-argv": Case(
        "worker/base/rows.py",
        "if room < 0:",
        "if False:",
        ROWS + "test_a_command_of_control_characters_makes_no_row_of_megabytes[many]",
    ),
    "rows-names": Case(
        "worker/execute/work.py",
        "if not has_room_for_names(paths):",
        "if False:",
        ROWS + "test_names_of_outputs_that_would_fill_a_row_are_refused_before_a_guest_boots",
    ),
    "tsv-formulas": Case(
        "cli/audit/text.py",
        "if isinstance(value, str) and text.startswith(_DISARMED):",
        "if False:",
        "tests/unit/cli/audit/test_text.py"
        "::test_a_name_that_is_a_formula_is_a_text_in_a_spreadsheet",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name], seconds=150)
