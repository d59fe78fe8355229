"""Lists the modules that a daemon has loaded after it answered a hit of gcc."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.core import HpccError
from hpcc.daemon.client import query
from hpcc_testkit.cache.launcher import Bench, counters, paths_of, wait_until

_RECORD = """
import atexit, json, os, sys
process = os.getpid()
def write():
    if os.getpid() == process:
        with open({output!r}, "w") as file:
            json.dump(sorted(sys.modules), file)
atexit.register(write)
"""


@contextmanager
def recorded_daemon(bench: Bench, directory: Path) -> Iterator[Path]:
    """Run a daemon of one process that writes the names of its modules when it ends."""
    output = directory / "modules.json"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(_RECORD.format(output=str(output)))
    paths = paths_of(bench.env)
    paths.config_file.parent.mkdir(parents=True, exist_ok=True)
    paths.config_file.write_text("[daemon]\nprocesses = 1\n")
    path = os.pathsep.join([str(directory), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "hpcc.daemon"],
        env={**bench.env, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            wait_until(lambda: _answers(bench), timeout_seconds=20)
            yield output
            process.terminate()
            process.wait(20)
        finally:
            process.kill()


def _answers(bench: Bench) -> bool:
    try:
        query(paths_of(bench.env), "status")
    except HpccError:
        return False
    return True


@pytest.mark.timeout(120)
def test_a_hit_of_gcc_loads_no_module_of_cl_and_no_grpc(bench: Bench, tmp_path: Path) -> None:
    (bench.work / "b.c").write_text("#include <stddef.h>\nsize_t b;\n")
    time.sleep(0.1)  # files that are younger than a compile are not kept
    with recorded_daemon(bench, tmp_path / "site") as output:
        for _ in range(3):
            assert bench.run("gcc", "-c", "b.c").returncode == 0
            (bench.work / "b.o").unlink()
        counts = counters(bench.env)
    loaded = json.loads(output.read_text())
    assert counts["miss.local"] == 1, counts
    assert counts["hit.local"] == 2, counts
    assert "hpcc.compilers.gnu.family" in loaded
    assert [m for m in loaded if {"msvc", "cl"} & set(re.split(r"[._]", m))] == []
    assert [m for m in loaded if re.split(r"[._]", m)[0] in {"grpc", "grpclib"}] == []
