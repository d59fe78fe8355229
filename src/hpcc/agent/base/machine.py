"""What a system does for the agent's service: the seam between Linux and Windows."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Ending, OnStdio, Output
from hpcc.agent.base.intake import FirstExecHeader
from hpcc.core import ExecRequest


class Workplace(Protocol):
    """Where one compile runs; the service calls these in their order, each once."""

    async def stage(self, blobs: BlobCache) -> None:
        """Make the source tree of the request.

        Raises:
            OSError: it does not fit, or this system cannot have such a tree.
            IntegrityError: a cached blob is damaged.
        """

    async def run(self, on_stdio: OnStdio) -> Ending:
        """Run the program to its end, deadline or cancel; nothing of it lives then.

        Raises:
            OSError: something of it does. The guest is to be given up.
        """

    def outputs(self) -> list[Output]:
        """List what was made of what was declared, in the order in which it is sent.

        Raises:
            OSError, OutputTreeError: an output directory cannot be sent as it is.
        """

    def open_listed(self, output: Output) -> int:
        """Open a file that was listed without being opened; the caller closes it.

        Raises:
            OSError: it cannot be read.
        """


class Machine(Protocol):
    """The system that the agent runs on."""

    directory: str
    blob_budget_bytes: int

    def prepare(self) -> None:
        """Make `directory`, which no program of an exec can reach.

        Raises:
            OSError: it is there already, or cannot be made.
        """

    def take_first_exec(self, first_exec: FirstExecHeader) -> None:
        """Become the guest that the first Exec names: clock and entropy, where they are ours."""

    def workplace(
        self, request: ExecRequest, number: int
    ) -> AbstractAsyncContextManager[Workplace]:
        """Return the place of the agent's exec `number`, with its limits; gone with the block.

        Raises:
            OSError: it cannot be made, or what ran in it cannot be cleared away. The guest is to
                be given up then.
        """

    def say_memory(self, execs: int) -> None:
        """Tell the log what this process took at most."""
