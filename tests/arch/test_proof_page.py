from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/proof.md").read_text()


def test_the_files_and_tests_that_the_proof_page_names_exist() -> None:
    files = list((ROOT / "tests").rglob("test_*.py"))
    there = {name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())}
    there |= {file.stem for file in files}
    named = set(re.findall(r"\b(test_\w+)", PAGE))
    assert len(named) > 5
    assert named - there == set()
    for directory in re.findall(r"`(tests/[\w/]+)`", PAGE):
        assert (ROOT / directory).is_dir(), directory
