"""The Windows agent from its layer, under Wine: real CPython for Windows, real jobs, a real warden.

The warden runs on the host's side. Only the socket's family is not the real one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hpcc._proto import agent_pb2 as pb
from hpcc.compilers.msvc.probe import VERSION_SOURCE, read_cl
from hpcc.core import (
    Digest,
    ExecLimits,
    ExecRequest,
    InputFile,
    OutputEvent,
    ResultEvent,
    StdioEvent,
)
from hpcc.images.survey import AnswerKind, SurveyLog
from hpcc.images.toolchains import probe_guest
from hpcc.runtime.channel.channel import GuestChannel
from hpcc_testkit.guests.guest_contract import MemoryBlobs
from hpcc_testkit.windows.agent import drive_c, install_agent, running_agent
from hpcc_testkit.windows.native_clang import PLACES, install_clang_cl
from hpcc_testkit.windows.wine import Wine, cross_build

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
# A program with the manners of a compiler, and some of a hostile one's.
_PROGRAM = r"""
#include <direct.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <windows.h>
int main(int argc, char **argv) {
    char here[300], data[65536];
    const char *verb = argc > 1 ? argv[1] : "";
    if (!strcmp(verb, "copy")) {
        FILE *from = fopen(argv[2], "rb"), *to = fopen(argv[3], "wb");
        if (!from || !to) return 2;
        size_t size;
        while ((size = fread(data, 1, sizeof data, from))) fwrite(data, 1, size, to);
        fclose(to);
        fprintf(stderr, "copied in %s\n", _getcwd(here, sizeof here));
        return 0;
    }
    if (!strcmp(verb, "env")) {
        for (char **v = _environ; *v; v++) puts(*v);
        return 7;
    }
    if (!strcmp(verb, "crash")) ExitProcess(EXCEPTION_ACCESS_VIOLATION);
    if (!strcmp(verb, "leave")) { /* files that a next compile must not see, and one that is read-only */
        FILE *left = fopen("C:\\src\\left", "w");
        fclose(left);
        SetFileAttributesA("C:\\src\\left", FILE_ATTRIBUTE_READONLY);
        fclose(fopen("C:\\out\\left", "w"));
        CreateDirectoryA("C:\\src\\d", NULL);
        fclose(fopen("C:\\src\\d\\deep", "w"));
        return 0;
    }
    if (!strcmp(verb, "look")) return GetFileAttributesA("C:\\src\\left") != INVALID_FILE_ATTRIBUTES || GetFileAttributesA("C:\\out\\left") != INVALID_FILE_ATTRIBUTES;
    if (!strcmp(verb, "sleep")) {
        STARTUPINFOA startup = {0};
        startup.cb = sizeof startup;
        PROCESS_INFORMATION process;
        sprintf(data, "\"%s\" nap", argv[0]);
        CreateProcessA(NULL, data, NULL, NULL, TRUE, 0, NULL, NULL, &startup, &process);
        puts("asleep");
        fflush(stdout);
        Sleep(600000);
    }
    if (!strcmp(verb, "nap")) Sleep(600000);
    if (!strcmp(verb, "flood")) for (;;) puts("more and more and more");
    return 3;
}
"""
_PATH = (("Path", "C:\\tools"),)


@pytest.fixture(scope="module")
def home(wine: Wine, stub: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("program") / "program.c"
    source.write_text(_PROGRAM)
    tools = drive_c(wine) / "tools"
    tools.mkdir()
    cross_build(source, tools / "compiler-of-the-test.exe")
    return install_agent(wine, stub)


@asynccontextmanager
async def guest(wine: Wine, home: Path) -> AsyncIterator[GuestChannel]:
    with running_agent(wine, home) as connection:
        channel = GuestChannel(connection.dup(), bytes(range(32)))
        try:
            async with asyncio.timeout(120):
                await channel.connect()
            yield channel
        finally:
            channel.close()
            connection.close()


def request(
    *argv: str, inputs: Sequence[tuple[str, bytes]] = (), outputs: tuple[str, ...] = (), cwd: str = "",
    directories: tuple[str, ...] = (), env: tuple[tuple[str, str], ...] = _PATH, **limits: float,
) -> ExecRequest:  # fmt: skip
    values = {"wall_seconds": 120.0, "memory_bytes": 256 << 20, "pids": 20, **limits}
    return ExecRequest(
        exec_id="t", argv=argv, env=env, cwd=cwd, outputs=outputs, output_directories=directories,
        inputs=tuple(InputFile(p, Digest.of(d)) for p, d in inputs),
        limits=ExecLimits(**values),
    )  # fmt: skip


class Runs:
    """Runs execs in one guest; the first exec carries its identity."""

    def __init__(self, channel: GuestChannel) -> None:
        self.channel = channel
        self.first_exec: pb.Guest | None = pb.Guest(
            guest_id="w-1", wall_time_ns=1, entropy=bytes(64)
        )

    async def __call__(
        self, req: ExecRequest, *blobs: bytes
    ) -> tuple[ResultEvent, bytes, bytes, dict[str, bytes]]:
        first_exec, self.first_exec = self.first_exec, None
        streams, files = {"stdout": b"", "stderr": b""}, dict[str, bytes]()
        result: ResultEvent | None = None
        async for event in self.channel.exec(req, MemoryBlobs(*blobs), first_exec):
            match event:
                case StdioEvent(stream, data):
                    streams[stream] += data
                case OutputEvent():
                    files[event.path] = files.get(event.path, b"") + event.data
                case ResultEvent():
                    result = event
        assert result is not None
        return result, streams["stdout"], streams["stderr"], files


async def test_a_guests_life(wine: Wine, home: Path) -> None:
    """One test, because a start takes seconds. No step may see what an earlier one left."""
    async with guest(wine, home) as channel:
        run = Runs(channel)
        tool = "compiler-of-the-test"
        data = bytes(range(256)) * 4096

        result, _, said, files = await run(
            request(tool, "copy", "..\\In\\a.c", "new\\a.obj", inputs=[("In/a.c", data)], cwd="d",
                    outputs=("d/new/a.obj", "d/absent")), data,
        )  # fmt: skip
        assert (result.exit_code, result.reason) == (0, "")
        assert said.split() == [b"copied", b"in", b"C:\\src\\d"]
        assert files == {"d/new/a.obj": data}

        # Nothing of the agent's own environment, what a program needs, one PDB server for each.
        result, told, _, _ = await run(
            request(tool, "env", env=(*_PATH, ("X", "1 2"), ("TMP", "C:\\")))
        )
        assert result.exit_code == 7
        first = dict(line.split("=", 1) for line in told.decode().splitlines() if line[0] != "=")
        names = {n.upper() for n in first}
        assert {"PATH", "X", "TEMP", "SYSTEMROOT", "TZ", "VSLANG", "_MSPDBSRV_ENDPOINT_"} <= names
        assert not names & {"WINEPREFIX", "HOME", "LC_ALL", "USERPROFILE"}
        assert (first["X"], first["TMP"]) == ("1 2", "C:\\out")
        _, told, _, _ = await run(request(tool, "env"))
        assert first["_MSPDBSRV_ENDPOINT_"].encode() not in told

        # A directory of outputs; and nothing that one compile left is there for the next.
        result, _, _, files = await run(request(tool, "leave", directories=("d",)))
        assert (result.exit_code, files) == (0, {"d/": b"", "d/deep": b""})
        result, _, _, _ = await run(request(tool, "look"))
        assert result.exit_code == 0
        assert not list((drive_c(wine) / ".hpcc-work").glob("report-*"))

        # The process tree ends at the deadline; the reason distinguishes that from an exit code.
        result, told, _, _ = await run(request(tool, "sleep", wall_seconds=1.5))
        assert (result.reason, told.split()) == ("deadline", [b"asleep"])
        result, _, _, _ = await run(request(tool, "flood", stdio_bytes=10_000))
        assert result.reason == "stdio-limit"
        result, _, _, _ = await run(request(tool, "crash"))
        assert (result.exit_code, result.signal, result.reason) == (139, 11, "")

        for name in ("absent", "\\\\server\\share\\x", "..\\..\\..\\tools\\absent", "C:absent"):
            result, _, _, _ = await run(request(name))
            assert (result.exit_code, result.reason) == (127, "no-such-program"), name
        for req in (
            request(tool, inputs=[("aux.c", b"")]),
            request(tool, inputs=[("A.h", b"1"), ("a.h", b"2")]),
            request(tool, outputs=("x" * 255,)),
            request(tool, env=(*_PATH, ("PATH", "x"))),
            request(tool, "x" * 33_000),
        ):
            result, _, _, _ = await run(req, b"", b"1", b"2")
            assert result.reason == "agent-error"
        assert await asyncio.to_thread(wait_until_gone, wine, tool)


async def test_a_cancelled_compile_takes_its_tree_along(wine: Wine, home: Path) -> None:
    tool = "compiler-of-the-test"
    async with guest(wine, home) as channel:
        run = Runs(channel)
        stream = channel.exec(request(tool, "sleep"), MemoryBlobs(), run.first_exec)
        async for _ in stream:
            break
        await stream.aclose()
        run.first_exec = None
        # Two at once wait for each other: both see an empty C:\src.
        async with asyncio.TaskGroup() as group:
            both = [group.create_task(run(request(tool, "look"))) for _ in range(2)]
        assert [t.result()[0].exit_code for t in both] == [0, 0]
        assert await asyncio.to_thread(wait_until_gone, wine, tool)
        # The host's going away ends a compile and the agent.
        stream = channel.exec(request(tool, "sleep"), MemoryBlobs())
        async for _ in stream:
            break
        channel.close()
        await stream.aclose()
    assert await asyncio.to_thread(wait_until_gone, wine, tool)


def wait_until_gone(wine: Wine, word: str) -> bool:
    deadline = time.monotonic() + 60
    while wine.processes(word):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


async def test_a_guest_says_which_compilers_its_image_has(wine: Wine, home: Path) -> None:
    for place in PLACES:
        clang = install_clang_cl(wine, place)
    junk = drive_c(wine) / "tools/junk"
    junk.mkdir()
    (junk / "cl.exe").write_bytes(b"MZ")
    (drive_c(wine) / "tools/clang-cl.exe.txt").touch()
    log = SurveyLog()
    async with guest(wine, home) as channel:
        await Runs(channel)(request("absent"))
        whole: Any = channel  # all but the identity
        found = await probe_guest(whole, log)
    (compiler,) = found
    said = wine.run(clang.argv()[0], "-nologo", "-EP", "v.c", cwd=source_in(drive_c(wine) / "v"))
    assert compiler == read_cl(("clang-cl",), said.stdout)
    assert (compiler.family, compiler.target) == ("clang-cl", "x64")
    answers = {a.asked.lower(): a.kind for a in log.survey.answers}
    assert answers.pop("c:\\tools\\junk\\cl.exe") is AnswerKind.ABSENT
    assert set(answers.values()) == {AnswerKind.FOUND}
    assert log.survey.is_understood


def source_in(directory: Path) -> Path:
    directory.mkdir()
    (directory / "v.c").write_bytes(VERSION_SOURCE)
    return directory
