from __future__ import annotations

import os
import time
from pathlib import Path

from hpcc.daemon._engine import MAX_ANSWER_BYTES, Plan, open_engine
from hpcc.daemon._outputs import OutputFile
from hpcc.daemon._replay import Replays


def test_a_result_with_long_messages_is_put_in_place(tmp_path: Path) -> None:
    target = os.fsencode(tmp_path / "main.o")
    plan = Plan(
        checks=(),
        outputs=(OutputFile(target, b"object"),),
        mode=0o644,
        source=(0, 0),
        answer=bytes(MAX_ANSWER_BYTES + 1),
    )
    assert Replays(open_engine(), time.monotonic).put(plan)
    assert (tmp_path / "main.o").read_bytes() == b"object"
