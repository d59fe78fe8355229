"""docs/metrics.md lists what services show, and the operators' page names nothing else."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
_NAME = re.compile(r"\bhpcc_(?:[a-z]+_)+[a-z]+\b")


def test_the_page_is_what_the_generator_writes() -> None:
    done = subprocess.run(
        [sys.executable, str(_ROOT / "tools/gen_metrics.py"), "--check"],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


def test_every_metric_that_a_page_names_exists() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) ", (_ROOT / "docs/metrics.md").read_text(), re.M)
    known = {name for name, _ in rows}
    assert len(known) == len(rows) > 40
    known |= {
        n + s for n, kind in rows if kind == "histogram" for s in ("_bucket", "_sum", "_count")
    }
    operate = (_ROOT / "docs/operate.md").read_text()
    named = set(
        _NAME.findall(operate[operate.index("### Metrics") : operate.index("### How much")])
    )
    assert len(named) > 5
    assert named <= known
