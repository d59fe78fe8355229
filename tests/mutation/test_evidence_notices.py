"""Each check of evidence is needed: without it, the test named after the attack fails.

Every case removes one check from a copy of the tree and runs that test there.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

MAKER = "tests/integration/evidence/test_evidence_hostile_maker.py::"
FILE = "tests/integration/evidence/test_evidence_file.py::"
HEADS = "tests/integration/evidence/test_evidence_heads.py::"
CONTAINER = "tests/unit/evidence/test_container.py::"
SOURCES = "tests/unit/worker/stores/test_sources.py::"
COMMIT = "tests/unit/cache/git/test_commit_files.py::"
CHECKOUT = "tests/integration/audit/test_audit_sources.py::"
BUILD = "tests/integration/audit/test_reproduce_build.py::"
LOCAL = "tests/integration/evidence/test_local_records.py::"
FARM = "tests/integration/audit/test_audit_farm_query.py::"

CASES = {
    "row-signature": Case(
        "evidence/verify.py",
        "check_envelope(envelope, key, bundle.RECORD_TYPE, what)",
        "pass",
        MAKER + "test_a_row_that_another_key_signed_is_refused",
    ),
    "pinned-workers": Case(
        "evidence/verify.py",
        "if pinned.workers and pinned.workers.get(word) != key:",
        "if False:",
        MAKER + "test_a_key_that_the_maker_invented_is_refused_where_workers_are_pinned",
    ),
    "inclusion": Case(
        "evidence/proof.py",
        "if not is_included(record_leaf(record), index, head.size, head.root, proof):",
        "if False:",
        MAKER + "test_a_row_is_only_where_its_proof_leads",
    ),
    "own-head": Case(
        "evidence/proof.py",
        "head = read_tree_head(worker, data, tree.key)",
        "head = read_tree_head(worker, data, maker)",
        HEADS + "test_proofs_lead_to_the_head_that_a_scheduler_holds",
    ),
    "held-head": Case(
        "evidence/leaves.py",
        "if self.tree.size and not self._has(head.size, head.root):",
        "if False:",
        HEADS + "test_forged_leaves_of_removed_records_are_found",
    ),
    "statement": Case(
        "evidence/verify.py",
        "if envelope.payload != payload or envelope.key_id != key_id_of(evidence.maker):",
        "if False:",
        MAKER + "test_a_statement_that_says_more_than_its_row_is_refused",
    ),
    "derived": Case(
        "evidence/verify.py",
        "if files.get(name) != wanted.get(name):",
        "if False:",
        MAKER + "test_a_file_that_says_something_else_is_refused[README.txt]",
    ),
    "verdict": Case(
        "evidence/verify.py",
        "if bundle.summary_payload(evidence, files) != summary.payload:",
        "if False:",
        MAKER + "test_a_verdict_that_does_not_follow_is_refused",
    ),
    "members": Case(
        "evidence/verify.py",
        "if making.grade is Grade.MEMBERS and making.parts != subject.members:",
        "if False:",
        MAKER + "test_a_row_that_no_part_needs_is_refused",
    ),
    "subject": Case(
        "evidence/verify.py",
        "if making.digest != subject.digest:",
        "if False:",
        FILE + "test_another_library_is_refused",
    ),
    "served": Case(
        "evidence/model.py",
        "if status in SERVED:\n            return 1",
        "if status in SERVED:\n            return 3",
        FILE + "test_only_an_execution_in_an_accepted_guest_counts",
    ),
    "isolation": Case(
        "evidence/model.py",
        "if isolation not in self._policy.isolations:",
        "if False:",
        FILE + "test_only_an_execution_in_an_accepted_guest_counts",
    ),
    "announced": Case(
        "evidence/forms/container.py",
        "if sum(entry.size for entry in entries) > MAX_TOTAL_BYTES:",
        "if False:",
        CONTAINER + "test_what_is_announced_is_limited_before_it_is_unpacked",
    ),
    "sources-young": Case(
        "worker/stores/sources.py",
        "is_old = file.stat().st_mtime < now - _YOUNG_SECONDS",
        "is_old = True",
        SOURCES + "test_a_directory_of_the_last_day_stays_since_its_row_may_come",
    ),
    "sources-held": Case(
        "worker/stores/sources.py",
        "if (tenant, file.name) in self._renewed:",
        "if False:",
        SOURCES + "test_a_directory_of_the_last_day_stays_since_its_row_may_come",
    ),
    "sources-marked": Case(
        "worker/stores/sources.py",
        "self._mark(tenant, root, marked.setdefault(tenant.value, set()))",
        "pass",
        SOURCES + "test_what_a_row_leads_to_stays_when_other_rows_are_removed",
    ),
    "commit-content": Case(
        "cache/git/commit_files.py",
        "if hasher.hexdigest() != name.decode():",
        "if False:",
        COMMIT + "test_an_object_of_another_content_than_its_name_is_refused[blob]",
    ),
    "commit-links": Case(
        "cache/git/commit_files.py",
        'or text.startswith(b"/")',
        "",
        COMMIT + "test_links_that_leave_the_commit_or_go_round_are_absent",
    ),
    "sparse-hashes": Case(
        "evidence/leaves.py",
        "return is_consistent(size, self._border.size, root, self._border.root(), proof)",
        "return True",
        HEADS + "test_leaves_of_removed_records_come_from_the_workers_file",
    ),
    "checkout-content": Case(
        "evidence/checkout.py",
        "hasher.hexdigest() == file.digest.hash",
        "True",
        CHECKOUT + "test_an_edited_and_a_missing_file_are_named",
    ),
    "reproduction-passed": Case(
        "evidence/reproduction.py",
        "verdicts == {REPRODUCED}",
        "True",
        BUILD + "test_all_the_same_is_passed_and_what_is_gone_is_a_warning",
    ),
    "local-key": Case(
        "evidence/local_record.py",
        'check_envelope(envelope, key, IN_TOTO, "a record of local compiles")',
        "pass",
        LOCAL + "test_a_statement_of_another_key_is_refused",
    ),
    "farm-hash": Case(
        "cli/audit/farm_query.py",
        "if record.hash != row.hash or record.worker != row.worker:",
        "if False:",
        FARM + "test_a_changed_database_shows_no_wrong_row[hash]",
    ),
    "farm-omission": Case(
        "cli/audit/farm_query.py",
        "if omitted:",
        "if False:",
        FARM + "test_a_changed_database_shows_no_wrong_row[tenant]",
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name], seconds=150)
