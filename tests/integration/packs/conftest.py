"""A team whose checkouts are clones with commits, and a place for packs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from hpcc.cache.git.ancestors import ancestors_of
from hpcc.cache.packs import transfer
from hpcc.cache.packs.opening import PackPlace, local_packs
from hpcc.cache.packs.transfer import Transfer
from hpcc.config.remote_cache import RemoteCacheSettings
from hpcc.config.settings import CacheSettings, Settings
from hpcc.core import InfrastructureError
from hpcc.identity.cache_keys import SigningKey
from hpcc_testkit.cache.machines import TeamMachine, signing_key, writer
from hpcc_testkit.services.object_server import ObjectServer, object_server

UNITS: Final = 4
_PATIENCE_SECONDS: Final = 60.0
_GIT_ENV: Final = {
    **{k: v for k, v in os.environ.items() if not k.startswith("GIT_")},
    **{
        f"GIT_{who}_{what}": "team@example.com"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    },
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


def sources(change: str = "") -> dict[str, str]:
    """Return the files of a project with `UNITS` sources; `change` is in one of them."""
    text = '#include "all.h"\nint unit%d(void) { return LIMIT + %d; }\n'
    files = {f"src/unit{n}.c": text % (n, n) for n in range(UNITS)}
    files["src/unit0.c"] += f"/* {change} */ int changed{len(change)};\n"
    return {**files, "src/all.h": "#include <stdio.h>\n#define LIMIT 7\n", ".gitignore": "*.o\n"}


def commands(flags: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Return the compiles of a build."""
    return [
        ("gcc", "-g", "-O1", *flags, "-Isrc", "-c", f"src/unit{n}.c", "-o", f"unit{n}.o")
        for n in range(UNITS)
    ]


def git(directory: Path, *args: str) -> str:
    """Run git in a checkout that this test made."""
    done = subprocess.run(
        ["git", "-C", str(directory), *args], env=_GIT_ENV, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


@dataclass(slots=True)
class PackTeam:
    """Machines whose checkouts are at the commits of one history."""

    directory: Path
    fields: dict[str, Any]
    key: SigningKey
    key_file: Path
    machines: list[TeamMachine] = field(default_factory=list)

    def machine(self, name: str, **remote: Any) -> TeamMachine:
        """Return a reader that trusts CI's key, at the first commit; packs come on demand only."""
        fields = {
            "trusted_keys": (self.key.key.line,),
            "pull_packs": False,
            **self.fields,
            **remote,
        }
        made = TeamMachine(self.directory / name, fields, checkout=f"{name}-checkout")
        made.clone(sources())
        git(made.root, "init", "-q", "-b", "main")
        self.machines.append(made)
        self.commit(made, "")
        return made

    def ci(self, name: str = "ci", **remote: Any) -> TeamMachine:
        """Return a machine that signs with CI's key."""
        return self.machine(name, **writer(self.key_file, **remote))

    def commit(self, machine: TeamMachine, change: str) -> str:
        """Make the same commit as on every other machine; return its id."""
        for name, text in sources(change).items():
            path = machine.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        machine.age()
        git(machine.root, "add", ".")
        day = {"GIT_AUTHOR_DATE": "1700000000 +0000", "GIT_COMMITTER_DATE": "1700000000 +0000"}
        subprocess.run(
            ["git", "-C", str(machine.root), "commit", "-q", "-m", f"change {change}"],
            env={**_GIT_ENV, **day},
            check=True,
        )
        return self.head(machine)

    def head(self, machine: TeamMachine) -> str:
        return git(machine.root, "rev-parse", "HEAD")

    def build(self, machine: TeamMachine, flags: tuple[str, ...] = ()) -> list[str]:
        """Compile everything; return how each compile was answered."""
        answers = [machine.compile(*command).answer for command in commands(flags)]
        machine.flush()
        return answers

    def push(
        self, machine: TeamMachine, commit: str = "", *, mode: str = "missing"
    ) -> dict[str, Any]:
        """Push as `hpcc pack push`; return the daemon's report."""
        commit = commit or self.head(machine)
        machine.cache.command(["push", str(machine.root), commit, mode])
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (state := machine.cache.command(["push-state"]))["is_running"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if "error" in state:
            raise InfrastructureError(str(state["error"]))
        return state

    def pull(self, machine: TeamMachine, commit: str = "") -> Transfer:
        """Pull as `hpcc pack pull`."""
        remote = RemoteCacheSettings(**{"timeout_seconds": _PATIENCE_SECONDS, **machine.remote})
        settings = Settings(cache=CacheSettings(remote=remote))
        root = os.fsencode(machine.root)
        place = PackPlace(machine.paths, settings, root, frozenset())
        commits = ancestors_of(root, b"/", commit or self.head(machine))
        return asyncio.run(
            place.pull(local_packs(machine.paths, settings), commits, lambda _need: None)
        )

    def close(self) -> None:
        for machine in self.machines:
            machine.restart()


@contextmanager
def held(server: ObjectServer, method: str, part: str, count: int = 1) -> Iterator[None]:
    """Hold requests whose path has a part; when the block ends, wait until so many are held.

    They are held until the next use, or until `server.holds` is set.
    """
    server.requests.clear()
    server.holds = lambda used, path: used == method and part in path
    yield
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while sum(server.holds(*request) for request in server.requests) < count:
        assert time.monotonic() < deadline, server.requests
        time.sleep(0.01)


def push_at_once(team: PackTeam, server: ObjectServer, jobs: Sequence[TeamMachine]) -> None:
    """Let jobs push at the same moment: each looks again after all indexes were uploaded."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        try:
            with held(server, "PUT", "/packs/", len(jobs)):
                pushes = [pool.submit(team.push, job) for job in jobs]
            with held(server, "GET", "/packs/", len(jobs)):
                pass
        finally:
            server.holds = nothing
        for push in pushes:
            push.result()


def nothing(_method: str, _path: str) -> bool:
    """Hold no request."""
    return False


@pytest.fixture
def server() -> Iterator[ObjectServer]:
    with object_server() as running:
        yield running


@pytest.fixture
def http_team(make_pack_team: Callable[..., PackTeam], server: ObjectServer) -> PackTeam:
    """A team with an HTTP server."""
    return make_pack_team(url=server.url)


@pytest.fixture
def make_pack_team(tmp_path: Path) -> Iterator[Callable[..., PackTeam]]:
    """Return a function that makes a team; keywords are fields of `[cache.remote]`."""
    made: list[PackTeam] = []

    def make(**fields: Any) -> PackTeam:
        directory = tmp_path / f"team{len(made)}"
        key_file = directory / "ci.key"
        team = PackTeam(directory, fields, signing_key(key_file), key_file)
        made.append(team)
        return team

    yield make
    for team in made:
        team.close()


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pusher look at once whether its index is still there."""
    monkeypatch.setattr(transfer, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    made = tmp_path / "shared"
    made.mkdir()
    return made


@pytest.fixture
def pack_team(make_pack_team: Callable[..., PackTeam], place: Path) -> PackTeam:
    """A team with a shared directory."""
    return make_pack_team(url=f"file://{place}")
