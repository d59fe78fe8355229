"""Each check of a caller's identity is needed: without it, the test named after the attack fails.

Every case removes one check from a copy of the tree and runs that test there. A case fails, too, if
its text is no longer in the source: the check moved, so the case must move with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

TOKEN = "tests/unit/identity/test_idp_token.py::"
LOGIN = "tests/unit/identity/test_login.py::"
TABLE = "tests/unit/scheduler/tenants/test_table.py::"
LIES = "tests/integration/identity/test_lying_provider.py::"
VERIFY, KEYS = "identity/oidc/verify.py", "identity/oidc/keys.py"
HTTP, PROVIDER = "identity/oidc/http.py", "identity/oidc/provider.py"
FILE, DOOR = "identity/login/file.py", "scheduler/tenants/authenticator.py"
TENANTS, SESSIONS = "scheduler/tenants/table.py", "scheduler/tenants/sessions.py"
STORED = "scheduler/tenants/stored.py"
STORES = "tests/unit/scheduler/tenants/test_stored.py::"


PROOF = "tests/unit/identity/test_proof.py::"
ENROLS = "tests/integration/identity/test_worker_enrolment.py::"
PULSES, PULSE = "tests/unit/rpc/scheduler/test_pulse.py::", "rpc/scheduler/pulse.py"
LOBBIES, LOBBY = "tests/unit/rpc/base/test_lobby.py::", "rpc/base/lobby.py"
SILENCE, METHOD = "tests/integration/hostile/test_silent_calls.py::", "rpc/base/method.py"
ENROLMENT, CA = "scheduler/enrolment.py", "identity/worker_ca.py"
ONE_TIME, POD = "scheduler/base/one_time_tokens.py", "scheduler/base/pod_tokens.py"
PODS = "tests/unit/scheduler/base/test_pod_tokens.py::"
CASES = {
    "judged-first": Case(METHOD, "            call = await self._judged(call)\n            if method", "            if method",
                         SILENCE + "test_no_token_is_refused_by_every_service"),
    "message-deadline": Case(METHOD, "async with in_time(MESSAGE_SECONDS):", "if True:",
                             SILENCE + "test_a_good_token_without_a_message_has_a_deadline"),
    "lobby-turns": Case(LOBBY, "                self._queues[address] = queue",
                        "                self._queues = {address: queue, **self._queues}",
                        LOBBIES + "test_addresses_take_turns"),
    "lobby-hurry": Case(LOBBY, "                seat.hurry()\n        turn", "                pass\n        turn",
                        LOBBIES + "test_while_others_wait_a_silent_call_ends_sooner"),
    "lobby-most": Case(LOBBY, "if self._waiting > self._size.waiting:", "if False:",
                       LOBBIES + "test_when_too_many_wait_one_of_the_address_with_most_is_refused"),
    "lobby-address": Case(LOBBY, "key=lambda a: len(self._queues[a])", "key=lambda a: -len(self._queues[a])",
                          LOBBIES + "test_when_too_many_wait_one_of_the_address_with_most_is_refused"),
    "pulse-admit": Case(PULSE, "await self._backend.admit(call.certificate, beat.worker_id)", "pass",
                        PULSES + "test_a_worker_that_is_revoked_is_refused_with_its_next_heartbeat"),
    "pulse-rate": Case(PULSE, "if self._room < 1:", "if False:",
                       PULSES + "test_a_flood_of_heartbeats_is_left_with_its_sender"),
    "pulse-one": Case(PULSE, "if before is not None:", "if False:",
                      PULSES + "test_a_second_stream_takes_the_place_of_the_first"),
    "enrol-used": Case(ONE_TIME, "if known.used_at:", "if False:",
                       ENROLS + "test_a_token_that_was_used_is_refused_and_leaves_an_event"),
    "enrol-swap": Case(ONE_TIME, "encode(used), expect=entry.version)", "encode(used))",
                       ENROLS + "test_a_token_that_is_used_twice_at_once_enrols_one"),
    "enrol-name": Case(ENROLMENT, 'if known.worker_id not in {"", worker_id}:', "if False:",
                       ENROLS + "test_a_token_for_one_worker_enrols_no_other"),
    "enrol-taken": Case(ENROLMENT, "if before is not None and not known.worker_id:", "if False:",
                        ENROLS + "test_a_token_without_a_name_replaces_no_worker"),
    "pod-name": Case(POD, "if pod != worker_id:", "if False:", PODS + "test_any_other_token_is_refused"),
    "pod-bound": Case(POD, "if namespace != identity.namespace or account != identity.service_account or not pod:", "if not pod:",
                      PODS + "test_any_other_token_is_refused"),
    "pod-lifetime": Case(POD, "if ends_at - issued_at > MAX_POD_TOKEN_SECONDS:", "if False:",
                         PODS + "test_any_other_token_is_refused"),
    "pod-replay": Case(POD, 'token.rpartition(".")[0]', "token", PODS + "test_a_token_that_another_key_used_is_refused"),
    "pod-taken": Case(ENROLMENT, "if before.pool != pool:", "if False:",
                      PODS + "test_a_pod_takes_no_place_of_a_worker_that_an_operator_enrolled"),
    "pod-revoked": Case(ENROLMENT, "if before.revoked_at:", "if False:",
                        PODS + "test_a_revoked_pod_stays_out_until_it_is_forgotten"),
    "worker-other": Case(ENROLMENT, "if worker_id not in {None, name}:", "if False:",
                         ENROLS + "test_a_worker_cannot_act_for_another"),
    "worker-ended": Case(ENROLMENT, "if found.expires_at <= self._clock.now():", "if False:",
                         ENROLS + "test_a_certificate_that_has_ended_is_refused_on_an_open_connection"),
    "worker-ca": Case(CA, "certificate.verify_directly_issued_by(self._certificate)", "pass",
                      ENROLS + "test_a_certificate_of_another_ca_is_refused"),
    "csr-size": Case(CA, "if not 0 < len(der) <= MAX_CSR_BYTES:", "if False:",
                     ENROLS + "test_a_request_that_is_a_bomb_or_a_lie_is_refused_and_costs_no_token"),
    "csr-signature": Case(CA, "if not is_signed:", "if False:",
                          ENROLS + "test_a_request_that_is_a_bomb_or_a_lie_is_refused_and_costs_no_token"),
    "proof-asked": Case(
        "worker/execute/authorizer.py",
        "if claims.client_key:",
        "if False:",
        "tests/integration/test_dispatch_routes.py"
        "::test_a_token_that_was_copied_from_a_daemon_is_of_no_use",
    ),
    "proof-method": Case(
        "identity/proof.py",
        "(_PURPOSE, method.encode(), token.encode(), time.encode())",
        "(_PURPOSE, token.encode(), time.encode())",
        PROOF + "test_a_proof_of_another_call_token_or_time_is_refused",
    ),
    "proof-time": Case(
        "identity/proof.py",
        "if abs(int(time) / 1000 - now) > MAX_PROOF_AGE_SECONDS:",
        "if False:",
        PROOF + "test_a_proof_of_another_call_token_or_time_is_refused",
    ),
    "algorithm": Case(VERIFY, "if algorithm not in policy.algorithms or algorithm not in ALGORITHMS:",
                      "if False:", TOKEN + "test_an_algorithm_that_the_tenant_does_not_list_is_refused"),
    "kind": Case(VERIFY, "kind.lower() not in _TYPES", "False",
                 TOKEN + "test_a_jwt_of_another_kind_is_no_login"),
    "crit": Case(VERIFY, '"crit" in header or ', "",
                 TOKEN + "test_an_extension_that_must_be_understood_is_refused"),
    "bound": Case(VERIFY, 'if "cnf" in claims:', "if False:",
                  TOKEN + "test_a_token_that_is_bound_to_a_key_is_not_taken_as_a_bearer_token"),
    "issuer": Case(VERIFY, 'if claims.get("iss") != policy.issuer:', "if False:",
                   TOKEN + "test_a_wrong_issuer_is_refused"),
    "audience": Case(VERIFY, "or policy.audience not in audiences:", "or False:",
                     TOKEN + "test_a_wrong_audience_is_refused"),
    "client": Case(VERIFY, "any(n not in policy.client_ids for n in named)", "False",
                   TOKEN + "test_a_token_that_was_given_to_another_client_is_refused"),
    "no-client": Case(VERIFY, "if policy.client_ids and not named and not is_id_token:", "if False:",
                      TOKEN + "test_an_id_token_is_for_its_own_client_alone"),
    "claims": Case(VERIFY, "if not any(v in wanted for", "if False and not any(v in wanted for",
                   TOKEN + "test_somebody_else_whom_the_provider_serves_is_refused"),
    "expiry": Case(VERIFY, "if expires_at + MAX_CLOCK_SKEW_SECONDS <= now:", "if False:",
                   TOKEN + "test_an_expired_token_is_refused_and_the_clocks_may_differ_by_a_minute"),
    "not-yet": Case(VERIFY, "if max(issued_at, not_before) > now + MAX_CLOCK_SKEW_SECONDS:",
                    "if False:", TOKEN + "test_a_token_of_the_future_is_refused"),
    "lifetime": Case(VERIFY, "if expires_at - issued_at > MAX_IDP_LIFETIME_SECONDS:", "if False:",
                     TOKEN + "test_a_token_that_lives_for_ever_is_refused"),
    "times": Case(VERIFY, "not 0 <= value < 1 << 53", "False",
                  TOKEN + "test_a_time_that_is_none_is_refused"),
    "principal": Case(VERIFY, "or not value.isprintable()", "or False",
                      TOKEN + "test_a_subject_that_could_mislead_a_reader_is_refused"),
    "verified-mail": Case(VERIFY, 'claims.get("email_verified") is not True', "False",
                          TOKEN + "test_an_address_that_nobody_verified_names_nobody"),
    "one-key": Case(VERIFY, "if len(fitting) != 1:", "if not fitting:",
                    TOKEN + "test_two_keys_of_one_name_check_nothing"),
    "kid": Case(VERIFY, "if header.kid is None or k.kid == header.kid]", "if True]",
                TOKEN + "test_a_token_signed_by_another_tenants_provider_is_refused"),
    "key-family": Case(KEYS, 'self.jwk.get("alg", algorithm) != algorithm', "False",
                       TOKEN + "test_a_key_is_never_used_with_another_familys_algorithm"),
    "weak-key": Case(KEYS, "MIN_RSA_BITS <= key.key_size", "0 <= key.key_size",
                     TOKEN + "test_a_weak_key_of_the_provider_checks_nothing"),
    "flood": Case(KEYS, "return not self._knows(kid) and now - self._tried_at >= limits.refresh_every_seconds",
                  "return not self._knows(kid)",
                  LIES + "test_a_flood_of_unknown_key_names_costs_one_question_in_half_a_minute"),
    "stale": Case(KEYS, "if self._is_stale():", "if False:",
                  LIES + "test_a_provider_that_went_away_lets_people_in_for_some_hours_only"),
    "redirect": Case(HTTP, "follow_redirects=False", "follow_redirects=True",
                     LIES + "test_a_redirect_to_other_keys_is_not_followed"),
    "oversized": Case(HTTP, "if len(raw) > max_bytes:", "if False:",
                      LIES + "test_an_oversized_key_set_is_refused"),
    "https": Case(HTTP, 'if parts.scheme != "https" and not', "if False and not",
                  LOGIN + "test_only_https_is_asked"),
    "inward": Case(HTTP, "if is_loopback(host) and not is_loopback(issuer_host):", "if False:",
                   LOGIN + "test_a_provider_that_points_where_it_must_not_is_refused"),
    "discovery": Case(PROVIDER, 'if body.get("issuer") != issuer:', "if False:",
                      LIES + "test_a_provider_that_answers_for_another_issuer_is_refused"),
    "own-keys": Case(DOOR, "self._keys.get((tenant, issuer))", "next(iter(self._keys.values()), None)",
                     LIES + "test_a_token_of_one_tenant_is_only_ever_checked_against_that_tenants_keys"),
    "login-mode": Case(FILE, "if not access.is_private:", "if False:",
                       LOGIN + "test_a_login_file_that_others_can_read_is_refused"),
    "login-link": Case(FILE, "open_file(path, os.O_RDONLY | NONBLOCK)", "os.open(path, os.O_RDONLY)",
                       LOGIN + "test_something_else_in_place_of_a_login_file_is_refused"),
    "apart": Case(TENANTS, "if not is_apart:", "if False:",
                  TABLE + "test_two_tenants_that_would_take_the_same_tokens_are_refused"),
    "open-provider": Case(TENANTS, "if not policy.client_ids and not policy.claims:", "if False:",
                          TABLE + "test_a_provider_that_serves_everybody_needs_to_be_told_who_is_meant"),
    "table-older": Case(STORED, "self._head is not None and head.is_older(self._head)", "False",
                        STORES + "test_a_table_that_was_replaced_does_not_come_back"),
    "table-twice": Case(STORED, "if self._is_older(found.head):", "if False:",
                        STORES + "test_a_head_that_changes_between_two_readings_is_judged_again"),
    "table-digest": Case(STORED, "if len(text) != head.size or hashlib.sha256(text).hexdigest() != head.sha256:", "if False:",
                         STORES + "test_the_old_table_stays_where_the_new_one_cannot_be_used"),
    "table-swap": Case(STORED, "SPACE, KEY, sealed, expect=old.entry_version if old is not None else 0", "SPACE, KEY, sealed",
                       STORES + "test_of_two_commands_one_is_refused_and_leaves_nothing"),
    "writable-table": Case("scheduler/tenants/file.py", "if status.st_mode & 0o022:", "if False:",
                           TABLE + "test_a_table_that_others_can_write_is_not_believed"),
    "session-rules": Case(SESSIONS, "_fingerprint(policy.identity) != claims.identity", "False",
                          TABLE + "test_a_session_ends_with_its_token_or_with_the_rules_it_was_made_under"),
    "session-room": Case(SESSIONS, "if claims.tenant != tenant.value:", "if False:",
                         TABLE + "test_a_tenants_flood_of_logins_ends_its_own_sessions_only"),
    "session-fair": Case("control/checks.py", "chosen = greediest", "chosen = min(room, key=lambda p: room[p][1])",
                         TABLE + "test_a_members_flood_of_logins_ends_that_members_sessions_first"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
