"""Each check of a Windows guest's making is needed: without it, the test named after it fails.

Every case takes one check out of a copied tree and runs that test there. A case whose text is not
found any more fails, too: the check moved, and so must the case.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC_TESTS, HCS_TESTS = "tests/unit/test_windows_spec.py::", "tests/unit/test_windows_hcs.py::"
SPEC, HCS = "runtime/_windows_spec.py", "runtime/_hcs.py"
TESTS_FAILED = 1


class Case(NamedTuple):
    """A check in `file`, the text it is replaced by, and the test that must notice."""

    file: str
    check: str
    without: str
    test: str


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
        "runtime/_hvsocket.py",
        "if _code(error) not in RETRIED:",
        "if False:",
        "tests/unit/test_windows_hvsocket.py::test_missing_rights_are_not_tried_again",
    ),
    "applied": Case(
        "runtime/_containerd_layers.py",
        "if applied != layer.diff_id:",
        "if False:",
        "tests/integration/windows/test_containerd_layers.py"
        "::test_a_layer_that_was_applied_as_another_is_not_committed",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = tmp_path / "src"
    shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
    file = source / "hpcc" / case.file
    text = file.read_text()
    assert text.count(case.check) == 1, f"{case.file} has the check no more, or twice"
    file.write_text(text.replace(case.check, case.without))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", case.test],
        cwd=ROOT,
        # Its own timeout would hide a hang as success of this test: no exit code 1 then.
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == TESTS_FAILED, f"not noticed:\n{done.stdout[-2000:]}"
    assert "failed" in done.stdout
