"""Which recorded compiles travel to a farm, with a root under version control and no marker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corpus.farming import FarmHpcc, travelled, why_not
from corpus.recording import Command
from corpus.replaying import Replayer, differences, without_clock
from corpus.tools import Tool

LEAST_TRAVELLED: Final = 0.98
_CONTROL: Final = ".git"
_MARKER: Final = ".hpcc"
_SHOWN: Final = 100
# Automake has its own names.
_DEPFILES: Final = (".d", ".Tpo", ".Po")


@dataclass
class Travel:
    """One package. `stayed` has a line per compile that stayed, `differing` per output."""

    name: str
    commands: int = 0
    travelled: int = 0
    stayed: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    trouble: str = ""


def put_under_control(root: Path) -> None:
    """Make `root` the root of a project as a checkout is: a `.git`, no `.hpcc`.

    A directory is enough: hpcc never looks into it.
    """
    for marker in root.rglob(_MARKER):
        marker.unlink()
    if not any(path.name == _CONTROL for path in root.iterdir()):
        (root / _CONTROL).mkdir()


def without_line_breaks(name: str, data: bytes) -> bytes:
    """Return a depfile in one line, another output as it is.

    A compiler breaks lines by the length of names, and those of a guest are shorter. Make does not
    see the difference.
    """
    is_depfile = name.endswith(_DEPFILES)
    return b" ".join(data.replace(b"\\\n", b" ").split()) if is_depfile else data


def measure_travel(
    replayer: Replayer, bare: Tool, farm: FarmHpcc, commands: Sequence[Command], travel: Travel
) -> None:
    """Run the commands bare and with the farm; count, and compare all outputs."""
    before = replayer.run(bare, commands)
    after = replayer.run(farm, commands)
    travel.commands = len(commands)
    for command, first, other, end in zip(
        commands, before, after, farm.ends(commands), strict=True
    ):
        travel.travelled += travelled(end)
        if why := why_not(end):
            travel.stayed.append(f"{why} ({command.source})")
        if found := differences(first, other):
            again = replayer.run(bare, [command])[0]
            left = without_clock(first, again, found)
            travel.differing += [f"{command.source}: {what}" for what in left]


def rendered_travel(travels: Sequence[Travel]) -> tuple[str, bool]:
    """Return the table for people, and whether enough compiles travel with equal outputs."""
    lines = [f"{'package':<20}{'compiles':>9}{'travel':>8}{'differing':>11}  why the rest stays"]
    for travel in travels:
        reasons = Counter(line.partition(":")[0].partition(" (")[0] for line in travel.stayed)
        words = ", ".join(f"{name} {value}" for name, value in reasons.most_common())
        lines.append(
            f"{travel.name:<20}{travel.commands:>9}{travel.travelled:>8}"
            f"{len(travel.differing):>11}  {words}".rstrip()
        )
    for travel in travels:
        lines += [f"  stays: {travel.name}: {line}" for line in travel.stayed[:_SHOWN]]
        lines += [f"  differs: {travel.name}: {line}" for line in travel.differing[:_SHOWN]]
        if travel.trouble:
            lines.append(f"  not measured: {travel.name}: {travel.trouble}")
    commands = sum(travel.commands for travel in travels)
    went = sum(travel.travelled for travel in travels)
    share = 100 * went / max(1, commands)
    lines.append(f"{went} of {commands} compiles travel ({share:.1f} %)")
    is_good = commands > 0 and went >= LEAST_TRAVELLED * commands
    return "\n".join(lines), is_good and not any(travel.differing for travel in travels)
