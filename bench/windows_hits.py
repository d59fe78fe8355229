"""What a hit of the local cache costs on Windows, beside the bare compiler: both under Wine.

    python bench/windows_hits.py [RUNS]

A native clang-cl compiles a C file with one header, and one with 200 headers of 9 kB. Each way
starts one program in a running Wine, in turns; the fastest run of each counts. `daemon` is a hit
that was not kept for the launcher, `start` a program that does nothing: what Wine itself takes.
Prints ratios to the bare compiler's fastest run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hpcc_testkit.windows.agent import drive_c
from hpcc_testkit.windows.client import WindowsClient
from hpcc_testkit.windows.native_clang import PLACES, install_clang_cl
from hpcc_testkit.windows.wine import Wine, cross_build

_SETTLED_SECONDS: Final = 0.5
_SOURCES: Final = {
    "small.c": '#include "h.h"\nint f(void) { return X; }\n',
    "wide.c": "".join(f'#include "w{n}.h"\n' for n in range(200))
    + "int g(void) { return W199; }\n",
}


def _project(wine: Wine) -> Path:
    directory = drive_c(wine) / "w"
    directory.mkdir()
    (directory / "h.h").write_text("#define X 3\n")
    for n in range(200):
        body = "".join(
            f"static inline int w{n}_{i}(int a) {{ return a + {i}; }}\n" for i in range(200)
        )
        (directory / f"w{n}.h").write_text(f"#define W{n} {n}\n{body}")
    for name, text in _SOURCES.items():
        (directory / name).write_text(text)
    time.sleep(_SETTLED_SECONDS)
    return directory


def _fastest(ways: dict[str, Callable[[], object]], runs: int) -> dict[str, float]:
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(runs):
        for name, way in ways.items():
            started = time.perf_counter()
            way()
            best[name] = min(best[name], time.perf_counter() - started)
    return best


def _measure(work: Path, runs: int) -> None:
    wine = Wine(work / "wine")
    try:
        client = WindowsClient(wine, work, install_clang_cl(wine, PLACES[2]), "bench")
        client.env = {"VCToolsInstallDir": "C:\\VC", "INCLUDE": "C:\\VC\\include"}
        (drive_c(wine) / "VC/include").mkdir(parents=True)
        client.cwd = _project(wine)
        nothing = work / "nothing.c"
        nothing.write_text("int main(void) { return 0; }\n")
        cross_build(nothing, work / "nothing.exe")
        with client.daemon():
            for source in _SOURCES:
                _measure_one(client, work / "nothing.exe", source, runs)
    finally:
        wine.close()


def _measure_one(client: WindowsClient, nothing: Path, source: str, runs: int) -> None:
    argv = ("/nologo", "/c", "/O2", source)

    hits, log = client.home / "run/hits", client.home / "run/hits.log"

    def kept() -> int:
        return log.stat().st_size if log.exists() else 0

    def hit(*, is_kept: bool) -> None:
        started, before = client.clang.runs, kept()
        done = client.compile(*argv)
        assert done.returncode == 0, done
        assert client.clang.runs == started, "not a hit"
        assert (kept() != before) is is_kept, "answered by the other one"

    def hit_of_the_daemon() -> None:
        for path in hits.iterdir():
            path.unlink()
        hit(is_kept=False)

    for _ in range(2):
        assert client.compile(*argv).returncode == 0
    ways = {
        "bare": lambda: client.bare(*argv),
        "launcher": lambda: hit(is_kept=True),
        "daemon": hit_of_the_daemon,
        "start": lambda: client.wine.run(nothing, cwd=client.cwd),
    }
    best = _fastest(ways, runs)
    print(source, {name: f"{seconds * 1000:.1f} ms" for name, seconds in best.items()})
    print(source, {name: f"{seconds / best['bare']:.2f}" for name, seconds in best.items()})
    print(client.stats())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="hpcc-bench-") as directory:
        _measure(Path(directory), int(sys.argv[1]) if len(sys.argv) > 1 else 20)
