"""`python writer.py DIRECTORY STEP ROWS`: writes a trail, and kills itself at a step.

Steps are each request to the signer before it is sent, each answer before it is used, and each
write and sync of the trail. It prints the number of each row once that is durable.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from hpcc.audit.signer.messages import MessageKind
from hpcc.audit.signer.process import SignerProcess, _Line
from hpcc.ports import SystemClock
from hpcc_testkit.farm.audit_rows import SMALL, opened, row

PROGRAM = Path(__file__)


async def write(directory: Path, step: int, rows: int) -> None:
    """Write rows; two of each three in one group."""
    count = 0

    def pass_step(name: str = "") -> None:
        nonlocal count
        del name
        count += 1
        if count == step:
            os.kill(os.getpid(), signal.SIGKILL)

    ask = _Line.ask

    def asked(self: _Line, request: bytes) -> tuple[MessageKind, bytes]:
        pass_step()
        said = ask(self, request)
        pass_step()
        return said

    _Line.ask = asked  # type: ignore[method-assign]  # as a test would patch it
    signer = SignerProcess(directory / "keys" / "audit-signing.key", "w1")
    async with opened(
        directory / "trail", key=signer, clock=SystemClock(), limits=SMALL, fault=pass_step
    ) as log:
        for number in range(0, rows, 3):
            await log.append(row(number))
            print(number, flush=True)
            await asyncio.gather(log.append(row(number + 1)), log.append(row(number + 2)))
            print(number + 1, number + 2, flush=True)
            log.signed_anchor()
            await log.seal()
    print("done", count, flush=True)


if __name__ == "__main__":
    asyncio.run(write(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
