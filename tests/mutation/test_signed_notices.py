"""Each check of the signed remote cache is needed: without it, the test of its attack fails.

The cases work as in `test_identity_notices.py`.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

ENTRY, TRUST, REMOTE = "cache/signed/entry.py", "cache/signed/trust.py", "cache/signed/remote.py"
OUTLINE = "cache/signed/outline.py"
OUTLINES = "tests/unit/cache/signed/test_outline.py::"
ENTRIES = "tests/unit/cache/signed/test_entry.py::"
BOOK = "tests/unit/cache/signed/test_trust.py::"
TEAM = "tests/integration/signed/test_two_machines.py::"
THIEF = "tests/integration/signed/test_stolen_credential.py::"
FARM, USES = "tests/integration/packs/test_packs_on_a_farm.py::", "dispatch/memory/uses.py"
PLACE = "tests/integration/signed/test_reapi_place.py::"

CASES = {
    "signature": Case(ENTRY, "key.public.verify(record.signature, _DOMAIN + record.header)", "pass",
                      ENTRIES + "test_each_part_of_a_record_is_covered[signature-signature]"),
    "digest": Case(ENTRY, "return key if expected == record.header else RefusedEntry.SIGNATURE", "return key",
                   ENTRIES + "test_each_part_of_a_record_is_covered[packed-signature]"),
    "role": Case(ENTRY, "if key.role != ROLE_ENTRIES:", "if False:",
                 ENTRIES + "test_a_key_of_another_role_signs_no_entry"),
    "namespace": Case(ENTRY, "if fields[1] != namespace.encode():", "if False:",
                      ENTRIES + "test_an_entry_of_another_namespace_does_not_count"),
    "name": Case(ENTRY, "if fields[4:7] != list(name):", "if False:",
                 ENTRIES + "test_another_name_is_another_entry"),
    "format": Case(ENTRY, "if is_odd or fields[0] != form:", "if is_odd:",
                   ENTRIES + "test_a_record_of_another_format_does_not_count"),
    "size": Case(ENTRY, "if size > limit:", "if False:",
                 ENTRIES + "test_content_over_the_limit_is_not_unpacked"),
    "records": Case(ENTRY, "not 0 < len(records) <= MAX_RECORDS", "not records",
                    ENTRIES + "test_too_many_records_are_not_an_object"),
    "source": Case(ENTRY, "code != _SUCCESS or not is_of_source or", "code != _SUCCESS or",
                   ENTRIES + "test_an_entry_without_its_source_does_not_count"),
    "paths": Case(ENTRY, "or not all(map(_is_name, _names(inputs)))", "",
                  ENTRIES + "test_a_path_that_is_no_path_does_not_count"),
    "bound": Case(TRUST, "if row[:2] == (root, place))", "if True)",
                  BOOK + "test_a_confirmation_is_bound_to_root_place_and_line"),
    "revoked": Case(TRUST, "if kid in bad | revoked:", "if False:",
                    BOOK + "test_a_revocation_counts_wherever_it_is_written"),
    "expired": Case(TRUST, "valid = [key for key in found if not key.is_expired(now)]", "valid = found",
                    BOOK + "test_a_key_counts_until_its_last_day_is_over"),
    "damaged": Case(TRUST, "found = None\n", "found = TrustFile()\n",
                    BOOK + "test_a_damaged_file_takes_all_trust_away"),
    "inputs": Case(REMOTE, "if not checkout.spelled_set(inputs).holds(self._memo):", "if False:",
                   TEAM + "test_a_compile_that_differs_in_one_header_is_compiled"),
    "other-names": Case("cache/results/share_results.py", "if is_whole and self._means_the_same(share, view.files):", "if is_whole:",
                        TEAM + "test_an_equal_file_behind_a_link_may_have_another_name_and_is_compiled"),
    "own-key": Case(REMOTE, "share.key, key.kid.encode(), self._config.place", "share.key, self._config.place",
                    THIEF + "test_a_fetched_result_is_stored_by_its_key"),
    "service-size": Case("rpc/reapi/service_objects.py", "_check_size(size, limit)\n", "pass\n",
                         PLACE + "test_a_blob_over_the_callers_limit_is_not_asked_for"),
    "urls-in-logs": Case("obs/logs.py", "handler.addFilter(_is_kept)\n", "pass\n",
                         "tests/unit/obs/test_logs.py::test_a_request_with_a_secret_in_its_url_leaves_no_line[text]"),
    "outline-signature": Case(OUTLINE, "key.public.verify(record.signature, _DOMAIN + record.header)", "pass",
                              OUTLINES + "test_only_a_signature_for_this_name_counts"),
    "outline-name": Case(OUTLINE, "return key if record.header == _header(name, namespace, key, record.packed) else None", "return key",
                         OUTLINES + "test_only_a_signature_for_this_name_counts"),
    "outline-role": Case(OUTLINE, "or key.role != ROLE_ENTRIES", "",
                         OUTLINES + "test_a_key_of_another_role_signs_no_outline"),
    "outline-flags": Case(OUTLINE, "if is_odd or not all(FLAG_NAME.fullmatch(flag) for flag, _ in pairs):", "if is_odd:",
                          OUTLINES + "test_a_name_of_a_flag_that_is_a_text_is_refused"),
    "outline-value": Case("cache/key/command_outline.py", "name + _marked(flag, root), _VALUE_BYTES)", "name + _marked(flag, root), 32)",
                          TEAM + "test_an_outline_of_a_command_has_two_bytes_of_each_flag"),
    "packed-check": Case("dispatch/results.py", """                return PACK_OTHER
            await self._check(record, connection, worker, prepared)""", "                return PACK_OTHER",
                         FARM + "test_forged_truncated_and_foreign_entries_are_refused"),
    "packed-content": Case("dispatch/results.py", 'Blob.checked(o.digest, record.inline.get(o.path, b"")).data', 'record.inline.get(o.path, b"")',
                           FARM + "test_forged_truncated_and_foreign_entries_are_refused"),
    "packed-class": Case("reapi/packed.py", "return is_fresh and sharing.accepts_fresh", "return is_fresh",
                         FARM + "test_where_votes_need_different_workers_a_fresh_guests_result_is_refused"),
    "packed-tenant": Case(USES, "not worker.route.packs or", "",
                          FARM + "test_a_tenant_refuses_packs_unless_its_table_allows_them"),
    "packed-question": Case(USES, "self._is_asked = await self._sent([])", "self._is_asked = True",
                            FARM + "test_a_worker_that_takes_no_reports_gets_no_use_of_packs"),
    "packed-waiting": Case(USES, "or len(self._waiting) >= MAX_WAITING", "",
                           FARM + "test_reports_wait_for_a_worker_and_nothing_is_used_while_too_many_wait"),
    "packed-row": Case("worker/execute/meeting.py", "await check_result(record, terms, self._deps.result_keys, now=self._deps.clock.now())", "pass",
                       FARM + "test_a_use_that_a_worker_refuses_is_recorded_and_ends_the_use_of_packs"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
