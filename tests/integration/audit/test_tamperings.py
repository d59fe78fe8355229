"""Whatever somebody without the key changes in a trail is found, or changes nothing that is read.

The oracle is what the test wrote. It compares the rows that the commands print with these rows, and
shares no code with the product's reader. `HPCC_TAMPERINGS` and `HPCC_TAMPERING_SEED` choose how
many there are and which.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from hpcc.audit.base.heads import head_text
from hpcc.cli import main as cli
from hpcc.cli.main import main
from hpcc.core import HpccError
from hpcc_testkit.farm.audit_rows import SMALL, opened, row
from hpcc_testkit.hostile.forged_indexes import restore
from hpcc_testkit.hostile.tamperings import Tamperer

COUNT = int(os.environ.get("HPCC_TAMPERINGS", "60"))
SEED = int(os.environ.get("HPCC_TAMPERING_SEED", "116"))
ROWS = [row(number, row_id=f"{number:032x}", tenant=f"t{number % 3}") for number in range(18)]
_OLD = 11
# 1,000 take ten minutes; half a second each where nothing else runs.
pytestmark = pytest.mark.timeout(120 + 10 * COUNT)


class Trial:
    """A trail, the anchor that a scheduler has of it, and what happened to copies of it."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.anchors = directory / "trail", directory / "anchors"
        self.older, self.copy = directory / "older", directory / "copy"
        self.mark = directory / "mark"

    async def write(self) -> None:
        async with opened(self.directory, limits=SMALL, mark=self.mark) as log:
            for item in ROWS[:_OLD]:
                await log.append(item)
        shutil.copytree(self.directory, self.older)
        async with opened(self.directory, limits=SMALL, mark=self.mark) as log:
            for item in ROWS[_OLD:]:
                await log.append(item)
            self.anchors.write_bytes(head_text(log.signed_anchor()) + b"\n")
        shutil.copytree(self.directory, self.copy)

    async def start(self) -> bool:
        """Start the writer on the trail; return whether it accepted it."""
        try:
            async with opened(self.directory, limits=SMALL, mark=self.mark):
                return True
        except (HpccError, OSError):
            return False


def printed(capsys: pytest.CaptureFixture[str], trial: Trial) -> tuple[int, list[object]]:
    capsys.readouterr()
    code = main(["audit", "export", "--directory", str(trial.directory)])
    out, err = capsys.readouterr()
    assert code == 0 or err.startswith("hpcc: "), err
    found = [json.loads(line) for line in out.splitlines()]
    return code, [{k: v for k, v in f.items() if k not in {"sequence", "hash"}} for f in found]


async def test_what_is_tampered_with_is_found_or_changes_nothing_that_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # A parser for each command would take most of the time.
    monkeypatch.setattr(cli, "build_parser", functools.cache(cli.build_parser))
    trial = Trial(tmp_path)
    await trial.write()
    truth = [json.loads(json.dumps(asdict(item))) for item in ROWS]
    assert printed(capsys, trial) == (0, truth)
    where = ["--directory", str(trial.directory), "--anchors", str(trial.anchors)]
    assert main(["audit", "verify", *where]) == 0
    not_found: list[tuple[int, str, str]] = []
    verdicts: Counter[str] = Counter()
    for seed in range(SEED, SEED + COUNT):
        what = Tamperer(trial.directory, trial.older, seed).tamper()
        code, rows = printed(capsys, trial)
        # Nothing is ever printed that was not written, in this order.
        if any(item not in truth for item in rows) or rows != [r for r in truth if r in rows]:
            not_found.append((seed, what, "a row was printed that nobody wrote"))
        is_whole = code == 0 and rows == truth
        verified = main(["audit", "verify", *where])
        if code:
            verdicts["by the query"] += 1
        elif is_whole:
            verdicts["nothing that is read changed"] += 1
        elif verified:
            verdicts["by verify"] += 1
        else:
            not_found.append((seed, what, "rows are missing, and verify says that it is whole"))
        if await trial.start():
            _, after = printed(capsys, trial)
            if any(item not in truth for item in after):
                not_found.append((seed, what, "a start adopted a row that nobody wrote"))
            if main(["audit", "verify", *where]) == 0 and after != truth:
                not_found.append((seed, what, "a start hid it"))
        restore(trial.copy, trial.directory)
    # With -s: how many were found, and by what.
    sys.stdout.write(f"{COUNT} tamperings from seed {SEED}: {dict(verdicts)}\n")
    assert not_found == []
    assert verdicts["by the query"] > COUNT // 3
    assert sum(verdicts.values()) == COUNT
