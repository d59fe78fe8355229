"""Each block of commands of docs/operate.md is typed by tests/e2e/test_operate_page.py, or is here."""

from __future__ import annotations

from pathlib import Path

from hpcc_testkit.operate.page import read_page

_PAGE = Path(__file__).parents[2] / "docs/operate.md"
_SYNOPSIS = "what commands there are, with placeholders"
_OUTPUT = "what a command or a service prints"
_ROTATION = "tests/integration/keys runs it beside real processes"
# Headings whose blocks no machine types, how many they have, and why. A block that a reader types
# in order to set up a farm does not belong here.
_NOT_TYPED = {
    "Day to day": (1, _SYNOPSIS),
    "Logging in to a farm": (1, _SYNOPSIS),
    "One table for all schedulers": (1, "tests/integration/operated runs it; it shows output, too"),
    "Workers": (1, _SYNOPSIS),
    "The same kernel on every worker": (1, "tests/e2e/test_bundle_machines.py runs it, and compiles"),
    "Keys that sign results": (1, _SYNOPSIS),
    "Several schedulers": (1, "the chapter of several machines types the same in full"),
    "A scheduler's certificate": (1, _ROTATION),
    "The sealing key": (2, _ROTATION),
    "What to keep, and how to get it back": (1, "a backup of a database that the reader has"),
    "Restarting and draining workers": (3, "a kernel needs a reboot; tests/e2e/test_machines.py drains"),
    "Builds of the farm": (1, _SYNOPSIS),
    "What made this object?": (1, _SYNOPSIS),
    "Health": (1, _SYNOPSIS),
    "Metrics": (1, _SYNOPSIS),
    "Machines that nobody scrapes": (1, _SYNOPSIS),
    "Connections": (2, _OUTPUT),
    "With an engine you already have": (1, "tests/integration/engine runs Bazel"),
    "Which build was it?": (1, _SYNOPSIS),
    "The audit trail": (2, "tests/integration/audit asks a database; the other has all options"),
    "Logs": (1, _OUTPUT),
    "Host and image compilers": (1, _OUTPUT),
}  # fmt: skip


def test_each_block_of_commands_is_typed_or_is_known_not_to_be() -> None:
    page = read_page(_PAGE.read_text())
    counts: dict[str, int] = {}
    for heading, _ in page.unmarked:
        counts[heading] = counts.get(heading, 0) + 1
    assert counts == {heading: count for heading, (count, _) in _NOT_TYPED.items()}


def test_the_blocks_name_each_machine_of_the_chapter() -> None:
    page = read_page(_PAGE.read_text())
    named = {machine for block in page.blocks for machine in block.machines}
    assert named == {"db1", "s1", "s2", "w1", "g1", "d1"}
    variables = {
        name
        for name in page.site
        if any(f"${name}" in b.text or f"${{{name}" in b.text for b in page.blocks)
    }
    assert variables == set(page.site), "an address that no command uses"
