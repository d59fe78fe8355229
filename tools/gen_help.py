"""Writes `hpcc --help` into the README between its markers.   gen_help.py [--check]"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- help:begin (make gen) -->", "<!-- help:end -->"


def rendered(text: str) -> str:
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "hpcc.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n```\n{done.stdout.strip()}\n```\n{END}{tail}"


def main() -> int:
    readme = ROOT / "README.md"
    old = readme.read_text()
    new = rendered(old)
    if "--check" in sys.argv[1:]:
        return int(old != new)
    readme.write_text(new)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
