"""`hpcc pack …` with the real launcher and daemons."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.cache.launcher import build_launcher, counters, launcher_environment, stop_daemon
from hpcc_testkit.cache.machines import TeamMachine, signing_key

from .conftest import PackTeam, commands

pytestmark = pytest.mark.timeout(300)


class Person:
    """Somebody with a checkout, settings and a daemon."""

    def __init__(self, machine: TeamMachine, launcher: Path, settings: str) -> None:
        self.root = machine.root
        self.env = launcher_environment(machine.directory / "hpcc")
        self.env["PATH"] = f"{launcher.parent}:{self.env['PATH']}"
        directory = Path(self.env["HPCC_DIR"]) / "config"
        directory.mkdir(parents=True)
        (directory / "hpcc.toml").write_text(f"[cache.remote]\n{settings}\n")

    def hpcc(self, *words: str, status: int = 0) -> str:
        done = subprocess.run(
            ["hpcc", *words], cwd=self.root, env=self.env, capture_output=True, text=True,
            check=False, stdin=subprocess.DEVNULL, timeout=100,
        )  # fmt: skip
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def people(
    pack_team: PackTeam, place: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Person, Person]]:
    """CI, which signs, and a colleague who trusts its key."""
    launcher = build_launcher(tmp_path_factory.mktemp("launcher"))
    file = pack_team.directory / "commands.key"
    line = signing_key(file).key.line
    where = f'url = "file://{place}"\n'
    ci = Person(
        pack_team.machine("ci"), launcher,
        f'{where}mode = "write"\nsigning_key_file = "{file}"',
    )  # fmt: skip
    ann = Person(
        pack_team.machine("ann"), launcher,
        f'{where}trusted_keys = ["{line}"]\npull_packs = false',
    )  # fmt: skip
    yield ci, ann
    for person in (ci, ann):
        stop_daemon(person.env)


def test_a_pack_is_pushed_listed_pulled_used_and_cleaned(people: tuple[Person, Person]) -> None:
    ci, ann = people
    builds = commands()
    assert "no daemon is running" in ci.hpcc("pack", "push", status=1)
    assert "none of the last 1 commits has a pack" in ann.hpcc("pack", "list", status=1)
    # A busy machine starts a daemon more slowly than a launcher waits for it.
    ci.hpcc("start")
    ci.hpcc(*builds[0])
    ci.hpcc(*builds[1])
    said = ci.hpcc("pack", "push")
    assert "2 results" in said
    assert "1 of 1 parts sent" in said
    assert "0 of 1 parts sent" in ci.hpcc("pack", "push")
    assert "1 of 1 parts sent" in ci.hpcc("pack", "push", "--all")
    assert "40 or 64 digits" in ci.hpcc("pack", "push", "--commit", "HEAD", status=2)
    head = ann.hpcc("pack", "list").split()[0]
    assert f"HEAD       {head}" in ann.hpcc("pack", "status")
    assert "(this commit): 2 results" in ann.hpcc("pack", "pull")
    assert f"pack       {head[:12]} (HEAD): 2 results" in ann.hpcc("pack", "status")
    ann.hpcc("start")
    ann.hpcc(*builds[0])
    assert counters(ann.env)["remote-cache.pack-found"] == 1
    assert "in a pack that was pulled" in ann.hpcc("stats")
    assert 'mode = "write"' in ann.hpcc("pack", "push", status=2)
    ann.hpcc("clean")
    assert "results" not in ann.hpcc("pack", "status")
    assert "none of these commits" in ann.hpcc("pack", "pull", "--commit", "0" * 40, status=1)
    # Without a clone's own word the commit must be given.
    (ci.root / ".git/HEAD").write_text("nothing\n")
    assert "give --commit" in ci.hpcc("pack", "push", status=2)
    assert "2 results" in ci.hpcc("pack", "push", "--commit", head)
