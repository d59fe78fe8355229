"""Hostile tests prove something: each fails against a copy of the source without its check.

Every case removes one check from a copy of the tree and runs the test that names it. A case fails,
too, if its text is no longer in the source: the check moved, so the case must move with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

ATTACKS = "tests/integration/test_worker_attacks.py"
JOINS = "tests/integration/test_worker_joins.py"
REFUSALS = "tests/integration/sharing/test_share_refusals.py"
MARKERS = "tests/integration/sharing/test_share_markers.py"
GRAMMAR = "tests/integration/grammar"
TEXTS = "tests/unit/compilers/invocation/test_share_texts.py"
POOL = "tests/integration/test_worker_pool.py"
POOL_CORE = "tests/unit/worker/pool/test_core.py"
LIES = "tests/unit/runtime/channel/test_warden_lies.py"
WARDEN = "tests/integration/warden/test_warden_process.py"
FIRECRACKER = "tests/unit/runtime/firecracker/test"


CASES = {
    "lost-before-answer": Case(
        "worker/pool/pool.py",
        "await self._slot.gone.wait()",
        "pass",
        "tests/integration/test_crash_reaping.py"
        "::test_the_scheduler_knows_of_a_lost_guest_before_the_caller_is_answered",
    ),
    "sweep-by-place": Case(
        "runtime/host/leftovers.py",
        "_end([*processes[1:], *_living_in(directory)])",
        "_end(processes[1:])",
        "tests/unit/runtime/host/test_leftovers.py"
        "::test_a_vmm_that_was_never_recorded_is_found_by_where_it_lives",
    ),
    "reuse-principal": Case(
        "worker/base/domain.py",
        "kept = principal if reuse is GuestReuse.PRINCIPAL else",
        "kept =",
        f"{POOL}::test_a_guest_rooted_by_one_principal_cannot_poison_a_colleague",
    ),
    "reuse-exec": Case(
        "worker/base/domain.py",
        "return self.reuse is GuestReuse.EXEC",
        "return False",
        f"{POOL}::test_with_reuse_exec_a_rooted_guest_poisons_nobody_not_even_its_own_principal",
    ),
    "reuse-classes": Case(
        "store/disk_actions.py",
        '.replace("/", "_") / reuse.value',
        '.replace("/", "_")',
        f"{POOL}::test_results_of_one_reuse_class_are_not_found_in_another",
    ),
    "queue-share": Case(
        "worker/pool/core.py",
        "elif not self._queue.is_full or self._displace(domain):",
        "elif not self._queue.is_full:",
        f"{POOL_CORE}::test_a_full_queue_makes_place_for_who_has_none_of_it",
    ),
    "turns": Case(
        "worker/pool/victims.py",
        "if any(g.domain == domain and g.serves for g in guests):",
        "if True:",
        f"{POOL_CORE}::test_a_tenant_that_floods_starves_nobody",
    ),
    "guest-memory": Case(
        "worker/pool/core.py",
        "return len(guests) < limits.max_guests and taken + needed <= limits.memory_mib",
        "return len(guests) < limits.max_guests",
        f"{POOL_CORE}::test_memory_bounds_the_guests_whatever_max_guests_says",
    ),
    "firecracker-version": Case(
        "runtime/firecracker/plan.py",
        "if (int(found[1]), int(found[2])) < MINIMUM_VERSION:",
        "if False:",
        f"{FIRECRACKER}_plan.py::test_an_old_version_is_refused_with_the_remedy",
    ),
    "firecracker-network": Case(
        "runtime/firecracker/plan.py",
        'if answer.get("network-interfaces") != []:',
        "if False:",
        f"{FIRECRACKER}_plan.py::test_another_configuration_is_refused",
    ),
    "jail-link": Case(
        "runtime/firecracker/io.py",
        "os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC",
        "os.O_PATH | os.O_CLOEXEC",
        f"{FIRECRACKER}_io.py::test_a_link_to_a_socket_outside_the_jail_is_not_followed",
    ),
    "jail-socket-owner": Case(
        "runtime/firecracker/io.py",
        "if peer_uid != uid:",
        "if False:",
        f"{FIRECRACKER}_io.py::test_a_hard_link_to_anothers_socket_is_not_talked_to",
    ),
    "vmm-answer-length": Case(
        "runtime/firecracker/io.py",
        "or int(text) > MAX_BODY_BYTES:",
        "or False:",
        f"{FIRECRACKER}_io.py::test_an_answer_that_is_none_is_refused",
    ),
    "vmm-head-length": Case(
        "runtime/firecracker/io.py",
        "if end > MAX_HEAD_BYTES or (end < 0 and len(self._buffer) > MAX_HEAD_BYTES):",
        "if False:",
        f"{FIRECRACKER}_io.py::test_an_answer_that_is_none_is_refused",
    ),
    "jailer-owner": Case(
        "runtime/firecracker/tools.py",
        "or status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):",
        "or False:",
        f"{FIRECRACKER}_tools.py::test_a_program_that_others_can_change_is_never_run",
    ),
    "vsock-stranger": Case(
        "agent/linux/vsock.py",
        "if cid == socket.VMADDR_CID_HOST:",
        "if True:",
        "tests/unit/agent/linux/test_port.py::test_only_the_hosts_connection_is_taken",
    ),
    "token-signature": Case(
        "identity/token.py",
        'key.verify(_decode(parts[2]), f"{parts[0]}.{parts[1]}".encode())',
        "_decode(parts[2])",
        "tests/unit/identity/test_token.py::test_a_token_signed_by_another_key_under_our_name_is_refused",
    ),
    "token-expiry": Case(
        "identity/token.py",
        "if now >= claims.expires_at:",
        "if False:",
        "tests/unit/identity/test_token.py::test_an_expired_token_is_refused",
    ),
    "token-audience": Case(
        "identity/token.py",
        "if claims.audience != self._audience:",
        "if False:",
        "tests/unit/identity/test_token.py::test_a_token_for_another_worker_is_refused",
    ),
    "token-tenant": Case(
        "worker/execute/authorizer.py",
        "if client.instance != claims.tenant.value:",
        "if False:",
        f"{ATTACKS}::test_another_tenants_instance_name_is_refused_and_recorded",
    ),
    "token-image": Case(
        "worker/execute/session.py",
        "if images != {self._claims.image}:",
        "if False:",
        f"{ATTACKS}::test_an_image_that_is_not_the_tokens_is_refused",
    ),
    "upload-digest": Case(
        "core/digest.py",
        "if len(data) != digest.size_bytes or hashlib.sha256(data).hexdigest() != digest.hash:",
        "if False:",
        f"{ATTACKS}::test_bytes_that_do_not_match_their_digest_are_refused",
    ),
    "audit-before-release": Case(
        "worker/execute/runner.py",
        "await self._audit.append(row)",
        "pass",
        f"{ATTACKS}::test_a_result_is_not_released_when_its_row_cannot_be_written",
    ),
    "audit-of-who-joined": Case(
        "worker/execute/session.py",
        "if update.is_joined:",
        "if False:",
        f"{JOINS}::test_whoever_joins_a_running_compile_gets_a_row_of_its_own",
    ),
    "cancel-own-waiting": Case(
        "worker/execute/deduper.py",
        "if w.principal == principal",
        "if True",
        f"{JOINS}::test_a_cancel_by_name_ends_the_callers_waiting_and_nobody_elses",
    ),
    "input-as-planned": Case(
        "dispatch/prepared_action.py",
        "if item.sha256 and digest.hash != item.sha256:",
        "if False:",
        "tests/unit/dispatch/test_units.py::"
        "test_an_input_that_is_not_what_was_planned_with_is_refused",
    ),
    "guest-frame-length": Case(
        "warden/guest.py",
        "if prefix[0] or size > MAX_FRAME_BYTES:",
        "if prefix[0]:",
        "tests/unit/runtime/channel/test_channel.py::"
        "test_a_length_prefix_of_4_gib_is_refused_before_it_is_read",
    ),
    "warden-frame-length": Case(
        "wire/warden.py",
        """unknown kind {kind}")
    if length > limit:""",
        """unknown kind {kind}")
    if False:""",
        "tests/property/test_wire_warden.py::test_lengths_are_refused_before_anything_is_read",
    ),
    "warden-frame-number": Case(
        "wire/warden.py",
        "if (number == 0) != (kind in _OF_NO_EXEC):",
        "if False:",
        f"{LIES}::test_a_broken_frame_ends_the_guest[last words of an exec]",
    ),
    "warden-pong": Case(
        "runtime/channel/channel.py",
        "if self._pongs_due < 0:",
        "if False:",
        f"{LIES}::test_a_broken_frame_ends_the_guest[pongs that nobody asked for]",
    ),
    "warden-frame-of-no-exec": Case(
        "runtime/channel/channel.py",
        'raise IntegrityError("a frame of no exec", reason=wire.WARDEN_PROTOCOL)',
        "return",
        f"{LIES}::test_a_broken_frame_ends_the_guest[a reply to no exec]",
    ),
    "warden-credit": Case(
        "runtime/channel/pending_exec.py",
        "if self._ahead > wire.REPLIES_AHEAD:",
        "if False:",
        f"{LIES}::test_a_flood_to_a_slow_consumer_is_bounded_by_the_credit",
    ),
    "warden-chunks": Case(
        "runtime/channel/pending_exec.py",
        "await self._chunks.acquire()",
        "pass",
        f"{LIES}::test_a_warden_that_takes_nothing_gets_no_more_than_its_credit",
    ),
    "warden-taken": Case(
        "runtime/channel/pending_exec.py",
        "if self._chunks_sent < 0:",
        "if False:",
        f"{LIES}::test_a_broken_frame_ends_the_guest[a chunk that was never sent]",
    ),
    "warden-ping": Case(
        "runtime/channel/channel.py",
        "if self._pings_missed >= self._timing.warden_missed_pings:",
        "if False:",
        f"{LIES}::test_a_warden_that_answers_no_ping_is_given_up",
    ),
    "warden-cancel": Case(
        "runtime/channel/channel.py",
        """is call:
            self.retire(""",
        """is self:
            self.retire(""",
        f"{LIES}::test_a_warden_that_does_not_end_a_cancelled_exec_is_given_up",
    ),
    "warden-cpu": Case(
        "runtime/channel/channel.py",
        "if self._budget.is_used_up(",
        "if False and (",
        f"{LIES}::test_a_warden_that_works_for_nothing_is_given_up",
    ),
    "warden-seccomp": Case(
        "warden/sandbox.py",
        "_prctl(_PR_SET_SECCOMP, ",
        "_ = (",
        f"{WARDEN}::test_a_warden_that_is_taken_over_gets_nowhere[open]",
    ),
    "warden-descriptors": Case(
        "warden/zygote.py",
        "        keep_only([",
        "        print([",
        f"{WARDEN}::test_what_a_warden_has_and_is",
    ),
    "warden-death": Case(
        "warden/sandbox.py",
        "    # After the change of uid, which clears it.\n    die_with_parent(parent_pid)\n",
        "",
        f"{WARDEN}::test_a_killed_worker_takes_zygote_and_wardens_along[warden]",
    ),
    "launcher-frame-length": Case(
        "wire/launcher.py",
        "if length > limit:",
        "if False:",
        "tests/unit/wire/test_launcher.py::"
        "test_a_header_that_is_not_ours_is_refused_before_anything_is_read",
    ),
    "tree-two-sizes": Case(
        "reapi/tree.py",
        "if len({f.digest.hash for f in files}) != len({f.digest for f in files}):",
        "if False:",
        "tests/unit/worker/execute/test_input_trees.py::"
        "test_a_tree_that_gives_one_content_two_sizes_ends_no_guest",
    ),
    "image-parent-name": Case(
        "images/assembly/tree.py",
        'if ".." in parts:',
        "if False:",
        "tests/unit/images/assembly/test_flatten_hostile.py::test_a_name_with_dotdot_is_refused",
    ),
    "guest-path": Case(
        "core/exec.py",
        'p in {"", ".", ".."} or ',
        "",
        "tests/unit/dispatch/test_units.py::test_an_output_outside_the_root_is_refused",
    ),
    "peer-uid": Case(
        "cache/replay/python_engine.py",  # the native half has its own case in test_replay_notices.py
        "if peer_uid(connection) != uid:",
        "if False:",
        "tests/contract/test_replay_talk_contract.py::test_a_peer_of_another_user_is_turned_away",
    ),
    "shared-object-search": Case(
        "cache/results/share_check.py",
        'return PrivateReason.EMBEDS_PATH if any(secret in data for secret in secrets) else ""',
        'return ""',
        f"{REFUSALS}::test_a_result_that_names_the_checkout_is_kept_for_it_alone",
    ),
    "shared-source-search": Case(
        "cache/results/share_check.py",
        "if root in data or any(",
        "if any(",
        f"{REFUSALS}::test_a_result_that_names_the_checkout_is_kept_for_it_alone",
    ),
    "shared-odd-include": Case(
        "cache/results/share_check.py",
        'any(root in posixpath.normpath(n) for n in names if n[:1] == b"/")',
        "False",
        f"{REFUSALS}::test_a_result_that_names_the_checkout_is_kept_for_it_alone",
    ),
    "shared-compressed": Case(
        "cache/results/share_check.py",
        "if compressed:",
        "if False:",
        f"{TEXTS}::test_an_object_is_searched_or_refused",
    ),
    "shared-twins": Case(
        "cache/results/share_results.py",
        "twins=tuple(twins.renamed(checkout.mark) for twins in closure.twins),",
        "",
        f"{REFUSALS}::test_copies_that_are_to_be_read_once_are_shared_if_they_are_related_alike",
    ),
    "shared-system-names": Case(
        "cache/results/share_check.py",
        "if share.has_other_names((*paths, *closure.existing)):",
        "if False:",
        f"{REFUSALS}::test_system_headers_that_a_compiler_may_call_by_other_names_are_not_shared",
    ),
    "shared-system-names-of-a-hit": Case(
        "cache/results/share_results.py",
        "if share.has_other_names(path for path, _ in files):",
        "if False:",
        f"{REFUSALS}::test_a_link_in_one_clone_alone_gives_that_clones_names",
    ),
    "shared-linked-directory": Case(
        "cache/key/share.py",
        'return "" if all(map(self._is_straight, own)) else PrivateReason.LINKED_DIRECTORY',
        'return ""',
        f"{REFUSALS}::test_a_search_directory_that_is_a_link_in_one_clone_is_not_shared",
    ),
    "shared-spelled-directory": Case(
        "cache/key/share.py",
        "if pwd != request.cwd and _is_same_directory(pwd, request.cwd):",
        "if False:",
        f"{REFUSALS}::test_a_directory_spelled_through_a_link_is_not_shared",
    ),
    "shared-text-in-key": Case(
        "compilers/invocation/share.py",
        "        return None\n    rest = under_root(value, root)",
        "        return tuple(p.replace(root, ROOT_MARK) for p in part.raw)\n"
        "    rest = under_root(value, root)",
        f"{REFUSALS}::test_a_macro_that_holds_the_root_is_no_path_to_be_stripped",
    ),
    "shared-flag-list": Case(
        "compilers/invocation/share.py",
        "    if not all(map(_is_shared, invocation.flags)):\n        return PrivateReason.FLAGS\n",
        "",
        f"{REFUSALS}::test_flags_off_the_list_keep_a_result_private_and_as_it_was",
    ),
    "shared-failure": Case(
        "cache/local.py",
        "is_tentative = bool(prepared.injected)",
        "is_tentative = False",
        f"{REFUSALS}::test_a_compile_that_fails_for_the_maps_alone_succeeds_and_is_cached_without",
    ),
    "shared-message": Case(
        "compilers/invocation/share_text.py",
        "_AFTER.match(after)",
        "True",
        f"{TEXTS}::test_a_message_with_the_root_in_a_word_is_refused",
    ),
    "shared-depfile-columns": Case(
        "compilers/invocation/share_text.py",
        "_GCC_COLUMNS: Final = 72",
        "_GCC_COLUMNS: Final = 73",
        f"{TEXTS}::test_lines_break_where_the_compiler_breaks_them",
    ),
    "marker-owner": Case(
        "cache/key/marker.py",
        "if status.st_uid not in {0, os.geteuid()}:",
        "if False:",
        f"{MARKERS}::test_a_marker_that_anybody_may_have_put_there_does_not_count",
    ),
    "marker-writable-directory": Case(
        "cache/base/levels.py",
        " or status.st_mode & stat.S_IWOTH:",
        ":",
        f"{MARKERS}::test_a_marker_that_anybody_may_have_put_there_does_not_count",
    ),
    "marker-keys": Case(
        "cache/key/marker.py",
        "if unknown := sorted(table.keys() - _KEYS):",
        "if unknown := []:",
        f"{MARKERS}::test_a_marker_with_other_content_is_refused_and_the_compile_goes_on",
    ),
    "marker-in-a-replay": Case(
        "cache/results/hits.py",
        "            for prepared in (hit.prepared for hit in hits):\n"
        "                _pin_markers(pins, prepared)\n",
        "",
        f"{MARKERS}::test_a_replay_ends_when_a_marker_appears",
    ),
    "file-that-a-flag-names": Case(
        "cache/inputs/flag_inputs.py",
        "names = (*prepared.looked_for, *tools)",
        "names = tools",
        f"{GRAMMAR}/test_grammar_inputs.py::test_a_file_that_a_flag_names_counts_by_its_content",
    ),
    "program-below-a-prefix": Case(
        "cache/inputs/flag_inputs.py",
        "names = (*prepared.looked_for, *tools)",
        "names = prepared.looked_for",
        f"{GRAMMAR}/test_grammar_tools.py::test_a_program_below_a_prefix_is_an_input",
    ),
    "specs-that-name-others": Case(
        "cache/host/toolset.py",
        "raise UncacheableError(UncacheableReason.SPECS)",
        "pass",
        f"{GRAMMAR}/test_grammar_tools.py::test_a_specs_file_that_names_others_is_not_kept",
    ),
    "list-of-the-sanitizer": Case(
        "cache/host/toolset.py",
        "own += _default_lists(invocation, compiler, env, cwd, search)",
        "own += ()",
        f"{GRAMMAR}/test_grammar_tools.py::test_a_sanitizer_s_own_list_is_an_input",
    ),
    "flags-of-an-unknown-version": Case(
        "compilers/invocation/versions.py",
        "is_known = all(map(_is_stable, invocation.flags))",
        "is_known = True",
        "tests/unit/cache/key/test_gnu_grammar.py::test_only_what_is_known_of_a_version_is_cached",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
