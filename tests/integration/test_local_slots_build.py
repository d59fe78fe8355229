"""A build whose one worker is full: launcher, daemon and dispatcher use this machine's processors."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.config.paths import Paths
from hpcc.core import ExecEvent, ExecRequest, ImageDigest, NotFoundError, Toolchain
from hpcc.images.survey import Survey
from hpcc.ports import BlobSource
from hpcc_testkit.cache.launcher import (
    build_launcher,
    counters,
    launcher_environment,
    stop_daemon,
    wait_until,
)
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test
from hpcc_testkit.farm.policies import PolicyAuthenticator
from hpcc_testkit.farm.several import by_worker, room
from hpcc_testkit.guests.fake_runtime import FakeGuest

pytestmark = pytest.mark.timeout(400)

UNITS = 7
MAKEFILE = "all: $(patsubst %.c,%.o,$(wildcard *.c))\n%.o: %.c\n\t$(CC) -O2 -MD -c -o $@ $<\n"
# The dispatcher gets PYTHONPATH. Whether the processors of the test's machine are idle must not
# decide what this test sees.
IDLE = "import hpcc.dispatch.local_slots as slots\nslots.running = lambda: 0\n"


class Held(FakeGuest):
    """A guest in which compiles begin when `may_run` is set."""

    may_run: asyncio.Event

    async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
        await self.may_run.wait()
        async for event in super().exec(request, blobs):
            yield event


class Book:
    """`ToolchainBook` in memory, with an answer that was kept earlier."""

    def __init__(self, **changes: str) -> None:
        """`changes` make the image's compiler another one than this machine's."""
        host, _ = ask_compiler(b"/usr/bin/gcc", b"gcc", b"/usr/bin:/bin")
        assert host.toolchain is not None
        self._kept = (replace(host.toolchain, **changes),)  # type: ignore[arg-type]  # names of fields

    async def known(self, image: ImageDigest) -> tuple[Toolchain, ...]:
        del image
        return self._kept

    async def keep(self, image: ImageDigest, survey: Survey) -> None:
        """Keep nothing: see `known`."""


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_launcher(tmp_path_factory.mktemp("launcher"))


@pytest.fixture
def env(tmp_path: Path) -> Iterator[dict[str, str]]:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(IDLE)
    env = launcher_environment(tmp_path / "h", PYTHONPATH=str(tmp_path / "site"))
    command = [sys.executable, "-P", "-m", "hpcc.daemon"]
    with subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL) as daemon:
        wait_until(lambda: _answers(env), timeout_seconds=60.0)
        yield env
        stop_daemon(env)
        daemon.kill()


def _answers(env: dict[str, str]) -> bool:
    try:
        counters(env)
    except NotFoundError:
        return False
    return True


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "project"
    directory.mkdir()
    (directory / "Makefile").write_text(MAKEFILE)
    (directory / "h.h").write_text("#include <stdio.h>\nint twice(int);\n")
    for n in range(UNITS):
        text = f'#include "h.h"\nint f{n}(int x) {{ return printf("%d", twice(x + {n})); }}\n'
        (directory / f"u{n}.c").write_text(text)
    old = time.time() - 3600
    for path in directory.iterdir():
        os.utime(path, (old, old))
    return directory


@asynccontextmanager
async def full_farm(
    directory: Path, env: dict[str, str], fallback: str = "warn", **changes: str
) -> AsyncGenerator[FarmUnderTest]:
    """Run a farm with one worker of one place, and name it to the daemon."""
    authenticator = PolicyAuthenticator()
    authenticator.policy = replace(
        authenticator.policy,
        parity="warn",
        fallback=fallback,  # type: ignore[arg-type]  # a word of the policy
    )
    async with farm_under_test(directory, authenticator=authenticator, **room(1)) as farm:
        farm.runtime.guest_class = Held
        Held.may_run = asyncio.Event()
        Held.may_run.set()
        farm.book = await asyncio.to_thread(Book, **changes)
        async with farm.serving():
            await asyncio.to_thread(_name_farm, Paths.from_env(env), farm)
            try:
                yield farm
            finally:
                Held.may_run.set()


def _name_farm(paths: Paths, farm: FarmUnderTest) -> None:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text(farm.farm().to_json())
    paths.farm_file.chmod(0o600)


def _make(project: Path, env: dict[str, str], cc: str, goals: tuple[str, ...]) -> dict[str, bytes]:
    for path in project.glob("*.[od]"):
        path.unlink()
    subprocess.run(
        ["make", "-j4", f"CC={cc}", *goals], cwd=project, env=env, check=True, timeout=300
    )
    return {path.name: path.read_bytes() for path in sorted(project.glob("*.o"))}


async def build(project: Path, env: dict[str, str], cc: str, *goals: str) -> dict[str, bytes]:
    return await asyncio.to_thread(_make, project, env, cc, goals)


def count(env: dict[str, str], prefix: str) -> int:
    return sum(n for name, n in counters(env).items() if name.startswith(prefix))


async def until(is_so: Callable[[], bool], seconds: float = 90.0) -> None:
    """Wait; a test that waited in vain fails at what it asserts, with the build at its end."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not await asyncio.to_thread(is_so):  # noqa: ASYNC110 - another process makes it so
                await asyncio.sleep(0.1)


async def log_in(project: Path, env: dict[str, str], launcher: Path) -> None:
    """Compile one unit: before the first login nothing is known of policy and image."""
    paths = Paths.from_env(env)
    for _ in range(5):  # the launcher may leave a daemon alone that a busy machine holds up
        await build(project, env, f"{launcher} gcc", "u0.o")
        if await asyncio.to_thread(paths.farm_session_file.exists):
            return


async def test_a_build_on_a_full_worker_also_uses_this_machine(
    tmp_path: Path, project: Path, launcher: Path, env: dict[str, str]
) -> None:
    bare = await build(project, env, "gcc")
    async with full_farm(tmp_path / "farm", env) as farm:
        await log_in(project, env, launcher)
        Held.may_run.clear()
        running = asyncio.ensure_future(build(project, env, f"{launcher} gcc"))
        await until(lambda: count(env, "local-slot") >= 3)
        Held.may_run.set()
        assert await running == bare
        here, there = count(env, "local-slot"), by_worker(farm).total()
        assert here >= 3, counters(env)
        assert there >= 2, "one ran and one waited there"
        assert here + there == UNITS - count(env, "launcher."), counters(env)
        assert count(env, "fallback.") == 0
        assert count(env, "miss.local") == here
        assert await build(project, env, f"{launcher} gcc") == bare
        assert by_worker(farm).total() == there, "all are found here"
        assert count(env, "local-slot") == here


@pytest.mark.parametrize(("fallback", "changes"), [("never", {}), ("warn", {"build": "another"})])
async def test_a_farm_that_does_not_permit_it_gets_every_compile(
    tmp_path: Path,
    project: Path,
    launcher: Path,
    env: dict[str, str],
    fallback: str,
    changes: dict[str, str],
) -> None:
    bare = await build(project, env, "gcc")
    async with full_farm(tmp_path / "farm", env, fallback, **changes) as farm:
        await log_in(project, env, launcher)
        Held.may_run.clear()
        running = asyncio.ensure_future(build(project, env, f"{launcher} gcc"))
        # All four jobs of the build have asked; u0 was a hit, before or after this one's time.
        await until(lambda: count(env, "closure.scanned") >= 5)
        await asyncio.sleep(1.0)
        Held.may_run.set()
        assert await running == bare
        assert by_worker(farm).total() == UNITS - count(env, "launcher."), counters(env)
        assert count(env, "local-slot") == count(env, "fallback.") == 0
