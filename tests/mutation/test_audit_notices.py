"""Each check of the audit trail is needed: without it, the test named after the attack fails.

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
TAMPERING = "tests/integration/audit/test_audit_tampering.py::"
REPRODUCE = "tests/integration/audit/test_audit_reproduce.py::"
TESTS_FAILED = 1


class Case(NamedTuple):
    """A check in `file`, the text it is replaced by, and the test that must notice."""

    file: str
    check: str
    without: str
    test: str


CASES = {
    "chain": Case(
        "audit/_segments.py",
        "if record.sequence != sequence or record.previous != head:",
        "if record.sequence != sequence:",
        TAMPERING + "test_a_changed_row_is_found",
    ),
    "end-by-anchor": Case(
        "audit/_verify.py",
        "if newest > self.count:",
        "if False:",
        TAMPERING + "test_a_cut_tail_is_found_by_an_anchor_and_not_without_one",
    ),
    "head-by-anchor": Case(
        "audit/_verify.py",
        "if wanted != head:",
        "if False:",
        TAMPERING + "test_a_tail_that_was_written_anew_is_found_by_an_anchor",
    ),
    "retention-said": Case(
        "audit/_verify.py",
        "if self._until < self.first:",
        "if False:",
        TAMPERING + "test_removed_segments_at_the_beginning_are_not_taken_for_retention",
    ),
    "one-key": Case(
        "audit/_verify.py",
        "if len(sealed) > 1 or len(anchored) > 1 or (sealed and anchored and sealed != anchored):",
        "if False:",
        TAMPERING + "test_a_seal_that_was_made_with_another_key_is_found",
    ),
    "seal-signature": Case(
        "audit/_segments.py",
        "    check_head(signed)\n",
        "",
        TAMPERING + "test_a_seal_whose_bytes_were_changed_is_found",
    ),
    "anchor-signature": Case(
        "audit/_verify.py",
        "        check_head(anchor)\n",
        "",
        TAMPERING + "test_an_anchor_that_was_changed_or_is_unsigned_is_refused",
    ),
    "reproduced-outputs": Case(
        "worker/_reproduce.py",
        "if made.get(path) != before.get(path)",
        "if False",
        REPRODUCE + "test_a_row_with_a_forged_output_digest_is_not_reproduced",
    ),
    "reproduced-isolation": Case(
        "worker/_reproduce.py",
        "if runtime.isolation.value != row.isolation:",
        "if False:",
        REPRODUCE + "test_another_isolation_than_the_rows_is_no_reproduction",
    ),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("mutant") / "src"
    shutil.copytree(ROOT / "src", tree, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("name", CASES)
def test_without_the_check_its_test_fails(name: str, source: Path) -> None:
    case = CASES[name]
    file = source / "hpcc" / case.file
    text = file.read_text()
    assert text.count(case.check) == 1, f"{case.file} has the check no more, or twice"
    file.write_text(text.replace(case.check, case.without))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", case.test],
            cwd=ROOT, timeout=150, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    finally:
        file.write_text(text)
    assert done.returncode == TESTS_FAILED, f"not noticed:\n{done.stdout[-2000:]}"
    assert "failed" in done.stdout
