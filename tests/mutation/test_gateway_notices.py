"""Each check of a gateway is needed: without it, the test named after the attack fails.

As `test_identity_notices.py`: one check is taken out of a copied tree, and that test run there.
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
ATTACKS = "tests/integration/gateway/test_gateway_attacks.py::"
ORDER = "tests/unit/test_output_order.py::"
LINK = "rpc/_relay_link.py"
TESTS_FAILED = 1


class Case(NamedTuple):
    """A check in `file`, the text it is replaced by, and the test that must notice."""

    file: str
    check: str
    without: str
    test: str


CASES = {
    "two-tokens": Case(LINK, "is_bearer = len(values) == 1 and", "is_bearer = bool(values) and",
                       ATTACKS + "test_two_tokens_in_one_call_are_refused"),
    "token-tenant": Case("gateway/_visitors.py", "key = (tenant.value, _hash(credential))",
                         'key = ("", _hash(credential))',
                         ATTACKS + "test_a_token_that_was_good_for_one_tenant_opens_no_other"),
    "write-order": Case("rpc/_write_order.py", "if message.write_offset != self.received_bytes or (",
                        "if False and (",
                        ATTACKS + "test_an_upload_with_gaps_overlaps_or_another_name_is_refused"),
    "output-parent": Case("runtime/_output_order.py",
                          'if not is_new or path.rpartition("/")[0] not in self._seen_directories:',
                          "if not is_new:", ORDER + "test_an_output_that_may_not_come_now_is_a_breach"),
    "output-count": Case("runtime/_output_order.py", "return self._entries <= MAX_OUTPUT_ENTRIES",
                         "return True",
                         ORDER + "test_a_million_entries_in_an_output_directory_are_a_breach"),
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("mutant") / "src"
    shutil.copytree(ROOT / "src", tree, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


@pytest.mark.slow
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
            cwd=ROOT, timeout=60, capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    finally:
        file.write_text(text)
    assert done.returncode == TESTS_FAILED, f"not noticed:\n{done.stdout[-2000:]}"
    assert "failed" in done.stdout
