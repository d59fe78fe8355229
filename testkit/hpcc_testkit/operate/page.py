"""The commands of a page, by the machine and the user that type them.

A block of commands is a fence ```sh whose first line is a comment such as `# on s1 and s2, as
root`. The block `# on each machine: …` assigns the site's addresses, and is the only one that a
test replaces. What a comment behind a command quotes, the block has to print::

    systemctl status hpcc-worker     # "places: ", or what it waits for

`read_page` reads a page. Blocks of commands without such a line are in `unmarked`, so that a test
can hold that nobody adds one unseen.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_FENCE: Final = re.compile(r"^( *)(?:```|~~~)(.*)$")
_MARK: Final = re.compile(r"^# on ([a-z0-9]+(?:(?:, | and )[a-z0-9]+)*), as (root|yourself)$")
_SITE: Final = re.compile(r"^# on each machine: ")
_QUOTED: Final = re.compile(r'"([^"]+)"')
_ASSIGNED: Final = re.compile(r"(?:^|\s{2,})([A-Z][A-Z0-9_]*)=(\S+)", re.MULTILINE)
_FILE: Final = re.compile(r"^cat > (\S+) <<END\n(.*?)^END$", re.MULTILINE | re.DOTALL)
_COMMANDS: Final = frozenset({"", "sh", "console"})
# What else a page shows. Any other fence could be commands that are not counted.
_KINDS: Final = _COMMANDS | {"json", "toml"}


@dataclass(frozen=True, slots=True)
class Block:
    """One block of commands. `line` is its first line in the page, from 1."""

    heading: str
    line: int
    machines: tuple[str, ...]
    is_roots: bool
    text: str

    @property
    def promised(self) -> tuple[str, ...]:
        """Return what comments behind commands quote."""
        comments = (line.partition("  # ")[2] for line in self.text.splitlines())
        return tuple(text for comment in comments for text in _QUOTED.findall(comment))

    @property
    def files(self) -> dict[str, str]:
        """Return the files that the block writes, by the names that it gives them."""
        return dict(_FILE.findall(self.text))


@dataclass(frozen=True, slots=True)
class Page:
    """A page's commands in their order; `site` are the values of the block of addresses."""

    site: dict[str, str]
    blocks: tuple[Block, ...]
    unmarked: tuple[tuple[str, str], ...]
    """Heading and first line of each block of commands that names no machine."""


class PageError(Exception):
    """A page whose commands cannot be read; the text names the line."""


def read_page(text: str) -> Page:
    """Read a page of Markdown.

    Raises:
        PageError: a fence does not end or is of another kind, or there is not exactly one block of
            addresses.
    """
    blocks: list[Block] = []
    unmarked: list[tuple[str, str]] = []
    sites: list[dict[str, str]] = []
    heading, lines = "", text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith("#"):
            heading = line.lstrip("#").strip()
        if not (fence := _FENCE.match(line)):
            continue
        if fence[1] or line.startswith("~") or fence[2] not in _KINDS:
            raise PageError(f"line {number}: a fence of another kind, whose commands nobody types")
        end = next((n for n in range(number, len(lines)) if lines[n] == "```"), None)
        if end is None:
            raise PageError(f"line {number}: this fence does not end")
        body, first = lines[number:end], number + 1
        number = end + 1
        if fence[2] not in _COMMANDS or not body:
            continue
        if _SITE.match(body[0]):
            sites.append(dict(_ASSIGNED.findall("\n".join(body[1:]))))
        elif mark := _MARK.match(body[0]):
            machines = tuple(re.split(r", | and ", mark[1]))
            commands = "\n".join(body[1:]) + "\n"
            blocks.append(Block(heading, first, machines, mark[2] == "root", commands))
        else:
            unmarked.append((heading, body[0]))
    if len(sites) != 1:
        raise PageError(f"{len(sites)} blocks of addresses, not one")
    return Page(sites[0], tuple(blocks), tuple(unmarked))
