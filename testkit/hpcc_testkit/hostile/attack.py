"""What all attacks of hostile guests share: the `Attack` record and the tables of attacks.

Decorate a function with `within(TABLE, reason)` to add it to a table under its name.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from hpcc_testkit.hostile.peer import GoneError, Peer

VIOLATION: Final = "protocol-violation"
SILENT: Final = "guest-silent"
LOST: Final = "guest-lost"
# Escape sequences that would take over a terminal.
ESCAPE: Final = "\x1b]0;owned\x07\x1b[2J\u202e"


@dataclass(frozen=True, slots=True)
class Attack:
    """`run` misbehaves on a peer; `reason` is the reason that the host's error must have."""

    run: Callable[[Peer], object]
    reason: str

    def play(self, peer: Peer) -> None:
        """Run the attack, then read until the host closes the stream."""
        with suppress(GoneError):
            self.run(peer)
            peer.drain()


type _Define = Callable[[Callable[[Peer], object]], Callable[[Peer], object]]


def within(table: dict[str, Attack], reason: str = VIOLATION) -> _Define:
    """Return a decorator that adds the function to `table` under its name."""

    def define(run: Callable[[Peer], object]) -> Callable[[Peer], object]:
        table[run.__name__.strip("_").replace("_", "-")] = Attack(run, reason)
        return run

    return define
