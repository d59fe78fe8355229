"""Each check of signed results is needed: without it, the test named after the attack fails.

The cases work as in `test_identity_notices.py`.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

STORE = "tests/integration/test_store_writer.py::"
UNIT = "tests/unit/identity/test_signed_results.py::"
TABLE = "tests/unit/scheduler/test_result_keys.py::"
LYING = "tests/integration/test_lying_worker.py::"
SURFACE = "tests/integration/test_reapi_surface.py::"
SIGNED, RESULTS = "reapi/signed.py", "identity/results.py"
ENTRIES, KEYS = "worker/stores/entries.py", "identity/result_keys.py"
LIST = "scheduler/result_keys.py"
CAUGHT = STORE + "test_a_store_writer_who_"


CASES = {
    "signature": Case(RESULTS, "key.verify(signature.value, signed_bytes(record, terms.scope, signature))",
                      "signed_bytes(record, terms.scope, signature)",
                      UNIT + "test_a_result_with_another_field_is_refused[exit_code]"),
    "served-unchecked": Case(ENTRIES, "await check_result(record, terms, keys, now=now)", "pass",
                             CAUGHT + "swaps_the_paths_of_outputs_is_caught"),
    "written-unchecked": Case("dispatch/results.py",
                              "await check_result(record, terms, connection.result_keys, now=self._clock.now())",
                              "pass", LYING + "test_a_front_that_changes_a_signed_result_is_not_believed[content]"),
    "other-files": Case("dispatch/results.py", "if not {o.path for o in record.outputs} <= set(prepared.outputs):",
                        "if False:", LYING + "test_a_true_result_with_files_that_nobody_asked_for_is_not_written"),
    "inlined": Case("dispatch/results.py", "data = Blob.checked(output.digest, record.inline[output.path]).data",
                    "data = record.inline[output.path]",
                    LYING + "test_inlined_bytes_that_are_not_the_signed_outputs_are_not_written"),
    "update": Case("rpc/reapi/server.py", 'raise PolicyError("only workers write results", reason="update-refused")',
                   "return pb.ActionResult()",
                   SURFACE + "test_a_stolen_laptop_cannot_write_a_result_not_even_a_truly_signed_one"),
    "room": Case("rpc/base/blob_room.py", "self._held[tenant] + size_bytes > MAX_TENANT_BYTES", "False",
                 SURFACE + "test_uploads_that_never_end_take_a_tenants_room_and_not_the_worker"),
    "directory-size": Case("reapi/tree.py", "if digest.size_bytes > MAX_DIRECTORY_BYTES:", "if False:",
                           SURFACE + "test_messages_larger_than_any_of_their_kind_are_refused_before_they_are_read"),
    "injected": Case("worker/execute/session.py", "replace(lineage, injected_flags=injected),", "lineage,",
                     SURFACE + "test_flags_that_one_client_calls_injected_are_not_in_a_colleagues_row"),
    "rights": Case("worker/execute/session.py", "self._may_execute()\n        self._deps.deduper.cancel",
                   "self._deps.deduper.cancel",
                   SURFACE + "test_a_token_for_the_cache_alone_cannot_join_or_cancel_a_compile"),
    "stderr": Case(SIGNED, "hashlib.sha256(record.stderr).digest(),", "",
                   UNIT + "test_a_result_with_another_field_is_refused[stderr]"),
    "exit-code": Case(SIGNED, "record.exit_code,", "0,",
                      UNIT + "test_a_result_with_another_field_is_refused[exit_code]"),
    "path": Case(SIGNED, "output.path.encode(), str(output.digest)", 'b"", str(output.digest)',
                 UNIT + "test_a_store_writer_who_swaps_paths_or_files_is_caught"),
    "tenant": Case(SIGNED, "scope.tenant.value,", '"",', UNIT + "test_a_result_that_answers_another_question_is_refused"),
    "action": Case(SIGNED, "str(scope.action),", '"",',
                   UNIT + "test_a_result_that_answers_another_question_is_refused"),
    "principal": Case(SIGNED, "scope.principal if is_private else", "",
                      UNIT + "test_a_result_that_answers_another_question_is_refused"),
    "image": Case(SIGNED, "if record.image != terms.image.value:", "if False:",
                  UNIT + "test_a_true_result_that_the_tenant_does_not_accept_is_refused"),
    "isolation": Case(SIGNED, "if record.isolation.rank < terms.minimum_isolation.rank:", "if False:",
                      UNIT + "test_a_true_result_of_weaker_isolation_is_refused"),
    "reuse": Case(SIGNED, "if record.reuse.stricter(terms.reuse) is not record.reuse:", "if False:",
                  UNIT + "test_a_true_result_that_the_tenant_does_not_accept_is_refused"),
    "future": Case(SIGNED, "if signature.signed_at_ms / 1000 > now + MAX_RESULT_SKEW_SECONDS:", "if False:",
                   UNIT + "test_a_result_of_the_future_is_refused_and_the_clocks_may_differ_by_minutes"),
    "class": Case(ENTRIES, "if (record.isolation, record.reuse) != (domain.isolation, domain.reuse):",
                  "if False:", CAUGHT + "swaps_reuse_classes_is_caught"),
    "lineage": Case(ENTRIES, "if record.lineage_digest != _digest(head):", "if False:",
                    CAUGHT + "changes_the_origin_in_later_rows_is_caught"),
    "unlisted": Case(KEYS, "found = _Known(_read(name[1], raw), self._clock.monotonic())",
                     "found = _Known(_read(name[1], raw) or (known and known.key), self._clock.monotonic())",
                     UNIT + "test_a_result_of_a_revoked_key_is_refused_within_a_minute"),
    "key-id": Case(KEYS, "return key if key_id(key) == kid else None", "return key",
                   UNIT + "test_a_scheduler_that_answers_with_another_key_is_not_believed"),
    "flood": Case(KEYS, "return self._asked <= MAX_ASKED", "return True",
                  UNIT + "test_invented_key_names_do_not_make_anybody_flood_the_scheduler"),
    "possession": Case(RESULTS, "key.verify(proof, _possession(worker_id, certificate))", "pass",
                       TABLE + "test_a_worker_that_registers_the_key_of_another_is_refused"),
    "revoked-listed": Case(LIST, "return not key.revoked_at and", "return",
                           TABLE + "test_a_revoked_key_is_off_the_list_for_ever_and_its_worker_is_named"),
    "revoked-registers": Case(LIST, "if listed.revoked_at:", "if False:",
                              TABLE + "test_a_revoked_key_is_off_the_list_for_ever_and_its_worker_is_named"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
