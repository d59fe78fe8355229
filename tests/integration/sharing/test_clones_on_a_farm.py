"""Two people with two clones at different paths use one farm: what is shared and what is not."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from hpcc.cache.cache import open_cache
from hpcc.cache.replay.handler import CacheHandler
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.dispatch.remote import start_remote
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, run_bare
from hpcc_testkit.farm.in_process import FarmUnderTest, farm_under_test

pytestmark = pytest.mark.timeout(300)

_FILES = {
    ".hpcc": "",
    "src/one.c": '#include "local.h"\n#include <conf.h>\nint one(void) { int unused; return CONF; }\n',
    "src/two.c": "#include <stdio.h>\n#include MACRO_H\nint two(void) { return puts(TEXT); }\n",
    "src/three.cc": '#include <string>\n#include "local.h"\nstd::string three() { return LOCAL; }\n',
    "src/local.h": '#define LOCAL "local"\n',
    "inc/conf.h": "#define CONF 7\n",
    "inc/text.h": '#define TEXT "text"\n',
}


def _commands(root: Path) -> tuple[tuple[str, ...], ...]:
    """Return the commands of a build of this clone; the last one uses only absolute paths."""
    return (
        ("gcc", "-Wall", "-g", "-Iinc", "-MD", "-c", "src/one.c", "-o", "one.o"),
        ("gcc", "-O2", "-Iinc", "-DMACRO_H=<text.h>", "-MMD", "-c", "src/two.c", "-o", "two.o"),
        ("g++", "-O1", "-MD", "-MP", "-c", "src/three.cc", "-o", "three.o"),
        ("gcc", "-Wall", f"-I{root}/inc", "-MD", "-MF", "all.d", "-c", f"{root}/src/one.c", "-o",
         f"{root}/all.o"),
    )  # fmt: skip


@dataclass
class Developer:
    """A clone, a daemon's cache and dispatcher, an identity."""

    root: Path
    handler: CacheHandler

    async def build(self) -> list[Compiled]:
        launcher = FakeLauncher(handler=self.handler, cwd=self.root)
        return [
            await asyncio.to_thread(launcher.compile, *command) for command in _commands(self.root)
        ]

    def outputs(self) -> dict[str, bytes]:
        return {p.name: p.read_bytes() for p in sorted(self.root.glob("*.[od]"))}

    def count(self, name: str) -> int:
        return self.handler.counters().get(name, 0)


@contextmanager
def developer(farm: FarmUnderTest, name: str, clone: Path) -> Iterator[Developer]:
    """Yield a developer with a private copy of the sources, all of them older than this test."""
    for path, text in _FILES.items():
        (clone / path).parent.mkdir(parents=True, exist_ok=True)
        (clone / path).write_text(text)
    old = time.time() - 3600
    for found in clone.rglob("*"):
        os.utime(found, (old, old))
    paths = Paths.from_env({"HPCC_DIR": str(farm.directory / f"home-{name}")})
    paths.farm_file.parent.mkdir(parents=True)
    paths.farm_file.write_text(farm.farm(name).to_json())
    settings = Settings(remote=RemoteSettings(timeout_seconds=120.0))
    remote = start_remote(paths, settings)
    handler = open_cache(paths, settings, remote)
    try:
        yield Developer(clone.resolve(), handler)
    finally:
        remote.close()
        handler.close()


def _bare(root: Path) -> tuple[list[tuple[int, bytes, bytes]], dict[str, bytes]]:
    """Return the bare compiler's messages and outputs in that clone."""
    env = {"LC_ALL": "C.UTF-8"}  # a guest has this one
    ended = [run_bare(command, cwd=root, env=env) for command in _commands(root)]
    written = {p.name: p.read_bytes() for p in sorted(root.glob("*.d"))}
    for path in root.glob("*.[od]"):
        path.unlink()
    return ended, written


@pytest.mark.parametrize("reuse", ["exec", "tenant"])
async def test_a_colleagues_clone_elsewhere_is_served_entirely_from_the_farm(
    reuse: str, tmp_path: Path
) -> None:
    async with farm_under_test(tmp_path / "farm", guest_reuse=reuse) as farm, farm.serving():
        with (
            developer(farm, "ann", tmp_path / "home/ann/project") as ann,
            developer(farm, "bob", tmp_path / "other disk/b") as bob,
        ):
            said, depfiles = await asyncio.to_thread(_bare, bob.root)
            await ann.build()
            total = len(_commands(ann.root))
            assert ann.count("miss.remote.executed") == total
            ended = await bob.build()
            # Every one of them, and nothing else happened.
            assert bob.count("miss.remote.cached") == total
            assert bob.count("miss.remote.executed") == 0
            assert bob.count("closure.scanned") == total
            counters = bob.handler.counters()
            assert not [name for name in counters if name.startswith(("fallback.", "bypass."))]
            # As each one's own compiler spells it.
            assert [(c.exit_code, c.stdout, c.stderr) for c in ended] == said
            theirs, ours = ann.outputs(), bob.outputs()
            assert {n: d for n, d in ours.items() if n.endswith(".d")} == depfiles
            assert {n: d for n, d in ours.items() if n.endswith(".o")} == {
                n: d for n, d in theirs.items() if n.endswith(".o")
            }
            (bob.root / "inc/text.h").write_text('#define TEXT "bob"\n')
            await bob.build()
            assert bob.count("miss.remote.executed") == 1  # the unit that includes it
    rows = farm.audit.rows
    by_ann = [r.action_digest for r in rows if r.principal == "ann"]
    by_bob = [(r.action_digest, r.cache_status) for r in rows if r.principal == "bob"]
    assert by_bob[:total] == [(digest, "hit") for digest in by_ann]
    assert len(set(by_ann)) == total


async def test_what_a_principals_used_guest_made_is_not_shared_where_policy_keeps_them_apart(
    tmp_path: Path,
) -> None:
    async with farm_under_test(tmp_path / "farm", guest_reuse="principal") as farm, farm.serving():
        with (
            developer(farm, "ann", tmp_path / "a") as ann,
            developer(farm, "bob", tmp_path / "b") as bob,
        ):
            await ann.build()
            await bob.build()
            total = len(_commands(ann.root))
            # Her guest was fresh for her first compile, and no more for the others.
            assert bob.count("miss.remote.fresh") == 1
            assert bob.count("miss.remote.executed") == total - 1
            assert bob.count("miss.remote.cached") == 0
            # The same actions all the same: it is policy that keeps the results apart.
            rows = farm.audit.rows
            assert {r.action_digest for r in rows if r.principal == "ann"} == {
                r.action_digest for r in rows if r.principal == "bob"
            }
