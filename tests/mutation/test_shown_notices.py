"""Each check of what a farm or a build's record shows is needed: without it, its test fails."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

SEEN = "tests/unit/scheduler/test_observe.py::"
ANSWERS = "tests/unit/rpc/scheduler/test_observe.py::"
PORT = "tests/unit/obs/metrics/test_admin.py::"
HEALTH = "tests/unit/obs/health/test_"
SERIES = "tests/unit/obs/metrics/test_registry.py::"
CLIENT = "tests/unit/cli/cache/test_client_metrics.py::"
LIVES = "tests/unit/scheduler/test_registry.py::"
MARKS = "tests/unit/scheduler/test_drains.py::"
DRAINS = "tests/unit/worker/test_drain.py::"
OBSERVER, SERVER = "scheduler/observe.py", "obs/http/serve.py"
REGISTRY = "obs/metrics/registry.py"
PARTS = "tests/unit/cache/recorder/test_part_bytes.py::"
FILES = "tests/unit/cache/recorder/test_recorder.py::"
LOGS = "tests/unit/obs/test_json_lines.py::"
SESSIONS = "tests/unit/cli/web/test_session.py::"
FARM = "tests/unit/cli/web/test_farm_site.py::"


CASES = {
    "shown-tenants": Case(OBSERVER, "            if only in {None, share.tenant}:", "            if True:",
                          SEEN + "test_a_member_sees_its_tenant_and_nothing_of_others"),
    "shown-workers": Case(OBSERVER, "        if not is_operator:\n            return common",
                          "        if False:\n            return common",
                          SEEN + "test_a_member_sees_its_tenant_and_nothing_of_others"),
    "shown-operators": Case(OBSERVER, 'f"{tenant}/{principal}" in self._operators',
                            'any(o.endswith(f"/{principal}") for o in self._operators)',
                            SEEN + "test_an_operator_of_one_tenant_is_nobody_in_another"),
    "shown-pages": Case(OBSERVER, "if len(self._pages) < _MAX_PAGES:", "if True:",
                        SEEN + "test_pages_that_an_operator_asks_for_take_bounded_memory"),
    "shown-second": Case(OBSERVER, "if now - self._listed_at >= _COUNT_SECONDS:", "if True:",
                         SEEN + "test_operators_who_look_in_one_second_get_one_page"),
    "shown-hour": Case(OBSERVER, '        self._check_operator(session, "how busy workers were")\n', "",
                       SEEN + "test_the_load_of_the_last_hour_is_for_operators_and_bounded"),
    "shown-worker": Case(OBSERVER, '        self._check_operator(session, "workers")\n        row =',
                         "        row =", SEEN + "test_a_worker_has_bounded_images_and_places_by_"
                         "tenant_for_operators_only"),
    "shown-routes": Case(OBSERVER, "            if only in {None, tenant}:\n                known = found"
                         ".get(tenant, TenantStatus(tenant=tenant))\n                counts",
                         "            if True:\n                known = found"
                         ".get(tenant, TenantStatus(tenant=tenant))\n                counts",
                         SEEN + "test_a_member_sees_its_tenant_and_nothing_of_others"),
    "shown-shared-count": Case("scheduler/base/metrics.py", "            if tenant != OTHER:", "            if True:",
                               "tests/unit/scheduler/base/test_scheduler_metrics.py::"
                               "test_tenants_that_share_one_count_have_none"),
    "shown-endless-worker": Case("rpc/scheduler/worker_detail.py", "len(answer.images) > MAX_IMAGES", "False",
                                 ANSWERS + "test_a_worker_of_more_than_its_bounds_is_no_answer"),
    "shown-again": Case("rpc/scheduler/observe.py",
                        "page.workers[0].worker_id <= after", "False",
                        ANSWERS + "test_a_scheduler_that_repeats_or_exceeds_is_no_answer"),
    "shown-series": Case(REGISTRY, "if len(self._children) - (rest in self._children) >= self.family.most:", "if False:",
                         SERIES + "test_a_worker_with_ten_thousand_tenants_and_reasons_has_few_series"),
    "shown-words": Case(REGISTRY, "if len(self._known) >= self._most or", "if False or",
                        SERIES + "test_tenants_have_the_same_names_in_each_metric"),
    "shown-host": Case("obs/http/request.py",
                       "if loopback_only and not is_loopback(_host_of(hosts[0])):", "if False:",
                       PORT + "test_a_request_is_read_strictly"),
    # Workers that drain (ADR 98).
    "drain-routed": Case("routing/fleet.py", " and not member.is_draining", "",
                         LIVES + "test_a_worker_that_drains_gets_no_route_and_its_routes_end"),
    "drain-routes-end": Case("scheduler/registry.py", "if said and registration.is_draining and not was_draining:", "if False:",
                             LIVES + "test_a_worker_that_drains_gets_no_route_and_its_routes_end"),
    "drain-other": Case("scheduler/drains.py", "progress is not None and progress.at == mark.at", "progress is not None",
                        MARKS + "test_the_scheduler_that_hears_the_worker_says_how_far_it_is"),
    "drain-sources": Case("worker/drain.py", "if self._wishes.pop(source, None) is not None:", "if self._wishes:\n            self._wishes.clear()",
                          DRAINS + "test_compiles_are_taken_again_when_nobody_wants_the_drain"),
    "drain-waiting": Case("worker/stores/quotas.py", "            use.refuse()", "            pass",
                          DRAINS + "test_what_waits_for_a_place_or_a_guest_goes_elsewhere_at_once"),
    "drain-claims": Case("worker/drain.py", "while self._sharing.pending and not", "while False and not",
                         DRAINS + "test_a_worker_that_ends_publishes_what_it_owes_to_colleagues"),
    "shown-places": Case(SERVER, "if len(self._silent) >= MAX_CONNECTIONS:", "if False:",
                         PORT + "test_those_who_are_silent_keep_no_probe_out"),
    "shown-oldest": Case(SERVER, "next(iter(self._silent))", "next(reversed(self._silent))",
                         PORT + "test_those_who_are_silent_keep_no_probe_out"),
    "shown-waiting": Case(SERVER, "elif self._asking[place] < MAX_CONNECTIONS:", "else:",
                          PORT + "test_those_who_wait_for_a_hanging_service_are_few"),
    "shown-one-bit": Case("rpc/base/health.py", "if health.conditions().is_serving else", "if True else",
                          "tests/unit/rpc/base/test_health.py::test_a_stranger_learns_one_bit"),
    "shown-one-line": Case("obs/health/health.py", "return one_line(text)[:", "return text[:",
                           HEALTH + "health.py::test_a_reason_is_one_short_line_whatever_it_holds"),
    "shown-manager": Case("obs/health/manager.py", 'environment.pop(_SOCKET, "")',
                          'environment.get(_SOCKET, "")',
                          HEALTH + "manager.py::test_no_program_that_a_service_starts_can_speak_for_it"),
    "shown-one-look": Case("obs/health/watched.py", "if self._looking is None:", "if True:",
                           HEALTH + "watched.py::test_a_look_that_hangs_takes_one_thread"),
    "shown-end": Case("obs/health/messages.py", "if left > 0 else []", "",
                      HEALTH + "messages.py::test_an_end_gets_as_much_time_as_the_service_needs_and_no_more"),
    "shown-from-zero": Case("audit/metered.py", "service.security_event(name, 0)", "pass",
                            SERIES + "test_what_an_alert_watches_begins_at_zero"),
    "shown-to-collector": Case("cli/cache/client_metrics.py", "os.fchmod(file.fileno(), _MODE)", "pass",
                               CLIENT + "test_a_file_is_replaced_whole_and_all_may_read_it"),
    "shown-label": Case("cli/cache/client_metrics.py", "match[1] in _TAKEN", "False",
                        CLIENT + "test_a_label_that_would_break_the_series_is_refused"),
    # Records of builds (ADR 59).
    "recorded-checksum": Case("cache/recorder/part_bytes.py",
                              "zlib.crc32(hits, zlib.crc32(text, zlib.crc32(lengths))) != check:",
                              "False:", PARTS + "test_a_changed_byte_is_noticed_wherever_it_is"),
    "recorded-builds": Case("cache/recorder/places.py",
                            "removed = [part for part in parts if part.build in gone]",
                            "removed: list[PartFile] = []",
                            FILES + "test_the_oldest_builds_go_when_there_are_too_many"),
    "shown-uncaught": Case("obs/logs.py", "        log_to_stderr(level, self._form)\n        _log_what_python_writes()\n",
                           "        log_to_stderr(level, self._form)\n",
                           LOGS + "test_text_is_the_default_and_the_environment_decides"),
    "shown-end-text": Case("obs/logs.py", "{_safe(text)}\\n", "{plain(text)}\\n",
                           LOGS + "test_text_is_the_default_and_the_environment_decides"),
    # Pages for one browser (ADR 104).
    "web-once": Case("cli/web/session.py", "        self._token = None\n", "",
                     SESSIONS + "test_the_link_opens_once_and_its_cookie_is_for_its_path"),
    "web-path": Case("cli/web/session.py", "if not slash or not _is_equal(root, self.root[1:]):",
                     "if not slash:", SESSIONS + "test_the_cookie_counts_under_its_path_only_and_"
                     "the_path_with_its_cookie_only"),
    "web-other-pages": Case("cli/web/session.py",
                            'request.header("sec-fetch-site") in _FOREIGN or not', "not", SESSIONS
                            + "test_what_another_page_asks_for_is_refused_even_with_the_cookie"),
    "web-pause": Case("cli/web/site.py", " and began >= made.made_at + _PAUSES * made.cost_seconds",
                      "", "tests/unit/cli/web/"
                      "test_site.py::test_a_page_is_made_again_only_for_new_compiles_and_after_a_pause"),
    "web-log": Case("cli/web/web.py", "    log_to_stderr(logging.WARNING)\n", "",
                    "tests/unit/cli/web/"
                    "test_web.py::test_an_error_of_a_page_is_nothing_that_the_terminal_obeys"),
    "web-turn": Case("cli/web/site.py", "return await asyncio.shield(making)", "return await making",
                     "tests/unit/cli/web/test_site.py::"
                     "test_a_page_whose_request_ended_is_made_to_its_end_before_the_next_one"),
    # Pages about the farm (ADR 108).
    "web-member": Case("cli/web/farm_site.py", "if not picture.is_operator:", "if False:",
                       FARM + "test_a_member_causes_no_question_that_the_farm_would_refuse"),
    "web-shared": Case("cli/web/farm_site.py", "if self._last is not None and began < self._ask_at:",
                       "if False:", FARM + "test_all_pages_of_two_seconds_share_one_question_and_"
                       "a_large_farm_is_asked_less_often"),
    "web-tenant-link": Case("cli/web/parts/farm_parts.py", "if not _TENANT.fullmatch(name):", "if False:",
                            FARM + "test_no_text_of_a_scheduler_becomes_markup"),
    "recorded-names": Case("cli/builds/parts.py", "return escape(one_line(value))",
                           "return one_line(value)", "tests/unit/cli/builds/test_page.py::"
                           "test_no_name_becomes_markup_or_a_control"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
