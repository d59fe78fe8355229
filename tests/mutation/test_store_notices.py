"""Each check of shared stores and of the schedulers' store is needed: without it, its test fails."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

PARTS = "tests/unit/store/test_shared_parts.py::"
CONTROL = "tests/contract/test_control_store.py::"
OBJECTS, BLOBS = "store/objects.py", "store/bucket/object_blobs.py"
BEHIND, KNOWN = "store/write_behind.py", "store/known.py"
POSTGRES, CHECKS = "control/postgres.py", "control/checks.py"
CASES = {
    # ---- what a service gives back ----
    "key": Case(
        OBJECTS,
        "if len(key) > _MAX_KEY_CHARS or not _KEY.fullmatch(key):",
        "if len(key) > _MAX_KEY_CHARS:",
        PARTS + "test_a_key_that_a_service_could_read_as_another_is_refused",
    ),
    "moved": Case(
        BLOBS,
        "if data[:_HEADER_BYTES] != self._header(action, record):",
        "if False:",
        PARTS + "test_a_result_moved_to_another_action_or_trust_domain_is_a_miss",
    ),
    "probes": Case(
        BLOBS,
        "asked = iter(wanted[: self._config.max_probes])",
        "asked = iter(wanted)",
        PARTS + "test_a_question_about_too_many_blobs_asks_for_some_and_calls_the_rest_missing",
    ),
    # ---- what is published ----
    "blobs-first": Case(
        BEHIND,
        "await self._blobs.settle(digests, self._source)",
        "pass",
        PARTS + "test_a_result_is_published_after_every_blob_it_refers_to",
    ),
    "pending": Case(
        BEHIND,
        "if self._pending_bytes + size > self._config.max_pending_bytes:",
        "if False:",
        PARTS + "test_what_waits_is_bounded_and_what_is_dropped_is_counted",
    ),
    "known-damage": Case(
        KNOWN,
        "self._known.pop(digest, None)",
        "pass",
        PARTS + "test_what_was_seen_is_not_asked_for_again_until_it_is_old_or_damaged",
    ),
    # ---- what schedulers share ----
    "expected-version": Case(
        POSTGRES,
        "WHERE $4::bigint IS NULL OR e.version = $4",
        "WHERE $4::bigint IS NULL OR true",
        CONTROL + "test_of_two_who_read_the_same_version_one_writes",
    ),
    "lease-order": Case(
        POSTGRES,
        "WHERE (l.generation, l.expires_at) < (excluded.generation, excluded.expires_at)),",
        "),",
        CONTROL + "test_an_older_generation_or_an_earlier_end_never_replaces_a_lease",
    ),
    "anchor-back": Case(
        POSTGRES,
        "WHERE told.length < a.length OR (told.length = a.length AND told.head <> a.head)),",
        "WHERE false),",
        CONTROL + "test_an_anchor_never_goes_back_and_a_cut_chain_is_named",
    ),
    "login-turns": Case(
        POSTGRES,
        'await db.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", ask.tenant)',
        "pass",
        CONTROL + "test_logins_at_once_never_exceed_the_quota",
    ),
    "names": Case(
        CHECKS,
        "if not _NAME.fullmatch(name):",
        "if not name:",
        CONTROL + "test_a_name_that_no_store_could_keep_is_refused",
    ),
    "news": Case(
        CHECKS,
        "if len(text) > MAX_NEWS_CHARS or not text.isascii() or not text.isprintable():",
        "if False:",
        CONTROL + "test_values_and_news_are_bounded",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
