"""One agent per exec, as in process isolation: the real agent under Wine, on its standard streams.

containerd is scripted and starts every process that it is asked for. Streams, warden, agent, jobs
and the compile are real.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hpcc.core import Digest, ExecLimits, ExecRequest, InputFile
from hpcc.ports import SystemClock
from hpcc.runtime.containerd.client import Containerd, unix_connector
from hpcc.runtime.containerd.exec_channel import ExecChannel, ExecPlan
from hpcc.runtime.windows.spec import WindowsPlan
from hpcc_testkit.guests.fifo_streams import fifo_streams
from hpcc_testkit.guests.guest_contract import MemoryBlobs, Outcome, run
from hpcc_testkit.windows.agent import drive_c, install_agent
from hpcc_testkit.windows.scripted_containerd import ScriptedContainerd, Task, serving
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
_PROGRAM = r"""
#include <stdio.h>
int main(int argc, char **argv) {
    if (argc < 3) return 9;
    FILE *before = fopen(argv[2], "rb"), *from = fopen(argv[1], "rb"), *to = fopen(argv[2], "wb");
    if (before || !from || !to) return 2;
    for (int c; (c = getc(from)) != EOF;) putc(c + 1, to);
    puts("made");
    return 0;
}
"""
PLAN = WindowsPlan(container_id="hpcc-1", memory_mib=1024, vcpus=1, is_hyperv=False)


def request(data: bytes) -> ExecRequest:
    return ExecRequest(
        exec_id="t", argv=("shifter.exe", "a.bin", "b.bin"), env=(("Path", "C:\\tools"),), cwd="",
        inputs=(InputFile("a.bin", Digest.of(data)),), outputs=("b.bin",),
        limits=ExecLimits(wall_seconds=120.0, memory_bytes=256 << 20, pids=20),
    )  # fmt: skip


class Shim:
    """Starts the process of each call to containerd, with the streams named in the call."""

    def __init__(self, daemon: ScriptedContainerd, wine: Wine) -> None:
        self._daemon, self._wine = daemon, wine
        self.started: list[tuple[str, ...]] = []

    async def start(self, container: str, process: str) -> None:
        said = self._daemon.tasks[container, process].request
        self.started.append((process, said.stdin.rpartition("-")[2]))
        await asyncio.to_thread(self._run, container, process, said, asyncio.get_running_loop())

    def _run(
        self, container: str, process: str, said: object, loop: asyncio.AbstractEventLoop
    ) -> None:
        ends = [
            os.open(getattr(said, name), flags)
            for name, flags in (
                ("stdin", os.O_RDONLY), ("stdout", os.O_WRONLY), ("stderr", os.O_WRONLY)
            )
        ]  # fmt: skip
        stub = drive_c(self._wine) / ".hpcc/hpcc-agent.exe"
        running = subprocess.Popen(
            ["wine", str(stub), "serve", "--stdio"], env=self._wine.env, cwd=stub.parent,
            stdin=ends[0], stdout=ends[1], stderr=ends[2],
        )  # fmt: skip
        for end in ends:
            os.close(end)

        def wait() -> None:
            status = running.wait(120)
            loop.call_soon_threadsafe(lambda: self._daemon.end(container, status, process=process))

        loop.run_in_executor(None, wait)


async def test_the_agent_on_its_standard_streams_is_a_compiles_whole_life(
    wine: Wine, stub: Path, tmp_path: Path
) -> None:
    source = tmp_path / "program.c"
    source.write_text(_PROGRAM)
    tools = drive_c(wine) / "tools"
    tools.mkdir(exist_ok=True)
    cross_build(source, tools / "shifter.exe")
    await asyncio.to_thread(install_agent, wine, stub)
    daemon = ScriptedContainerd({})
    daemon.tasks["hpcc-1", ""] = Task(None)
    shim = Shim(daemon, wine)
    daemon.on_start = shim.start
    done: list[Outcome] = []
    async with serving(daemon, tmp_path / "s"):
        client = Containerd(unix_connector(tmp_path / "s"))
        plan = ExecPlan(
            container_id="hpcc-1", agent=lambda: PLAN.agent, streams=lambda: fifo_streams(tmp_path)
        )
        channel = ExecChannel(client, plan, SystemClock())
        try:
            # The second finds nothing of the first: its program would refuse.
            for data in (b"abc", bytes(range(200)) * 1000):
                guest: Any = channel  # all but the identity
                done += [await run(guest, request(data), MemoryBlobs(data))]
        finally:
            channel.close()
            client.close()
    assert [(d.result.exit_code, d.stdout.split(), d.result.reason) for d in done] == [
        (0, [b"made"], ""), (0, [b"made"], ""),
    ]  # fmt: skip
    assert done[0].outputs == {"b.bin": b"bcd"}
    assert done[1].outputs == {"b.bin": bytes(range(1, 201)) * 1000}
    assert [process for process, _ in shim.started] == ["x0", "x1"]
    assert set(daemon.tasks) == {("hpcc-1", "")}
