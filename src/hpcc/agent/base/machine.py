"""What an operating system does for the agent's service: the seam between Linux and Windows."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

from hpcc.agent.base.blobs import BlobCache
from hpcc.agent.base.ending import Ending, OnStdio, Output
from hpcc.agent.base.intake import FirstExecHeader
from hpcc.core import ExecRequest


class Workplace(Protocol):
    """The place of one compile. The service calls these methods in their order, each once."""

    async def stage(self, blobs: BlobCache) -> None:
        """Make the source tree of the request.

        Raises:
            OSError: it does not fit, or this system cannot represent such a tree.
            IntegrityError: a cached blob is damaged.
        """

    async def run(self, on_stdio: OnStdio) -> Ending:
        """Run the program to its end, deadline or cancel. On return none of its processes lives.

        Raises:
            OSError: a process could not be ended. The guest must be given up.
        """

    def outputs(self) -> list[Output]:
        """List the declared outputs that exist, in the order in which they are sent.

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
            OSError: it exists already, or cannot be made.
        """

    def take_first_exec(self, first_exec: FirstExecHeader) -> None:
        """Adopt the identity from the first Exec: clock and entropy, if they are the guest's."""

    def workplace(
        self, request: ExecRequest, number: int
    ) -> AbstractAsyncContextManager[Workplace]:
        """Return the place of exec `number`, with its limits.

        It is removed after the block, and at the latest before the next exec has a place.

        Raises:
            OSError: it cannot be made, or the remains of an exec cannot be removed. The guest must
                be given up then.
        """

    def say_memory(self, execs: int) -> None:
        """Log the peak memory of this process."""
