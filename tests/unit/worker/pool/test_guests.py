"""A worker's guests boot from what its configuration names, or the worker does not start."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from hpcc.core import NotFoundError
from hpcc.ports import SystemClock
from hpcc.worker.base.config import WorkerConfig
from hpcc.worker.pool.guests import runtime_of

BUNDLE = "sha256:" + "5" * 64


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


async def test_a_worker_without_its_bundle_starts_no_guest(tmp_path: Path) -> None:
    names = ("keys", "store", "audit", "images", "guest_assets", "state")
    config = WorkerConfig(
        worker_id="w1", scheduler="127.0.0.1:1", scheduler_certificate_pem="", image_digests=(),
        guest_bundle=BUNDLE, **{name: tmp_path / name for name in names},
    )  # fmt: skip
    lines: list[str] = []
    process = cast("Any", SimpleNamespace(progress=lines.append))
    with pytest.raises(NotFoundError, match=f"hpcc assets fetch FILE --digest {BUNDLE}"):
        await runtime_of(config, process, SystemClock(), None, is_windows=False)
    assert lines[-1] == "checking the bundle of kernel and agent"
    assert names_in(tmp_path) == [], "nothing was prepared instead"
