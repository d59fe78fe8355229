"""Each check of shared results is needed: without it, the test named after the attack fails.

The cases work as in `test_identity_notices.py`.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

VOTES = "tests/unit/reapi/test_agreement.py::"
CLAIMS = "tests/unit/identity/test_claims.py::"
SUSPECTS = "tests/unit/worker/execute/test_disagreement.py::"
IDLE, VERIFY = "tests/unit/worker/execute/test_verify.py::", "worker/execute/verify.py"
DISAGREEMENT = "worker/execute/disagreement.py"
ROUTES, BOOK = "scheduler/routes.py", "worker/stores/claims.py"
VOTERS = "tests/unit/scheduler/test_routes.py::"
BOOKS = "tests/unit/worker/stores/test_claims.py::"
COPIES = "tests/integration/agreement/test_private_copies.py::"
AGREEMENT, RESULTS, GOOD = "reapi/agreement.py", "identity/results.py", "identity/claims.py"

CASES = {
    "void": Case(AGREEMENT, "void.add(claim.voter.pseudonym)", "pass",
                 VOTES + "test_two_digests_from_one_voter_void_both"),
    "guests": Case(AGREEMENT, "claim.guest_id in guests or", "",
                   VOTES + "test_one_guest_does_not_vote_for_two_voters"),
    "workers": Case(AGREEMENT, "(by_worker and claim.key_id in keys)", "False",
                    VOTES + "test_a_rogue_worker_with_a_valid_key_does_not_agree_with_itself_across_workers"),
    "kernel": Case(AGREEMENT, "policy.across_workers or isolation.rank < _OWN_KERNEL_RANK", "policy.across_workers",
                   VOTES + "test_containers_of_one_kernel_are_one_vote"),
    "epoch": Case(AGREEMENT, "or claim.voter.epoch != epoch", "",
                  VOTES + "test_votes_of_two_epochs_do_not_count_together"),
    "isolation": Case(AGREEMENT, "claim.isolation is not isolation or", "",
                      VOTES + "test_only_claims_of_equal_isolation_count_together"),
    "reuse": Case(AGREEMENT, "if claim.reuse not in _VOTING:", "if False:",
                  VOTES + "test_a_guest_that_a_whole_tenant_used_has_no_vote"),
    "before": Case(AGREEMENT, "not record.guest_execs_before", "True",
                   VOTES + "test_a_fresh_result_whose_guest_had_executed_before_is_refused"),
    "result": Case(AGREEMENT, "all(c.result == result for c in claims)", "True",
                   VOTES + "test_claims_of_another_result_do_not_carry_this_one"),
    "enough": Case("reapi/signed.py", "check_sharing(record, terms.sharing)", "pass",
                   CLAIMS + "test_a_shared_result_is_refused_where_nothing_is_shared"),
    "checked": Case(RESULTS, "if len(await good_claims(claims, scope, keys)) != len(claims):", "if False:",
                    CLAIMS + "test_a_revoked_key_voids_its_claims_and_what_rested_on_them"),
    "signed": Case(GOOD, "key.verify(claim.signature, claim_bytes(claim, scope))", "claim_bytes(claim, scope)",
                   CLAIMS + "test_a_claim_for_another_action_tenant_or_image_does_not_count"),
    "machines": Case(ROUTES, "_has_voters(policy) and not policy.sharing.is_machine(principal)", "_has_voters(policy)",
                     VOTERS + "test_people_are_voters_and_machines_are_one_voter_together"),
    "known": Case(ROUTES, "if not _has_voters(policy):", "if False:",
                  VOTERS + "test_a_tenant_whose_members_cannot_be_told_apart_shares_what_is_fresh_only"),
    "old-worker": Case(ROUTES, "if sharing is None or not worker.knows_sharing:", "if sharing is None:",
                       VOTERS + "test_only_a_worker_that_knows_sharing_is_told_of_it"),
    "forged": Case(BOOK, "return (*await check(tuple(c for c in others if c is not None)), *mine)",
                   "return (*tuple(c for c in others if c is not None), *mine)",
                   BOOKS + "test_a_store_writer_makes_no_claim_and_takes_no_voters_place"),
    "repeat": Case(DISAGREEMENT, "if len(self.runs) >= FRESH_RUNS else", "if self.runs else",
                   SUSPECTS + "test_one_fresh_execution_makes_nobody_a_suspect_and_one_guest_is_not_two"),
    "one-guest": Case(DISAGREEMENT, "and all(r.guest_id != run.guest_id for r in found.runs)", "",
                      SUSPECTS + "test_one_fresh_execution_makes_nobody_a_suspect_and_one_guest_is_not_two"),
    "random": Case(DISAGREEMENT, "if len(fresh) > 1:", "if False:",
                   SUSPECTS + "test_of_an_action_whose_fresh_executions_differ_nobody_is_a_suspect"),
    "claims": Case(DISAGREEMENT, "if len(found.claims) < MAX_CLAIMS:", "if True:",
                   SUSPECTS + "test_flooding_of_claims_takes_bounded_memory"),
    "older-worker": Case(ROUTES, "return sharing if worker.knows_verify else replace(sharing, verify_seconds=0)",
                         "return sharing", VOTERS + "test_only_a_worker_that_knows_a_budget_for_idle_time_is_told_of_it"),
    "admitted": Case(VERIFY, "if self._clock.now() >= admitted:", "if False:",
                     IDLE + "test_nothing_runs_for_a_maker_who_is_no_longer_admitted"),
    "leased": Case(VERIFY, "if claims.leased:", "if False:",
                   IDLE + "test_nothing_runs_for_a_maker_who_is_no_longer_admitted"),
    "killer": Case(VERIFY, "if self._runner.has_ended_a_guest(tenant, candidate.action):", "if False:",
                   IDLE + "test_an_action_that_ever_ended_a_guest_is_skipped"),
    "claimants": Case(VERIFY, ">= _CLAIMANT_RUNS for v", "< 0 for v",
                      IDLE + "test_a_claimant_who_disagrees_with_everything_causes_few_executions"),
    "budget": Case(VERIFY, "return has_budget and has_place and", "return has_place and",
                   IDLE + "test_a_tenant_has_its_budget_and_no_more_in_each_hour"),
    "place": Case(VERIFY, "return has_budget and has_place and", "return has_budget and",
                  IDLE + "test_nothing_runs_beside_others_or_without_a_place_of_the_makers_quota"),
    "idle": Case(VERIFY, "and self._pool.is_idle_for(domain)", "",
                 IDLE + "test_nothing_runs_beside_others_or_without_a_place_of_the_makers_quota"),
    "copies": Case("cache/results/results.py", "return not text or ResultBasis.parse(text).counts(terms)", "return True",
                   COPIES + "test_after_a_policy_became_stricter_a_copy_is_not_served_and_an_own_result_is"),
    "demand": Case("cache/farm.py", "(known or NO_TERMS).meet(demanded(self._settings.sharing))", "known or NO_TERMS",
                   COPIES + "test_a_user_who_demands_more_is_not_served_earlier_copies"),
    "copy-workers": Case("core/basis.py", "self.workers if policy.across_workers else self.voters", "self.voters",
                         "tests/unit/core/test_basis.py::test_a_copy_counts_as_the_result_would"),
    "turns": Case("worker/execute/turns.py", "self._voters.popitem(last=False)", "self._voters.popitem(last=True)",
                  "tests/unit/worker/execute/test_turns.py::test_voters_take_equal_turns_whoever_has_more"),
    "carried": Case("worker/execute/sharing.py", "in await check(carried_claims(executed.work.client.claims)):",
                    "in carried_claims(executed.work.client.claims):",
                    "tests/integration/agreement/test_carried_claims.py::test_a_carried_claim_counts_only_for_what_it_was_signed"),
    "named": Case("dispatch/finder.py", "for worker in named[:_MOST_NAMED]", "for worker in named",
                  "tests/unit/dispatch/test_finder.py::test_a_meeting_place_that_names_everybody_costs_two_questions"),
    "notes": Case("worker/execute/meeting.py", "if note[0] != principal)[1 - MAX_NAMED :]", "if note[0])[1 - MAX_NAMED :]",
                  "tests/unit/worker/execute/test_meeting.py::test_one_member_replaces_its_own_note_only"),
    "long-lease": Case(BOOK, "now < ends <= now + 2 * _LEASE_SECONDS", "now < ends",
                       BOOKS + "test_a_store_writer_prevents_no_verification_for_longer_than_a_lease"),
    "told-who-accepts-nothing": Case("worker/execute/explaining.py", "        if not self._sharing.is_private:\n            if mine", "        if True:\n            if mine",
                                     "tests/integration/agreement/test_explain.py::test_a_disagreement_is_told_to_both_sides_without_a_name"),
    "forged-list": Case("worker/explain/near.py", "if name_of(theirs.command, image) != name:", "if False:",
                        "tests/unit/worker/explain/test_near.py::test_a_list_that_somebody_forged_names_no_action_of_another_source"),
    "questions": Case("worker/explain/limit.py", "if left < 1:", "if False:",
                      "tests/unit/worker/explain/test_limit.py::test_each_principal_of_each_tenant_has_a_burst_and_then_a_rate"),
    "flag-values": Case("rpc/reapi/explanation.py", "_check(all(_FLAG.fullmatch(flag) for flag in message.flags))", "pass",
                        "tests/unit/rpc/reapi/test_explanation.py::test_what_no_worker_sends_is_refused"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
