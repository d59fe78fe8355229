"""Random edits, bounded; `make soak` runs it for as long as one likes."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpcc.testing.soak import soak


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_edits_never_give_another_result(seed: int, launcher: Path, tmp_path: Path) -> None:
    counted = soak(launcher, tmp_path, seed=seed, operations=96)
    assert counted["hit.local"] > 5
    assert counted["miss.local"] > 5
