"""Each check of a farm's builds and objects is needed: without it, a test named after it fails."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

STORE, STORES = "scheduler/base/build_store.py", "tests/unit/scheduler/base/test_build_store.py::"
SUMMARY, SUMMARIES = "core/build_summary.py", "tests/unit/core/test_build_summary.py::"
CALLS, ASKS = "rpc/scheduler/builds.py", "tests/unit/rpc/scheduler/test_builds.py::"
MESSAGES = "rpc/scheduler/build_messages.py"
REPORTS = "tests/unit/cache/recorder/test_reporting.py::"
PAGE, PAGES = "cli/web/parts/farm_builds.py", "tests/unit/cli/web/test_farm_builds.py::"
SUMS = "tests/unit/cli/web/test_overview.py::"
OBJECT, OBJECTS = "cli/base/farm_object.py", "tests/unit/cli/base/test_farm_object.py::"
LANES, LANE_TESTS = "core/build_lanes.py", "tests/unit/core/test_build_lanes.py::"
EVENTS, EVENT_TESTS = (
    "scheduler/audit/worker_events.py",
    "tests/unit/scheduler/audit/test_worker_events.py::",
)
NOTED, NOTED_TESTS = (
    "rpc/scheduler/recent_events.py",
    "tests/unit/rpc/scheduler/test_recent_events.py::",
)
CASES = {
    "lane-inside": Case(LANES, "and sum(gaps) + sum(lengths) <= PARTS", "and True",
                        LANE_TESTS + "test_what_is_no_bar_of_the_builds_time_is_no_lane"),
    "lane-room": Case(LANES, "    _close_gaps(drawn)\n", "",
                      LANE_TESTS + "test_more_bars_than_may_be_lose_their_narrowest_gaps_and_no_compile"),
    "lane-place": Case(SUMMARY, "lane.where in places and is_lane(lane)", "is_lane(lane)",
                       SUMMARIES + "test_what_is_outside_its_bounds_is_refused"),
    "event-of-whom": Case(EVENTS, "replace(event, worker=worker_id, at=min(event.at, now))", "replace(event, at=min(event.at, now))",
                          EVENT_TESTS + "test_an_event_is_of_who_sent_it_and_not_of_later_than_now"),
    "event-later": Case(EVENTS, "at=min(event.at, now))", "at=event.at)",
                        EVENT_TESTS + "test_an_event_is_of_who_sent_it_and_not_of_later_than_now"),
    "event-again": Case(EVENTS, "                continue\n", "                pass\n",
                        EVENT_TESTS + "test_what_a_new_stream_says_again_is_there_once"),
    "event-greediest": Case(EVENTS, "worker_id = max(self._held", "worker_id = min(self._held",
                            EVENT_TESTS + "test_all_workers_together_have_a_limit_and_who_has_most_loses"),
    "event-turns": Case(NOTED, "newest_first(islice(_in_turns(map(_by_rank, by_worker.values())), most))", "newest_first(events)[:most]",
                        NOTED_TESTS + "test_a_worker_that_says_much_hides_no_other_in_a_short_list"),
    "event-length": Case(NOTED, "        if room < 0:\n", "        if False:\n",
                         NOTED_TESTS + "test_a_heartbeats_events_are_cut_to_their_bounds_and_claim_no_worker"),
    "event-stream": Case("worker/link.py", "self._pulse, self._told = self._client.pulse(), 0", "self._pulse = self._client.pulse()",
                         "tests/unit/worker/test_link.py::test_each_event_of_the_trail_goes_with_one_heartbeat_and_again_to_a_new_stream"),
    "tenant": Case(STORE, "if only in {None, person[0]}:", "if True:",
                   STORES + "test_another_tenants_builds_are_not_shown_and_look_as_if_there_were_none"),
    "losses": Case(STORE, "self._displaced.total() if only is None else self._displaced[only]", "self._displaced.total()",
                   STORES + "test_a_flood_of_one_person_displaces_that_persons_builds_only"),
    "person-room": Case(STORE, "while self._person_bytes[person] > self._limits.person_bytes:", "while False:",
                        STORES + "test_a_flood_of_one_person_displaces_that_persons_builds_only"),
    "greediest": Case(STORE, "tenant = max(self._tenant_bytes", "tenant = min(self._tenant_bytes",
                      STORES + "test_a_flood_of_many_people_of_one_tenant_leaves_the_others_alone"),
    "least-size": Case(STORE, "return max(len(self.encoded), _LEAST_BYTES)", "return len(self.encoded)",
                       STORES + "test_small_reports_take_no_more_places_than_large_ones"),
    "rate": Case(STORE, "if rate.allowance < 1:", "if False:",
                 STORES + "test_who_reports_too_often_is_told_to_wait_and_others_are_not"),
    "look-rate": Case(STORE, 'self._check(session, "look", rates, "builds are looked at too often")', "pass",
                      STORES + "test_who_looks_too_often_is_told_to_wait_and_others_and_reports_are_not"),
    "bytes": Case(MESSAGES, "if said.ByteSize() > MAX_SUMMARY_BYTES:", "if False:",
                  ASKS + "test_a_summary_of_many_bytes_is_refused_before_its_rows_are_read"),
    "rows": Case(SUMMARY, "if len(rows) > most:", "if False:",
                 SUMMARIES + "test_what_is_outside_its_bounds_is_refused"),
    "words": Case(SUMMARY, "if not _WORD.fullmatch(word):\n                raise", "if False:\n                raise",
                  SUMMARIES + "test_what_is_outside_its_bounds_is_refused"),
    "detail": Case(SUMMARY, "return word if not word or _WORD.fullmatch(word) else OTHER", "return word",
                   REPORTS + "test_no_name_of_a_file_and_no_detail_of_a_reason_is_in_a_summary"),
    "question": Case(CALLS, "for r in one if r.build_id == build_id", "for r in one",
                     ASKS + "test_a_build_is_put_together_and_an_answer_to_another_question_is_none"),
    "option": Case(PAGE, 'f"hpcc report -- {name}"', 'f"hpcc report {name}"',
                   PAGES + "test_hostile_names_are_escaped_everywhere_and_a_command_to_copy_runs_nothing_else"),
    "worker-link": Case(PAGE, "if any(w.worker_id == name for w in picture.workers):", "if True:",
                        PAGES + "test_a_worker_is_a_link_only_for_who_sees_that_worker"),
    "missed": Case("cache/results/records.py", "if kind_of(outcome) in MISSED:", "if True:",
                   "tests/unit/cache/results/test_records.py::test_a_miss_is_counted_by_its_reason_as_a_report_counts_it"),
    "last-counts": Case("cache/base/counters.py", "if is_over:", "if False:",
                        "tests/unit/cache/base/test_counters.py::test_what_is_counted_after_the_end_is_written_at_once"),
    "theme": Case("cli/web/parts/shell.py", "if name == THEME_COOKIE and value in THEMES:", "if name == THEME_COOKIE:",
                  SUMS + "test_a_theme_is_one_of_two_words"),
    "other-tenants": Case("cli/web/parts/sums.py", 'if choice.tenant in {"", report.tenant}:', "if True:",
                          SUMS + "test_a_build_inside_the_time_is_counted_whole_with_its_reasons_and_its_tenant"),
    "ahead": Case("cli/web/parts/sums.py", "ahead = max(s.ended_ms / 1000 - report.reported_at, 0.0)", "ahead = 0.0",
                  SUMS + "test_a_clock_that_is_ahead_is_moved_back_and_hostile_times_cost_little"),
    "signature": Case(OBJECT, "            await check_result(record, terms, connection.result_keys, now=self._clock.now())\n", "            pass\n",
                      OBJECTS + "test_a_signature_holds_for_a_listed_key_and_what_it_signed_only"),
    "fetched": Case(OBJECT, "    try:\n        await client.download(digests)\n", "    try:\n        pass\n",
                    OBJECTS + "test_bytes_hold_only_if_they_were_fetched_and_compared"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
