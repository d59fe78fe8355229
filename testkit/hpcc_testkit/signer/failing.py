"""A signer that fails at a step. The file `fail-at` beside its directory has the step and how.

`kill N`: the process kills itself at step N. `full N M`: the disk is full at steps N to M. Steps
are each request before it is answered, each write and sync of a state, and each answer before it
is sent. The file is removed at the start, so the next process does not fail.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from hpcc.audit.signer import main as signer_main
from hpcc.audit.signer.messages import MessageKind
from hpcc.audit.signer.served import Served
from hpcc.audit.signer.slots import StateSlots

PROGRAM = Path(__file__)


@dataclass
class Failing:
    """Counts the steps, and fails at the chosen one."""

    how: str = ""
    first: int = 0
    last: int = 0
    count: int = 0

    def step(self, name: str) -> None:
        """Pass a step."""
        self.count += 1
        if self.first <= self.count <= self.last and self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        is_disk = name.startswith("signer-")
        if self.first <= self.count <= self.last and self.how == "full" and is_disk:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_at(directory: Path, how: str, first: int, last: int = 0) -> None:
    """Let the next signer of a directory fail."""
    (directory.parent / "fail-at").write_text(f"{how} {first} {last or first}")


def main() -> None:
    """Run the signer's program with steps."""
    failing, file = Failing(), Path(sys.argv[3]).parent / "fail-at"
    if file.exists():
        how, first, last = file.read_text().split()
        failing = Failing(how, int(first), int(last))
        file.unlink()
    answer = Served.answer

    class FailingSlots(StateSlots):
        def __init__(self, directory: Path) -> None:
            super().__init__(directory, failing.step)

    def failing_answer(self: Served, kind: MessageKind, content: bytes) -> bytes:
        failing.step("request")
        said = answer(self, kind, content)
        failing.step("answer")
        return said

    setattr(signer_main, "StateSlots", FailingSlots)  # noqa: B010 - as a test would patch it
    Served.answer = failing_answer  # type: ignore[method-assign]  # as a test would patch it
    signer_main.main(sys.argv[1:])


if __name__ == "__main__":
    main()
