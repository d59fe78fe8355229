"""cppcheck through a whole farm: from the daemon's cache to a worker's guest and back."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from hpcc.cache.cache import open_cache
from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import ImageDigest, Toolchain
from hpcc.dispatch.remote import start_remote
from hpcc.images.survey import Survey
from hpcc_testkit.cache.compiles import FakeLauncher, counted, run_bare
from hpcc_testkit.farm.in_process import IMAGE, farm_under_test

pytestmark = pytest.mark.skipif(
    shutil.which("cppcheck") is None, reason="tools/bootstrap.sh packages test installs cppcheck"
)
# Relative names: the fake guest is another directory, and only a real one is at /src.
ARGV = ("cppcheck", "--enable=warning", "-Iinc", "src/a.cc")
SOURCE = '#include "h.h"\nint f(int c) {\n  int a[2] = {c};\n  return a[N];\n}\n'


class Book:
    """`ToolchainBook`: the image has this machine's cppcheck."""

    def __init__(self, found: Toolchain) -> None:
        self.found = found

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...] | None:
        return (self.found,) if image == IMAGE.digest else None

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        del image, survey


async def test_findings_of_a_guest(tmp_path: Path) -> None:
    own = ask_compiler(
        os.fsencode(shutil.which("cppcheck") or ""), b"cppcheck", b"/usr/local/bin:/usr/bin:/bin"
    )[0].toolchain
    assert own is not None
    root = tmp_path / "project"
    for name, text in {"src/a.cc": SOURCE, "inc/h.h": "#define N 2\n"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / ".git").mkdir()
    places = (tmp_path / name for name in ("cache", "state", "config", "run"))
    paths = Paths(**dict(zip(("cache", "state", "config", "run"), places, strict=True)))
    async with farm_under_test(tmp_path) as farm:
        farm.book = Book(own)
        async with farm.serving():
            paths.state.mkdir(exist_ok=True)
            paths.farm_file.write_text(farm.farm().to_json())
            client = start_remote(paths, Settings())
            cache = open_cache(paths, Settings(), client)
            launcher = FakeLauncher(handler=cache, cwd=root)
            try:
                bare = await asyncio.to_thread(run_bare, ARGV, cwd=root)
                # Before the first login the dispatcher compares the tools, then the daemon.
                for name, text in (("src/a.cc", SOURCE), ("inc/h.h", "#define N 2\n\n")):
                    (root / name).write_text(text)
                    ended = await asyncio.to_thread(launcher.compile, *ARGV)
                    assert (ended.answer, ended.exit_code) == ("done", 0)
                    assert (ended.stdout, ended.stderr) == bare[1:]
                assert b"[arrayIndexOutOfBounds]" in ended.stderr
                assert counted(cache, "miss.remote.executed") == (2,)
                assert (await asyncio.to_thread(launcher.compile, *ARGV)).answer == "done"
                assert counted(cache, "hit.remote") == (1,)
            finally:
                await asyncio.to_thread(client.close)
                cache.close()
        assert [row.cache_status for row in farm.audit.rows] == ["executed", "executed"]
