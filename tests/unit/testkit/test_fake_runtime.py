"""The fake runtime keeps the port's promises, so worker tests that use it are meaningful."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from hpcc.core import (
    Digest,
    ExecEvent,
    ExecLimits,
    ExecRequest,
    ImageDigest,
    InputFile,
    NotFoundError,
    OutputEvent,
    ResultEvent,
    StdioEvent,
)
from hpcc.ports import Guest, GuestBootError, GuestLostError, GuestSpec, Runtime
from hpcc_testkit.guests.fake_runtime import FakeFaults, FakeRuntime, rooted

SPEC = GuestSpec(image=ImageDigest("sha256:" + "0" * 64), image_path=Path("/nowhere"))


class Blobs:
    def __init__(self, *data: bytes) -> None:
        self.data = {Digest.of(d): d for d in data}
        self.reads = 0

    async def read(self, digest: Digest) -> bytes:
        self.reads += 1
        if digest not in self.data:
            raise NotFoundError("absent")
        return self.data[digest]


def request(
    *argv: str, inputs: tuple[InputFile, ...] = (), outputs: tuple[str, ...] = (), wall: float = 30
) -> ExecRequest:
    return ExecRequest(
        exec_id="e", argv=argv, env=(("PATH", "/usr/bin:/bin"),), cwd="", inputs=inputs,
        outputs=outputs, limits=ExecLimits(wall_seconds=wall),
    )  # fmt: skip


async def run(guest: Guest, req: ExecRequest, blobs: Blobs) -> list[ExecEvent]:
    return [e async for e in guest.exec(req, blobs)]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/src", "/here"),
        ("/src/a.c", "/here/a.c"),
        ("-I/src/inc", "-I/here/inc"),
        ("-ffile-prefix-map=/src=.", "-ffile-prefix-map=/here=."),
        ("-Wp,-MD,/src/a.d", "-Wp,-MD,/here/a.d"),
        ("cp '/src/a.c' /src/b.c", "cp '/here/a.c' /here/b.c"),
        ("/inc:/src/inc", "/inc:/here/inc"),
        ("/Fo/src/a.obj", "/Fo/here/a.obj"),
        ("/src/src/a.c", "/here/src/a.c"),
        # A project may have such directories, too.
        ("-I../deps/lua/src", "-I../deps/lua/src"),
        ("-I../src", "-I../src"),
        ("./src/a.c", "./src/a.c"),
        ("-I/usr/src/linux", "-I/usr/src/linux"),
        ("/source/a.c", "/source/a.c"),
    ],
)
def test_only_the_root_itself_is_replaced_in_a_command(text: str, shown: str) -> None:
    assert rooted(text, Path("/here")) == shown


async def test_inputs_stdio_result_and_outputs_pass_through(tmp_path: Path) -> None:
    fake = FakeRuntime(tmp_path)
    runtime: Runtime = fake
    blobs = Blobs(b"hello\n")
    file = InputFile("dir/a.txt", Digest.of(b"hello\n"))
    req = request(
        "sh",
        "-c",
        "cat /src/dir/a.txt; cp dir/a.txt o/b; echo $PWD >&2",
        inputs=(file,),
        outputs=("o/b", "o/absent"),
    )
    async with runtime.guest(SPEC) as guest:
        first = await run(guest, req, blobs)
        again = await run(guest, req, blobs)
    assert [e for e in again if not isinstance(e, ResultEvent)] == [
        e for e in first if not isinstance(e, ResultEvent)
    ]
    assert StdioEvent("stdout", b"hello\n") in first
    assert StdioEvent("stderr", b"/src\n") in first
    assert [e.exit_code for e in first if isinstance(e, ResultEvent)] == [0]
    assert [e for e in first if isinstance(e, OutputEvent)] == [
        OutputEvent("o/b", b"hello\n", False, True)
    ]
    assert blobs.reads == 1
    assert not os.listdir(tmp_path)


async def test_faults_are_the_errors_of_the_port(tmp_path: Path) -> None:
    runtime = FakeRuntime(tmp_path, FakeFaults(die_in_execs=frozenset({1})))
    async with runtime.guest(SPEC) as guest:
        await run(guest, request("true"), Blobs())
        with pytest.raises(GuestLostError):
            await run(guest, request("sleep", "60"), Blobs())
        assert guest.is_lost
        assert await guest.lost
        with pytest.raises(GuestLostError):
            await run(guest, request("true"), Blobs())
    runtime.faults.boot_error = "no"
    with pytest.raises(GuestBootError):
        async with runtime.guest(SPEC):
            pass
    assert runtime.running == []


async def test_deadline_missing_program_and_missing_input(tmp_path: Path) -> None:
    async with FakeRuntime(tmp_path).guest(SPEC) as guest:
        late = await run(guest, request("sleep", "60", wall=0.2), Blobs())
        assert [e.reason for e in late if isinstance(e, ResultEvent)] == ["deadline"]
        absent = await run(guest, request("no-such-compiler"), Blobs())
        assert [(e.exit_code, e.reason) for e in absent if isinstance(e, ResultEvent)] == [
            (127, "no-such-program")
        ]
        with pytest.raises(NotFoundError):
            await run(guest, request("true", inputs=(InputFile("a", Digest.of(b"x")),)), Blobs())
        await run(guest, request("true"), Blobs())


async def test_a_cancel_kills_the_process(tmp_path: Path) -> None:
    async with FakeRuntime(tmp_path).guest(SPEC) as guest:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await run(guest, request("sleep", "60"), Blobs())
        assert guest._processes == set()
