"""Each check around guests is needed: QEMU's jail, the helper, the kernel's line, bundles, trees."""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

HELPERS = "tests/unit/helper/test_helper_callers.py::"
PACKETS = "tests/unit/wire/test_helper.py::"
JAILS = "tests/integration/test_qemu_jail_program.py::"
COMMANDS = "tests/unit/runtime/qemu/test_jail.py::"
GROUPS = "tests/unit/runtime/host/test_cgroups.py::"
LINES = "tests/unit/runtime/qemu/test_argv.py::"
BUNDLES = "tests/unit/runtime/assets/test_bundle.py::"
REQUESTS = "tests/unit/wire/test_exec_request_checks.py::"
READIES = "tests/unit/agent/linux/test_ready.py::"
INTAKES = "tests/unit/agent/base/test_intake.py::"
BUILDERS = "tests/integration/test_image_confinement.py::"
HELPER, PACKET = "helper/__main__.py", "wire/helper.py"
JAIL, JAILED = "runtime/qemu/jail.py", "runtime/qemu/jailed.py"
CGROUPS, LINE, BUNDLE = (
    "runtime/host/cgroups.py",
    "runtime/vm/command_line.py",
    "runtime/assets/bundle.py",
)
FRAMES, TREE = "wire/exec_frames.py", "reapi/tree.py"
READY, INTAKE = "agent/linux/ready.py", "agent/base/intake.py"

CASES = {
    # What an image builder that was taken over leaves and answers.
    "image-link": Case("images/store.py", "open_file(image.path, os.O_RDONLY | NONBLOCK)", "os.open(image.path, os.O_RDONLY)",
                       BUILDERS + "test_an_image_that_became_a_link_or_was_edited_under_its_stat_is_not_opened"),
    "image-edited": Case("images/store.py", "                    status.st_ctime_ns,\n", "",
                         BUILDERS + "test_an_image_that_became_a_link_or_was_edited_under_its_stat_is_not_opened"),
    "image-answer": Case("images/assembly/erofs.py", "            if not isinstance(message, dict):", "            if False:",
                         BUILDERS + "test_what_a_builder_that_was_taken_over_answers_is_an_error_of_the_image"),
    # The worker's helper (ADR 69).
    "helper-user": Case(HELPER, "if peer.uid != uid or peer.gid == 0 or peer.pid <= 0:", "if False:",
                        HELPERS + "test_a_caller_of_another_user_is_refused_by_its_number"),
    "helper-number-reused": Case(HELPER, "if os.fstat(process).st_uid != uid:", "if False:",
                                 HELPERS + "test_a_process_that_took_over_a_callers_number_gets_nothing"),
    "helper-rights": Case(HELPER, "_RIGHTS: Final = 1 << 6 | 1 << 7", "_RIGHTS: Final = 1 << 6 | 1 << 7 | 1 << 21",
                          HELPERS + "test_it_has_two_rights_and_the_worker_none_over_it"),
    "helper-root": Case(HELPER, "    if uid == 0:\n", "    if False:\n",
                        HELPERS + "test_it_serves_no_user_that_has_rights_already"),
    "helper-silence": Case(HELPER, "        connection.settimeout(_REQUEST_SECONDS)\n", "",
                           HELPERS + "test_who_says_nothing_or_goes_costs_the_next_one_no_answer"),
    "helper-gone": Case(HELPER, "with connection, suppress(OSError):", "with connection:",
                        HELPERS + "test_a_caller_that_has_gone_ends_nothing"),
    "helper-device": Case(HELPER, " or gid not in peer.groups", "",
                          HELPERS + "test_the_group_of_the_device_is_mapped_for_its_members_only"),
    "helper-device-rights": Case(HELPER, "if not has_rights or gid in", "if gid in",
                                 HELPERS + "test_the_group_of_the_device_is_mapped_for_its_members_only"),
    "helper-form": Case(PACKET, "if magic != _MAGIC:", "if False:",
                        PACKETS + "test_any_other_packet_is_refused"),
    "helper-length": Case(PACKET, "if len(packet) != _REQUEST.size:", "if False:",
                          PACKETS + "test_any_other_packet_is_refused"),
    "helper-range": Case(PACKET, " or offset + count > IDS:", ":",
                         PACKETS + "test_any_other_packet_is_refused"),
    "helper-count": Case(PACKET, "if not 1 <= count <= MAX_COUNT or", "if",
                         PACKETS + "test_any_other_packet_is_refused"),
    # QEMU's jail (ADR 67).
    "jail-network": Case(JAIL, '"--net", ', "", JAILS + "test_a_program_in_the_jail_has_nothing_of_the_host"),
    "jail-processes": Case(JAIL, '"--ipc", "--uts"', '"--uts"',
                           JAILS + "test_a_program_in_the_jail_has_nothing_of_the_host"),
    "jail-other-users": Case(JAIL, 'own = [] if user.uid is not None and user.maps is None else ["--user", "--keep-caps"]',
                             "own = []",
                             COMMANDS + "test_a_worker_of_root_gives_its_vmm_a_uid_and_others_a_user_namespace"),
    "jail-writes": Case(JAIL, '"write" if writes else "read"', '"write"',
                        COMMANDS + "test_only_the_template_writes_and_only_its_memory"),
    "jail-read-only": Case(JAILED, '    if kind == "read":\n        flags |= _MS_RDONLY\n', "",
                           JAILS + "test_its_files_are_read_only_but_the_templates_memory"),
    "jail-root-read-only": Case(JAILED, "_MS_REMOUNT | _MS_BIND | _MS_RDONLY | _MS_NOSUID | _MS_NODEV\n",
                                "_MS_REMOUNT | _MS_BIND | _MS_NOSUID | _MS_NODEV\n",
                                JAILS + "test_its_files_are_read_only_but_the_templates_memory"),
    "jail-devices": Case(JAILED, '    if kind != "device":\n        flags |= _MS_NODEV\n', "",
                         JAILS + "test_its_files_are_read_only_but_the_templates_memory"),
    "jail-old-root": Case(JAILED, '    _checked("umount", _libc.umount2(b".", _MNT_DETACH))\n', "",
                          JAILS + "test_its_files_are_read_only_but_the_templates_memory"),
    "jail-user": Case(JAILED, "        _enter_user_namespace(plan)\n", "",
                      JAILS + "test_its_user_namespace_has_its_own_number_and_no_other"),
    "jail-groups": Case(JAILED, '        os.setgroups(plan["extra_groups"])\n', "",
                        JAILS + "test_a_program_in_the_jail_has_nothing_of_the_host"),
    "jail-bounding-set": Case(JAILED, "        _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)", "        pass",
                              JAILS + "test_a_program_in_the_jail_has_nothing_of_the_host"),
    "jail-capabilities": Case(JAILED, '    _checked("capset", _libc.capset(header, (ctypes.c_uint32 * 6)()))\n', "",
                              JAILS + "test_a_user_without_rights_gives_it_none"),
    "jail-new-privileges": Case(JAILED, '    _checked("prctl", _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))\n', "",
                                JAILS + "test_a_program_in_the_jail_has_nothing_of_the_host"),
    "jail-swap": Case(CGROUPS, '"memory.swap.max": 0, ', "",
                      GROUPS + "test_version_2_limits_memory_swap_and_processes"),
    "jail-delegated": Case(CGROUPS, "os.access(own[0].parent, os.W_OK)", "True",
                           GROUPS + "test_nothing_is_made_in_a_cgroup_that_was_not_delegated"),
    # The guest's kernel (ADR 70).
    "kernel-mitigations": Case(LINE, "return _ON if has_mitigations else _OFF", "return _OFF",
                               "tests/unit/runtime/firecracker/test_plan.py::test_a_guest_without_mitigations_says_so_on_its_command_line"),
    "kernel-token": Case(LINE, 'if not w.startswith(f"{TOKEN_PARAMETER}=")', "",
                         LINES + "test_the_line_of_a_row_is_the_whole_line_without_the_token"),
    "kernel-reuse": Case("core/names.py", "return reuse is GuestReuse.TENANT", "return False",
                         "tests/unit/core/test_values.py::test_mitigations_are_on_where_code_of_several_principals_runs_or_the_setting_asks"),
    "kernel-of-the-pool": Case("worker/pool/pool.py", "self._shape.mitigations.are_on(slot.domain.reuse)", "False",
                               "tests/unit/worker/pool/test_pool.py::test_a_guests_kernel_follows_from_whom_it_can_serve"),
    # Bundles of guest assets (ADR 71).
    "bundle-digest": Case(BUNDLE, " or sha256_of(path) != digest:", ":",
                          BUNDLES + "test_a_bundle_that_was_damaged_starts_no_guest"),
    "bundle-links": Case(BUNDLE, "if path.is_symlink() or ", "if ",
                         BUNDLES + "test_a_link_to_the_same_bytes_is_refused"),
    "bundle-files": Case(BUNDLE, " or set(files) != set(FILES):", ":", BUNDLES + "test_a_hostile_file_leaves_nothing"),
    "bundle-name": Case(BUNDLE, "if not _DIGEST.fullmatch(digest):", "if False:", BUNDLES + "test_a_name_is_no_path"),
    "bundle-wanted": Case(BUNDLE, "if wanted and found.digest != wanted:", "if False:",
                          BUNDLES + "test_another_bundle_than_the_wanted_one_is_not_kept"),
    "bundle-place": Case(BUNDLE, 'if bundle.digest.removeprefix("sha256:") != place.name:', "if False:",
                         BUNDLES + "test_a_bundle_in_the_place_of_another_is_refused"),
    "bundle-agent": Case(BUNDLE, "if bundle.agent_sources != agent_sources():", "if False:",
                         BUNDLES + "test_an_agent_of_another_hpcc_is_refused"),
    "bundle-members": Case(BUNDLE, "member.name != name or member.type not in _FILE_TYPES or ", "",
                           BUNDLES + "test_a_hostile_file_leaves_nothing"),
    "bundle-member-size": Case(BUNDLE, " or not 0 <= member.size <= most:", ":", BUNDLES + "test_a_file_over_the_limit_is_not_copied"),
    "bundle-nesting": Case(BUNDLE, "OverflowError, RecursionError,", "",
                           "tests/fuzz/test_fuzz_parsers.py::test_each_kept_input_shows_no_defect[guest_bundle]"),
    # Directories of an input tree that hold nothing.
    "empty-most": Case(FRAMES, "inputs = max(len(request.inputs), len(request.input_directories))",
                       "inputs = len(request.inputs)", REQUESTS + "test_each_broken_rule_is_refused"),
    "empty-paths": Case(FRAMES, "*request.output_directories, *request.input_directories):", "*request.output_directories):",
                        REQUESTS + "test_no_path_leads_out_of_the_guests_tree"),
    "empty-below-a-file": Case(FRAMES, "    directories.update(input_directories)\n", "",
                               REQUESTS + "test_each_broken_rule_is_refused"),
    # What requests share is checked once.
    "parts-are-inputs": Case(FRAMES, "for part in parts)) != request.inputs:", "for part in parts)) is None:",
                             REQUESTS + "test_parts_are_the_inputs"),
    "empty-staged": Case("agent/linux/tree.py", "*created, *files, *empty]", "*created, *files]",
                         "tests/unit/agent/linux/test_kept.py::test_an_empty_directory_of_one_tree_is_not_in_the_next"),
    "empty-room": Case(TREE, "len(prefix) if is_empty else listing", "0 if is_empty else listing",
                       "tests/unit/reapi/test_core.py::test_names_of_empty_directories_count_against_the_limit_of_paths"),
    "empty-found": Case(TREE, "                self._empty.append(prefix)", "                pass",
                        "tests/unit/reapi/test_core.py::test_directories_that_hold_nothing_are_found_at_each_of_their_places"),
    # Sandboxes that are made before their program (ADR 86).
    "ready-limits": Case(READY, "found.limits == limits and ", "", READIES + "test_other_limits_get_another"),
    "ready-ended": Case(READY, " and not found.helper.has_ended", "", READIES + "test_one_that_ended_is_not_used"),
    "ready-once": Case(READY, "found, self._waiting = self._waiting, None", "found = self._waiting",
                       READIES + "test_the_next_exec_gets_the_one_that_waits"),
    "ready-tick": Case("agent/linux/ticks.py", " and took_ns < tick_ns", "",
                       "tests/unit/agent/linux/test_ticks.py::test_it_is_seen_by_what_changes_do"),
    # Inputs in the header (ADR 87).
    "header-blob-foreign": Case(INTAKE, "if not found.keys() <= ", "if False and ",
                                INTAKES + "test_other_blobs_in_a_header_are_refused"),
    "header-blob-size": Case("agent/base/service.py", "if len(data) != digest.size_bytes:", "if False:",
                             "tests/unit/agent/base/test_header_blobs.py::test_a_blob_that_is_not_as_large_as_its_input_says_is_refused"),
    "header-blob-room": Case(INTAKE, " or sum(map(len, header.blobs)) > MAX_HEADER_BLOB_BYTES:", ":",
                             INTAKES + "test_other_blobs_in_a_header_are_refused"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
