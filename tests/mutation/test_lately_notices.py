"""Each check of replaced keys, leased places, releases, addresses, connections and traces is needed."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

WORKER_KEYS = "tests/unit/worker/base/test_result_key.py::"
LISTED = "tests/unit/scheduler/test_result_keys.py::"
CERTIFICATES = "tests/unit/scheduler/test_certificates.py::"
RESEALS = "tests/unit/scheduler/test_resealing.py::"
SHARES = "tests/unit/scheduler/test_shares.py::"
PAUSES = "tests/unit/scheduler/test_share_pauses.py::"
LEASES = "tests/unit/worker/stores/test_leases.py::"
QUOTAS = "tests/unit/worker/stores/test_quotas.py::"
FAIR = "tests/property/test_fair_shares.py::"
RELEASES = "tests/unit/tools/test_release.py::"
ADDRESSES = "tests/unit/config/test_addresses.py::"
LOADS = "tests/unit/cache/host/test_loader.py::"
TRACES = "tests/unit/cache/host/test_wrappers.py::"
LOBBIES = "tests/unit/rpc/base/test_lobby.py::"
SILENCE = "tests/integration/hostile/test_silent_calls.py::"
LIMITS = "tests/unit/rpc/base/test_connection_limit.py::"
GUARDS = "tests/unit/rpc/base/test_connection_guard.py::"
HEADERS = "tests/integration/hostile/test_header_flood.py::"
CHANNEL = "rpc/base/channel.py"
CONNECTIONS, GUARD = "rpc/base/connection_limit.py", "rpc/base/connection_guard.py"
RESULT_KEY, LIST, KNOWN = (
    "worker/base/result_key.py",
    "scheduler/result_keys.py",
    "identity/known_certificates.py",
)
BOOK, SWITCH, RESEALING = (
    "scheduler/certificates.py",
    "scheduler/base/certificate.py",
    "scheduler/resealing.py",
)
SHARE, LEASE, PLACES, DEAL = (
    "scheduler/shares.py",
    "worker/stores/leases.py",
    "worker/stores/places.py",
    "control/shares.py",
)
DSSE, VERIFY, LOCK = "tools/release/dsse.py", "tools/release/verify.py", "tools/release/lock.py"
ADDRESS, LOADER, TRACE, TOOLS = (
    "config/addresses.py",
    "cache/host/loader.py",
    "cache/host/exec_trace.py",
    "cache/host/toolset.py",
)

CASES = {
    # Headers without end (ADR 76).
    "headers-counted": Case(CHANNEL, "(HeaderFlood(guards), *handlers)", "tuple(handlers)",
                            HEADERS + "test_a_call_with_too_many_headers_ends_its_address_and_no_other"),
    "headers-end-all": Case(GUARD, "            for fd in ended:", "            for fd in ended[:1]:",
                            GUARDS + "test_a_ban_ends_all_connections_of_an_address_and_no_other"),
    "ban-lasts": Case(CONNECTIONS, "min(source.allowance, 0.0)", "0.0",
                      LIMITS + "test_a_banned_address_stays_away_for_a_minute_whatever_it_tries"),
    "ban-unseen": Case(GUARD, "                self._count(now)  # what came since the last look", "                pass",
                       GUARDS + "test_a_ban_ends_all_connections_of_an_address_and_no_other"),
    # Keys that are replaced (ADR 73).
    "key-of-an-order": Case(RESULT_KEY, "if self._next is not None or kid != self.signer.key_id:", "if self._next is not None:",
                            WORKER_KEYS + "test_a_successor_signs_after_the_scheduler_has_listed_it"),
    "key-once": Case(RESULT_KEY, "if self._next is not None or kid", "if kid",
                     WORKER_KEYS + "test_a_successor_signs_after_the_scheduler_has_listed_it"),
    "key-announced": Case(RESULT_KEY, "if self._next is not None and registration.result_key == self._next.public:",
                          "if self._next is not None:",
                          WORKER_KEYS + "test_a_registration_with_the_old_key_announces_nothing"),
    "key-minute": Case(RESULT_KEY, "            await self._clock.sleep(self._announce_seconds)\n", "",
                       WORKER_KEYS + "test_a_successor_waits_out_its_announcement"),
    "key-moved": Case(RESULT_KEY, "            while not await asyncio.to_thread(self._has_moved):",
                      "            if not await asyncio.to_thread(self._has_moved):",
                      WORKER_KEYS + "test_a_key_signs_only_when_its_file_has_moved"),
    "key-retired": Case(LIST, "if is_retiring and not self._has_successor(key):", "if False:",
                        LISTED + "test_a_key_is_retired_only_when_another_one_signs"),
    "key-successor-signs": Case(LIST, " and not other.is_announced", "",
                                LISTED + "test_a_key_is_retired_only_when_another_one_signs"),
    "key-order-good": Case(LIST, "            if not self._is_good(key):\n                raise CallerError(f\"key {kid}",
                           "            if False:\n                raise CallerError(f\"key {kid}",
                           LISTED + "test_a_revoked_key_gets_no_order"),
    "key-order-newest": Case(LIST, "if key not in self.newest():", "if False:",
                             LISTED + "test_a_worker_is_told_to_replace_a_key_until_it_has"),
    "key-room": Case(LIST, "return kid if is_due and len(self._keys) < MAX_LISTED - _ROOM else \"\"", "return kid if is_due else \"\"",
                     LISTED + "test_no_key_is_due_when_the_list_has_no_room"),
    "announced-name": Case(KNOWN, "if {pin.name for pin in pems} != {self._peer.name}:", "if False:",
                           CERTIFICATES + "test_what_is_announced_counts_until_another_is_configured"),
    "announced-configured": Case(KNOWN, 'if table["configured"] != self._source:', "if False:",
                                 CERTIFICATES + "test_what_is_announced_counts_until_another_is_configured"),
    "announced-file": Case(KNOWN, "        except _UNUSABLE as error:", "        except KeyError as error:",
                           CERTIFICATES + "test_a_damaged_file_of_announced_certificates_is_not_used"),
    "announced-file-name": Case(KNOWN, "if found.name != self._peer.name:", "if not found.name:",
                                CERTIFICATES + "test_a_kept_certificate_of_another_name_is_not_used"),
    "announced-retired": Case(KNOWN, "[c for c in self._configured if _id(c) not in self._seen]", "self._configured",
                              CERTIFICATES + "test_a_configured_certificate_stays_until_it_was_announced_and_is_not_any_more"),
    "announced-sealed": Case(BOOK, "self._sealer.unseal(_PURPOSE, entry.value)", "entry.value[:0] or entry.value",
                             CERTIFICATES + "test_schedulers_announce_the_same"),
    "announced-place": Case(BOOK, "return Announced(der, since) if certificate_id(der) == entry.key else None",
                            "return Announced(der, since)",
                            CERTIFICATES + "test_who_writes_the_store_announces_nothing"),
    "switch-cut-off": Case(SWITCH, 'if certificate.is_file() and not (following / f"{TLS_NAME}.key").exists():', "if False:",
                           CERTIFICATES + "test_a_switch_that_was_cut_off_is_finished"),
    "reseal-ring": Case(RESEALING, "    if ring is not None and kept is None:\n", "    if False:\n",
                        RESEALS + "test_a_wrong_old_key_is_refused_for_each_secret"),
    "reseal-ca": Case(RESEALING, "        if raw is None:\n", "        if False:\n",
                      RESEALS + "test_a_wrong_old_key_is_refused_for_each_secret"),
    "reseal-kept": Case(RESEALING, "if ring is not None and _opened_ring_or_none(ring, new, new) is None:", "if ring is not None:",
                        RESEALS + "test_lost_secrets_are_made_anew_and_revoked_workers_stay_revoked"),
    # Leased places (ADR 68).
    "share-room": Case(SHARE, "places[key] = min(fair[key], room)", "places[key] = fair[key]",
                       SHARES + "test_what_runs_on_counts_until_it_ends"),
    "share-tenant": Case(SHARE, "is not None and policy.quotas.is_leased\n        }", "is not None\n        }",
                         SHARES + "test_a_tenant_without_farm_limits_needs_no_lease"),
    "share-pause": Case(SHARE, "min(_BREATHS * self._took_seconds, _MAX_BREATH_SECONDS)", "0.0",
                        PAUSES + "test_the_more_a_division_takes_the_longer_is_the_pause_behind_it"),
    "share-answer": Case(SHARE, "if any(self._pending.get(key) is share for key, share in mine.items()):", "if True:",
                         PAUSES + "test_a_worker_that_shared_in_a_division_does_not_wait_for_the_pause_behind_it"),
    "share-cancel": Case(SHARE, "                finally:\n", "                except KeyError:\n",
                         PAUSES + "test_a_worker_that_goes_away_in_a_division_ends_no_pause"),
    "share-held": Case(DEAL, "held = max(granted, share.held) if key in places else 0", "held = granted if key in places else 0",
                       SHARES + "test_what_runs_on_counts_until_it_ends"),
    "lease-current": Case(LEASE, "return self.places if self._leases.is_current else 0", "return self.places",
                          LEASES + "test_a_process_that_was_stopped_asks_before_it_starts_more"),
    "lease-idle": Case(LEASE, "if not (ask.wanted or ask.held) and held.is_idle:", "if False:",
                       LEASES + "test_an_idle_principal_gives_its_places_back_and_is_forgotten"),
    "fair-limit": Case("routing/fair.py", "tenant: min(people.total(), rules.limits.get(tenant, people.total()))",
                       "tenant: people.total()", FAIR + "test_no_more_than_wanted_and_allowed_and_no_place_is_idle"),
    # Releases (ADR 72).
    "release-signature": Case(DSSE, "if not any(is_signed(", "if False and not any(is_signed(",
                              RELEASES + "test_an_envelope_opens_with_its_key_only"),
    "release-type": Case(DSSE, "if kind != PAYLOAD_TYPE:", "if False:", RELEASES + "test_a_changed_envelope_is_refused"),
    "release-key-mode": Case(DSSE, "if stat.S_IMODE(path.stat().st_mode) & 0o077:", "if False:",
                             RELEASES + "test_a_key_that_others_can_read_or_of_another_kind_is_refused"),
    "release-nesting": Case(DSSE, "TypeError, RecursionError, binascii.Error)", "TypeError, binascii.Error)",
                            RELEASES + "test_json_without_a_bottom_is_refused_and_no_crash"),
    "release-files": Case(VERIFY, "if extra := present ^ listed.keys():", "if extra := listed.keys() - present:",
                          RELEASES + "test_a_file_more_or_less_is_refused"),
    "release-digest": Case(VERIFY, 'if statements.digest(_read(directory / name))["sha256"] != digest:', "if not _read(directory / name):",
                           RELEASES + "test_sums_cover_exactly_the_files_of_the_directory"),
    "release-names": Case(VERIFY, "if not match or match[2] in listed:", "if not match:",
                          RELEASES + "test_a_file_that_is_listed_twice_is_refused"),
    "release-links": Case(VERIFY, "if file.is_symlink() or not file.is_file():", "if not file.is_file():",
                          RELEASES + "test_a_link_in_place_of_a_file_is_refused"),
    "release-unsigned": Case(VERIFY, "    if not is_signed:\n", "    if False:\n",
                             RELEASES + "test_an_unsigned_release_is_refused_unless_that_is_asked_for"),
    "release-sums": Case(VERIFY, "if key and not dsse.is_signed(", "if False and not dsse.is_signed(",
                         RELEASES + "test_sums_that_another_key_signed_are_refused"),
    "release-kind": Case(VERIFY, 'if (statement.get("_type"), statement.get("predicateType")) != (statements.TYPE, kind):', "if False:",
                         RELEASES + "test_a_statement_of_another_kind_or_other_files_is_refused"),
    "release-subject": Case(VERIFY, 'if statement.get("subject") != statements.subjects(files):', "if False:",
                            RELEASES + "test_a_statement_of_another_kind_or_other_files_is_refused"),
    "release-commit": Case(VERIFY, 'if wanted.commit not in {"", commit}:', "if False:",
                           RELEASES + "test_a_provenance_that_is_untrue_is_refused"),
    "release-builder": Case(VERIFY, 'if wanted.builder not in {"", builder}:', "if False:",
                            RELEASES + "test_a_provenance_that_is_untrue_is_refused"),
    "release-version": Case(VERIFY, "if version != origin.version:", "if False:",
                            RELEASES + "test_a_provenance_that_is_untrue_is_refused"),
    "release-materials": Case(VERIFY, "if used != statements.materials(commit, locks, pins):", "if False:",
                              RELEASES + "test_a_provenance_that_is_untrue_is_refused"),
    "release-pins": Case(LOCK, "    if bare := [package.name for package in found if not package.digests]:", "    if bare := []:",
                         RELEASES + "test_a_lock_file_with_an_unpinned_package_is_refused"),
    # Addresses that answers name.
    "address-nearer": Case(ADDRESS, "is not None and r <= most]", "is not None]",
                           ADDRESSES + "test_an_answer_may_name_nothing_nearer_than_what_was_configured"),
    "address-link": Case(ADDRESS, "if address in _CREDENTIALS or address.is_link_local:", "if address in _CREDENTIALS:",
                         ADDRESSES + "test_how_near_an_address_is"),
    "address-credentials": Case(ADDRESS, "if address in _CREDENTIALS or address", "if address",
                                ADDRESSES + "test_how_near_an_address_is"),
    "address-inner": Case(ADDRESS, "return address.ipv4_mapped or address.sixtofour or address", "return address",
                          ADDRESSES + "test_how_near_an_address_is"),
    "address-nat": Case(ADDRESS, "if int(address) > _UNSPECIFIED_AND_LOOPBACK and any(address in n for n in _HOLDS_IPV4):", "if False:",
                        ADDRESSES + "test_how_near_an_address_is"),
    "address-site": Case(ADDRESS, "    if is_site:\n", "    if False:\n", ADDRESSES + "test_how_near_an_address_is"),
    "address-answered": Case(ADDRESS, "most=near.get(configured)", "most=None",
                             ADDRESSES + "test_a_name_that_leads_to_this_machine_for_a_moment_reaches_nothing_nearer"),
    "address-shared": Case(ADDRESS, "if address.is_global and not is_shared else", "if address.is_global or is_shared else",
                           ADDRESSES + "test_how_near_an_address_is"),
    "address-connected": Case(ADDRESS, "        request.url.copy_with(host=address),\n", "        request.url,\n",
                              ADDRESSES + "test_it_connects_to_the_address_that_was_checked_with_the_names_header"),
    "address-name": Case(ADDRESS, '"sni_hostname": request.url.host', '"sni_hostname": address',
                         ADDRESSES + "test_the_certificate_is_that_of_the_name"),
    # Variables of the loader and of allocators (ADR 49, 65).
    "loader-reports": Case(LOADER, "_FOREIGN_CODE | _REPORTS", "_FOREIGN_CODE",
                           LOADS + "test_foreign_code_and_talk_are_refused"),
    "loader-talk": Case(LOADER, "if name in _TALKATIVE or (", "if (", LOADS + "test_foreign_code_and_talk_are_refused"),
    "loader-up": Case(LOADER, ' and b".." not in name for name', " for name", LOADS + "test_foreign_code_and_talk_are_refused"),
    "allocators-in-the-key": Case("cache/key/environment.py", 'not name.startswith(b"HPCC_")',
                                  'not name.startswith((b"HPCC_", b"MALLOC_", b"TCMALLOC_", b"MIMALLOC_"))',
                                  "tests/unit/cache/key/test_refused.py::test_variables_of_allocators_are_in_the_key"),
    # What a trace did not see (ADR 65).
    "trace-gaps": Case(TRACE, "is_seen = self._note(pid) and is_seen", "self._note(pid)",
                       TRACES + "test_one_execve_that_was_not_seen_is_a_gap"),
    "trace-begun": Case(TRACE, "if trace.found is None and trace.is_begun:", "if False:",
                        TRACES + "test_no_trace_is_no_answer"),
    "trace-over": Case(TRACE, "return is_seen and not self._is_over", "return is_seen",
                       TRACES + "test_a_command_without_end_is_ended_with_all_its_processes"),
    "trace-first": Case(TRACE, "tuple(self._executed[1:]) or None", "tuple(self._executed) or None",
                        TRACES + "test_a_trace_shows_the_command_and_what_it_starts"),
    "trace-name": Case(TRACE, 'int(status.rpartition(b")")[2].split()[1])', 'int(status.partition(b")")[2].split()[1])',
                       "tests/fuzz/test_fuzz_parsers.py::test_each_kept_input_shows_no_defect[exec_trace]"),
    # Before login (ADR 66).
    "login-small": Case("rpc/base/channel.py", '    ("grpc.max_receive_message_length", MAX_SMALL_BYTES),\n', "",
                        SILENCE + "test_a_login_larger_than_any_report_is_refused"),
    "login-address": Case(CONNECTIONS, "return str(ip_network((address, _PREFIX_BITS), strict=False))", "return str(address)",
                          LOBBIES + "test_addresses_of_one_machine_are_one"),
    "login-first": Case("rpc/base/method.py", "known = await self._gate.judge(call)", "known = None",
                        SILENCE + "test_no_token_is_refused_by_every_service"),
    # Connections of an address (ADR 76).
    "connections-most": Case(CONNECTIONS, "source.open < self.most and ", "",
                             LIMITS + "test_an_address_holds_so_many_and_another_is_not_touched"),
    "connections-burst": Case(CONNECTIONS, " and source.allowance >= 1", "",
                              LIMITS + "test_an_address_that_opens_and_closes_without_end_is_excluded_for_a_while"),
    "connections-excluded": Case(CONNECTIONS, "source.is_excluded |= source.allowance < 1", "pass",
                                 LIMITS + "test_an_address_that_opens_and_closes_without_end_is_excluded_for_a_while"),
    "connections-forgotten": Case(CONNECTIONS, "            if is_idle:\n", "            if False:\n",
                                  LIMITS + "test_an_address_without_connections_is_forgotten"),
    "connections-mapped": Case(CONNECTIONS, "    if address.ipv4_mapped is not None:\n", "    if False:\n",
                               LIMITS + "test_one_machine_is_one_address"),
    "connections-shut": Case(GUARD, "(address, now):\n                found.shutdown(socket.SHUT_RDWR)", "(address, now):\n                pass",
                             GUARDS + "test_the_connection_that_is_too_much_is_shut_down_and_no_other"),
    "connections-number": Case(GUARD, "if os.fstat(number).st_ino == inode:", "if True:",
                               GUARDS + "test_a_number_that_became_another_files_is_not_shut_down"),
    "connections-port": Case(GUARD, 'address = source_of(host) if is_ours else ""', "address = source_of(host)",
                             GUARDS + "test_other_files_are_left_alone"),
    "connections-ended": Case(GUARD, "            if found.get(fd) != known.inode:\n", "            if False:\n",
                              GUARDS + "test_an_end_makes_room"),
    "connections-dropped": Case(GUARD, "            self._exclude(self._limit.excluded(begun))\n", "",
                                GUARDS + "test_a_flood_is_dropped_before_it_is_accepted_and_passes_again_later"),
    "connections-ipv6": Case(GUARD, "_if_equal(words & 0xFFFF_FFFF, otherwise=1), _end(_DROP),", "_end(_DROP),",
                             GUARDS + "test_networks_of_ipv6_are_dropped_by_their_first_half"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
