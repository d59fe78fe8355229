"""What `hpcc trace` writes of a build of 500 units is opened by speedscope in the real Chromium."""

from __future__ import annotations

import functools
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hpcc.cache.recorder.places import DIRECTORY_NAME
from hpcc.cache.recorder.recorder import Recorder
from hpcc.config.paths import Paths
from hpcc_testkit.cache.recorded import AT_US, large_build
from hpcc_testkit.services.browser import browser, fetched, missing_or_none

VIEWER = fetched() / "node_modules/speedscope/dist/release"
pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(missing_or_none()), reason=missing_or_none() or "it is here"),
    pytest.mark.skipif(not VIEWER.is_dir(), reason="no speedscope: tools/bootstrap.sh browser"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Write nothing."""


@contextmanager
def files_of(directory: Path) -> Iterator[str]:
    """Serve a directory on loopback."""
    handler = functools.partial(Quiet, directory=os.fspath(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_speedscope_opens_the_trace_of_500_units(tmp_path: Path) -> None:
    env = {**os.environ, "HPCC_DIR": str(tmp_path)}
    cache = Paths.from_env(env).cache
    recorder = Recorder(str(cache / DIRECTORY_NAME), lambda: AT_US / 1e6)
    for compile_ in large_build(500).compiles:
        recorder.add("large", compile_)
    recorder.flush()
    served = tmp_path / "served"
    served.mkdir()
    for file in VIEWER.iterdir():
        (served / file.name).symlink_to(file)
    trace = served / "build.json"
    done = subprocess.run(
        [sys.executable, "-m", "hpcc.cli", "trace", "large", "-o", str(trace)], env=env,
        stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    slices = [e for e in json.loads(trace.read_text())["traceEvents"] if e["ph"] == "X"]
    rows = {(e["pid"], e["tid"]) for e in slices}
    with files_of(served) as root, browser() as chromium:
        chromium.do("open", url=f"{root}/index.html#profileURL={root}/build.json&title=large")
        # One of its profiles for each row.
        chromium.do("wait", text=f"(1/{len(rows)})")
        said = chromium.do("log")
    assert any("Importing as Trace Event Format profile" in line for line in said)
    # It says so where slices of a row overlap.
    wrong = [line for line in said if "Tried to end" in line or "still open" in line]
    assert not wrong
