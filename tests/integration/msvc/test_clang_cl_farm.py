"""clang-cl from a daemon through scheduler and worker into a guest, with no part in between faked.

The guest is a directory of this machine, whose image is the directory with clang-cl.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.cache import open_cache
from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import ExecEvent, ExecRequest
from hpcc.dispatch.remote import start_remote
from hpcc.ports import BlobSource
from hpcc_testkit.cache.cl_bench import ClBench
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.guests.fake_runtime import FakeGuest

pytestmark = pytest.mark.timeout(200)
FLAGS = ("/nologo", "/c", "/Brepro", "/O1", "--target=x86_64-pc-windows-msvc", "/Iinc", "src/x.c")


def image_with(programs: Path) -> type[FakeGuest]:
    class Guest(FakeGuest):
        async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
            env = dict(request.env)
            env["PATH"] = f"{programs}:{env['PATH']}"
            async with aclosing(super().exec(replace(request, env=tuple(env.items())), blobs)) as e:
                async for event in e:
                    yield event

    return Guest


def compile_in(checkout: Path, farm: FarmUnderTest, programs: Path) -> tuple[bytes, dict[str, int]]:
    """Compile twice with a private daemon; return the object and the counters."""
    checkout = checkout.resolve()
    home = checkout.with_name(checkout.name + "-home")
    paths = Paths(cache=home / "c", state=home / "s", config=home / "cf", run=home / "r")
    for directory in (paths.state, paths.run, checkout):
        directory.mkdir(parents=True)
    paths.farm_file.write_text(farm.farm().to_json())
    settings = Settings(remote=RemoteSettings(timeout_seconds=60))
    remote = start_remote(paths, settings)
    cache = open_cache(paths, settings, remote)
    try:
        bench = ClBench(checkout, cache, programs)
        bench.write(".hpcc", "")
        bench.write("inc/h.h", "static const char *name(void) { return __FILE__; }\n")
        bench.write("src/x.c", '#include "h.h"\nconst char *f(void) { return name(); }\n')
        answers = [bench.compile(*FLAGS) for _ in range(2)]
        assert [got.answer for got, _ in answers] == ["done", "done"], cache.counters()
        assert answers[0][1] == answers[1][1]
        return answers[0][1], cache.counters()
    finally:
        cache.close()
        remote.close()


async def test_a_guests_object_is_the_bare_compilers_and_serves_other_checkouts(
    tmp_path: Path, programs: Path
) -> None:
    async with farm_under_test(tmp_path / "farm") as farm:
        farm.runtime.guest_class = image_with(programs)
        async with farm.serving():
            found = [
                await asyncio.to_thread(compile_in, tmp_path / name, farm, programs)
                for name in ("one", "two")
            ]
        (first, counted), (second, recounted) = found
        assert first == second
        assert first[:2] == b"\x64\x86"
        assert (counted["miss.remote.executed"], counted["hit.remote"]) == (1, 1)
        assert (recounted["miss.remote.cached"], recounted["hit.remote"]) == (1, 1)
        assert [r.cache_status for r in farm.audit.rows] == ["executed", "hit"]
        assert "-clang:-ffile-prefix-map=/src=." in farm.audit.rows[0].argv


def test_the_real_compiler_describes_itself(programs: Path) -> None:
    found, _ = ask_compiler(os.fsencode(programs / "clang-cl"), b"clang-cl", b"/usr/bin:/bin")
    assert found.toolchain is not None
    assert (found.toolchain.family, found.toolchain.names) == ("clang-cl", ("clang-cl",))
    assert found.toolchain.target.endswith("-windows-msvc")
