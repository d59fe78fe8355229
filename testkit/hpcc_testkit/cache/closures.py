"""Compares the scanned include closure with the files that the compiler's `-M` names.

For real and generated projects: open `audit_closures`, then call `check` for each command.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hpcc.cache.base.api import Run
from hpcc.cache.cache import open_cache
from hpcc.cache.replay.handler import CacheHandler
from hpcc.compilers.invocation.depfile import parse_depfile, prerequisites
from hpcc.compilers.invocation.guest import SAME_LENGTH_WORD
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import RemoteFailure
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, run_bare


@dataclass(slots=True)
class ClosureAudit:
    """Plans compiles as a client of a farm that is out of quota, so that nothing is compiled there.

    `scanned` counts the closures that came from the scan. `asked` lists the commands for which the
    compiler had to be asked. `extra` lists the files that were sent without need.
    """

    handler: CacheHandler
    remote: FakeRemote
    scanned: int = 0
    asked: list[tuple[str, ...]] = field(default_factory=list)
    extra: int = 0

    def forget(self) -> None:
        """Reset all counters."""
        self.scanned, self.asked, self.extra = 0, [], 0

    def check(self, root: Path, cwd: Path, argv: Sequence[str]) -> None:
        """Assert that the tree of a command holds every file under `root` that `-M` names."""
        sent = self.plan(cwd, argv)
        named = read_by_compiler(root, cwd, argv)
        missing = named - sent
        assert not missing, f"{' '.join(argv)}: the tree lacks {sorted(missing)[:10]}"
        self.extra += len(sent - named)

    def plan(self, cwd: Path, argv: Sequence[str]) -> set[str]:
        """Return the paths in the input tree of one command."""
        launcher = FakeLauncher(handler=self.handler, cwd=cwd)
        before = self.handler.counters().get("closure.scanned", 0)
        self.remote.requests.clear()
        answer = self.handler.begin(request := launcher.request(argv), lambda: False)
        if isinstance(answer, Run):
            self.handler.abandon(request, answer)
        counted = self.handler.counters()
        assert self.remote.requests, f"{' '.join(argv)} did not go to the farm: {counted}"
        if counted.get("closure.scanned", 0) > before:
            self.scanned += 1
        else:
            self.asked.append(tuple(argv))
        return {_below_root(item.path) for item in self.remote.requests[0].inputs}


def _below_root(path: str) -> str:
    """Return a path without the directory that makes the root's name in a guest longer."""
    is_longer = path.startswith(SAME_LENGTH_WORD.decode())
    return path.partition("/")[2] if is_longer else path


@contextmanager
def audit_closures(directory: Path) -> Iterator[ClosureAudit]:
    """Yield the audit of one client, which keeps its files in `directory`."""
    remote = FakeRemote()
    # A quota failure leaves the farm's health as it is, so the next compile is planned too.
    remote.failure = RemoteFailure("quota", "nothing is compiled here")
    settings = Settings(remote=RemoteSettings(fallback="quiet"))
    handler = open_cache(Paths.from_env({"HPCC_DIR": str(directory)}), settings, remote)
    try:
        yield ClosureAudit(handler, remote)
    finally:
        handler.close()


def read_by_compiler(root: Path, cwd: Path, argv: Sequence[str]) -> set[str]:
    """Return the files under `root` that the compiler's `-M` names, relative to `root`."""
    # With `-o` the list would go to that file, and stdout would be empty.
    outputs = {"-c", "-MD", "-MMD", "-MP", "-o"}
    pairs = zip(("", *argv), argv, strict=False)
    plain = [word for before, word in pairs if before != "-o" and word not in outputs]
    code, out, err = run_bare([*plain, "-M"], cwd=cwd, env={"LC_ALL": "C"})
    assert code == 0, err.decode(errors="replace")
    named = set(_inside(root, cwd, prerequisites(parse_depfile(out))))
    assert named, f"{' '.join(argv)}: the compiler named no file of the project"
    return named


def _inside(root: Path, cwd: Path, names: Iterable[bytes]) -> Iterable[str]:
    top, here = os.fsencode(root), os.fsencode(cwd)
    for name in names:
        path = posixpath.normpath(posixpath.join(here, name))
        if path.startswith(top + b"/"):
            yield os.fsdecode(path[len(top) + 1 :])
