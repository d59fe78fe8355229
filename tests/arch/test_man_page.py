from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_man_page_is_what_the_parser_says() -> None:
    command = [sys.executable, str(ROOT / "tools/gen_man.py"), "--check"]
    assert subprocess.run(command, check=False).returncode == 0, "run `make gen`"
