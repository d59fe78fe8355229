"""A team of machines with a shared place, and the key of its CI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from hpcc.identity.cache_keys import SigningKey
from hpcc_testkit.cache.machines import TeamMachine, signing_key, writer

FILES: Final = {
    "src/main.c": """\
#include <assert.h>
#include <stdio.h>
#include "util.h"
const char *file(void) { return __FILE__; }
int main(int argc, char **argv)
{
    int unused;
    assert(argc == CONF);
    return printf("%s %d\\n", argv[0], CONF);
}
""",
    "src/util.h": "#define CONF 7\n",
    "src/other.c": '#include "util.h"\nint other(void) { return CONF; }\n',
}
MAIN: Final = ("gcc", "-Wall", "-g", "-Isrc", "-MMD", "-c", "src/main.c", "-o", "main.o")
OTHER: Final = ("gcc", "-Wall", "-g", "-Isrc", "-c", "src/other.c", "-o", "other.o")


@dataclass(slots=True)
class Team:
    """Machines that share one place. `fields` are those of `[cache.remote]` for every machine."""

    directory: Path
    fields: dict[str, Any]
    key: SigningKey
    key_file: Path
    machines: list[TeamMachine] = field(default_factory=list)

    def machine(self, name: str, *, marker: str = "", **remote: Any) -> TeamMachine:
        """Return a reader that trusts CI's key; `remote` changes settings."""
        fields = {"trusted_keys": (self.key.key.line,), **self.fields, **remote}
        made = TeamMachine(self.directory / name, fields, checkout=f"{name}-checkout")
        made.clone(FILES, marker)
        self.machines.append(made)
        return made

    def ci(self, name: str = "ci", **remote: Any) -> TeamMachine:
        """Return a machine that signs with CI's key."""
        return self.machine(name, **writer(self.key_file, **remote))

    def close(self) -> None:
        for machine in self.machines:
            machine.restart()


@pytest.fixture
def make_team(tmp_path: Path) -> Iterator[Callable[..., Team]]:
    """Return a function that makes a team; keywords are fields of `[cache.remote]`."""
    made: list[Team] = []

    def make(**fields: Any) -> Team:
        directory = tmp_path / f"team{len(made)}"
        key_file = directory / "ci.key"
        team = Team(directory, fields, signing_key(key_file), key_file)
        made.append(team)
        return team

    yield make
    for team in made:
        team.close()


@pytest.fixture
def team(make_team: Callable[..., Team], tmp_path: Path) -> Team:
    """A team with a shared directory."""
    place = tmp_path / "shared"
    place.mkdir()
    return make_team(url=f"file://{place}")
