"""Each check in the set-up of a Windows guest is needed: without it, the test named after it fails.

Every case removes one check from a copy of the tree and runs that test there. A case fails, too, if
its text is no longer in the source: the check moved, so the case must move with it.
"""

from __future__ import annotations

import pytest

from hpcc_testkit.suite.mutants import Case, Mutants

SPEC_TESTS, HCS_TESTS = (
    "tests/unit/runtime/windows/test_spec.py::",
    "tests/unit/runtime/windows/test_hcs.py::",
)
SPEC, HCS = "runtime/windows/spec.py", "runtime/windows/hcs.py"


CASES = {
    "mounts": Case(
        SPEC,
        '"mounts": [],',
        '"mounts": [{"destination": "C:\\\\x", "source": "C:\\\\y"}],',
        f"{SPEC_TESTS}test_no_spec_gives_a_container_anything_of_the_host",
    ),
    "unsafe-operations": Case(
        SPEC,
        'annotations = {_NO_UNSAFE_OPERATIONS: "true"}',
        "annotations = {}",
        f"{SPEC_TESTS}test_no_spec_gives_a_container_anything_of_the_host",
    ),
    "forbidden-word": Case(
        SPEC,
        " or _FORBIDDEN_WORD in container_id:",
        ":",
        f"{SPEC_TESTS}test_an_id_with_two_meanings_is_refused",
    ),
    "candidate": Case(
        SPEC,
        " or (numbers == MINIMUM_CONTAINERD and is_candidate):",
        ":",
        f"{SPEC_TESTS}test_another_containerd_is_refused_with_what_to_do",
    ),
    "owner": Case(
        HCS,
        " or found[0].owner != SHIM_OWNER:",
        ":",
        f"{HCS_TESTS}test_a_vm_of_the_right_name_that_is_not_the_shims_is_not_dialled",
    ),
    "orphan-owner": Case(
        HCS,
        "        and s.owner == SHIM_OWNER\n",
        "",
        f"{HCS_TESTS}test_orphans_are_ours_and_of_no_container",
    ),
    "duplicates": Case(
        HCS,
        "if len({s.system_id for s in systems}) != len(systems):",
        "if False:",
        f"{HCS_TESTS}test_a_wrong_list_of_systems_is_refused",
    ),
    "freed": Case(
        HCS,
        "self._core.LocalFree(out.value)",
        "pass",
        f"{HCS_TESTS}test_a_wrong_answer_is_freed_too",
    ),
    "dial-again": Case(
        "runtime/windows/hvsocket.py",
        "if _code(error) not in RETRIED:",
        "if False:",
        "tests/unit/runtime/windows/test_hvsocket.py::test_missing_rights_are_not_tried_again",
    ),
    "applied": Case(
        "runtime/windows/layers/containerd_layers.py",
        "if applied != layer.diff_id:",
        "if False:",
        "tests/integration/windows/test_containerd_layers.py"
        "::test_a_layer_that_was_applied_as_another_is_not_committed",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, mutants: Mutants) -> None:
    mutants.check(CASES[name])
