"""Types the blocks of a page on machines, in the page's order.

Each block is one shell that has the block of addresses before it and starts in the directory where
the last block of the same machine and user ended. A command that fails ends the block, and so the
test: a block that ended well has run all its commands.
"""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from hpcc_testkit.farm.booted import BootedMachine
from hpcc_testkit.operate.page import Block, Page

PERSON: Final = "ann"
_BLOCK_SECONDS: Final = 900.0
_SHELL: Final = """
set -eu -o pipefail
cd "$(cat ~/.typed-in 2>/dev/null || echo ~)"
trap 'pwd > ~/.typed-in' EXIT
"""

# Behind each block. A block that does not run to its end prints at most the text with its quotes.
# Debian's ~/.bash_logout fails without a console, and would be the status of a shell with -e.
_END: Final = """
status=$?
echo "typed to "its end
set +e
exit $status
"""
_ENDED: Final = "typed to its end"

# Sees each line that a block prints, while it prints it.
Watcher = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Typed:
    """A block that ended well on one machine."""

    block: Block
    machine: str
    seconds: float
    processor_seconds: float
    said: str


@dataclass(slots=True)
class Typist:
    """Has the machines of a page by the names that the page gives them.

    `site` has the values of the block of addresses. Each name must be one of the page's, and each
    of the page's must be there: the test cannot leave an address out, nor add one. `spent` returns
    the processors' seconds so far, which depend less than a clock on what else the host does.
    """

    page: Page
    machines: Mapping[str, BootedMachine]
    site: Mapping[str, str]
    watcher: Watcher = lambda _: None
    spent: Callable[[], float] = lambda: 0.0
    typed: list[Typed] = field(default_factory=list)

    def __post_init__(self) -> None:
        assert set(self.site) == set(self.page.site), "the site's names are not the page's"

    def type_all(self, until: Callable[[Block], bool] = lambda _: False) -> None:
        """Type the blocks that were not typed yet, up to and with the first that `until` takes."""
        done = {id(typed.block) for typed in self.typed}
        for block in self.page.blocks:
            if id(block) not in done:
                for name in block.machines:
                    self.typed.append(self._type(block, name))
                if until(block):
                    return

    def untyped(self) -> list[Block]:
        """Return the blocks of the page that were not typed on each of their machines."""
        done = {(id(typed.block), typed.machine) for typed in self.typed}
        return [b for b in self.page.blocks if any((id(b), m) not in done for m in b.machines)]

    def report(self, since: str = "") -> str:
        """Return a line for each block, with its seconds and the processors', and their sums.

        With the heading of a chapter, also the sums from its first block on.
        """
        lines = [
            f"{_seconds([t])}  {t.machine:4} line {t.block.line}: {t.block.heading}"
            for t in self.typed
        ]
        lines.append(f"{_seconds(self.typed)}  in all")
        if since:
            headings = [t.block.heading for t in self.typed]
            later = self.typed[headings.index(since) :]
            lines.append(f"{_seconds(later)}  since {since!r}")
        return "\n".join(lines)

    def _type(self, block: Block, name: str) -> Typed:
        machine = self.machines[name]
        addresses = "".join(f"{k}={shlex.quote(v)}\n" for k, v in self.site.items())
        # A document of the shell whose end is not found takes all that follows without an error.
        script = f"{_SHELL}{addresses}{block.text}{_END}"
        started, spent = time.monotonic(), self.spent()
        said: list[str] = []
        user = "root" if block.is_roots else PERSON
        with machine.spawn("runuser", "-l", "-s", "/bin/bash", user, "-c", script) as process:
            timer = threading.Timer(_BLOCK_SECONDS, process.kill)
            timer.start()
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said.append(line)
                    self.watcher(line)
                status = process.wait()
            finally:
                timer.cancel()
        text = "".join(said)
        where = f"docs/operate.md line {block.line}, {block.heading!r}, on {name}"
        assert status == 0, f"{where}: exit {status}\n{text[-6000:]}"
        assert _ENDED in text, f"{where}: its last command did not run\n{text[-6000:]}"
        for promised in block.promised:
            assert promised in text, f"{where}: no {promised!r} in\n{text[-6000:]}"
        return Typed(block, name, time.monotonic() - started, self.spent() - spent, text)


def _seconds(typed: Sequence[Typed]) -> str:
    seconds = sum(t.seconds for t in typed)
    processors = sum(t.processor_seconds for t in typed)
    return f"{seconds:7.1f} s {processors:7.1f} s of processors"
