"""Contract tests for every guest, whatever isolates it.

A backend's test class inherits GuestContract and provides two fixtures: `guest`, and `program`, the
path of `hpcc_testkit.guests.guest_program` in the guest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from hpcc.core import (
    CallerError,
    Digest,
    ExecEvent,
    ExecLimits,
    ExecRequest,
    InputFile,
    NotFoundError,
    OutputEvent,
    ResultEvent,
    StdioEvent,
)
from hpcc.ports import BlobSource, Guest

_WALL_SECONDS = 120.0


class MemoryBlobs:
    """A `BlobSource` in memory that records the requests."""

    def __init__(self, *contents: bytes) -> None:
        self._contents = {Digest.of(c): c for c in contents}
        self.reads: list[Digest] = []

    async def read(self, digest: Digest) -> bytes:
        self.reads.append(digest)
        if digest not in self._contents:
            raise NotFoundError(f"no blob {digest}")
        return self._contents[digest]


@dataclass(frozen=True, slots=True)
class Outcome:
    """One exec's events by kind."""

    stdout: bytes
    stderr: bytes
    result: ResultEvent
    outputs: dict[str, bytes]


def request(
    *argv: str,
    inputs: Sequence[tuple[str, bytes]] = (),
    outputs: tuple[str, ...] = (),
    cwd: str = "",
    output_directories: tuple[str, ...] = (),
    input_directories: tuple[str, ...] = (),
    env: tuple[tuple[str, str], ...] = (("PATH", "/usr/bin:/bin"),),
    limits: ExecLimits | None = None,
) -> ExecRequest:
    """Make a request with limits that fit a small guest."""
    return ExecRequest(
        exec_id="contract",
        argv=argv,
        env=env,
        cwd=cwd,
        inputs=tuple(InputFile(path, Digest.of(data)) for path, data in inputs),
        outputs=outputs,
        output_directories=output_directories,
        input_directories=input_directories,
        limits=limits or ExecLimits(wall_seconds=_WALL_SECONDS, memory_bytes=128 << 20),
    )


async def run(guest: Guest, req: ExecRequest, blobs: BlobSource | None = None) -> Outcome:
    """Run an exec to its end and assert the order of its events."""
    events: list[ExecEvent] = [e async for e in guest.exec(req, blobs or MemoryBlobs())]
    results = [i for i, e in enumerate(events) if isinstance(e, ResultEvent)]
    assert len(results) == 1
    assert all(isinstance(e, StdioEvent) for e in events[: results[0]])
    assert all(isinstance(e, OutputEvent) for e in events[results[0] + 1 :])
    result = events[results[0]]
    assert isinstance(result, ResultEvent)
    outputs: dict[str, bytes] = {}
    for event in events:
        if isinstance(event, OutputEvent):
            outputs[event.path] = outputs.get(event.path, b"") + event.data
    stdio = {"stdout": b"", "stderr": b""}
    for event in events:
        if isinstance(event, StdioEvent):
            stdio[event.stream] += event.data
    return Outcome(stdio["stdout"], stdio["stderr"], result, outputs)


class GuestContract:
    """Inherit it in a test module; every method is a test.

    The mark `transport` is on tests whose result depends on the VMM: its channel, its devices,
    its clock. The other tests exercise the agent inside, which is the same in every guest.
    """

    @pytest.mark.transport
    async def test_stdout_and_stderr_come_back_apart(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "say", "out", "err"))
        assert (done.stdout, done.stderr) == (b"out\n", b"err\n")
        assert (done.result.exit_code, done.result.signal, done.result.reason) == (0, 0, "")

    @pytest.mark.transport
    async def test_an_exit_code_is_a_result(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "exit", "7"))
        assert (done.result.exit_code, done.result.reason) == (7, "")

    async def test_a_signal_is_a_result(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "raise", "11"))
        assert (done.result.exit_code, done.result.signal) == (139, 11)

    @pytest.mark.transport
    async def test_inputs_are_staged_and_outputs_collected(
        self, guest: Guest, program: str
    ) -> None:
        big = bytes(range(256)) * 4096  # more than a chunk, on both ways
        req = request(
            program, "copy", "../in/deep/a.bin", "b.bin",
            inputs=[("in/deep/a.bin", big), ("in/empty", b"")],
            outputs=("w/b.bin", "w/absent", "in/empty"), cwd="w",
        )  # fmt: skip
        done = await run(guest, req, MemoryBlobs(big, b""))
        assert done.outputs == {"w/b.bin": big, "in/empty": b""}

    @pytest.mark.transport
    async def test_output_directories_come_back_with_all_below_them(
        self, guest: Guest, program: str
    ) -> None:
        req = request(
            program, "copy", "in", "d/x/b", inputs=[("in", b"b"), ("d/x/deep/a", b"a")],
            outputs=("f",), output_directories=("d", "empty", "f"),
        )  # fmt: skip
        done = await run(guest, req, MemoryBlobs(b"a", b"b"))
        assert done.outputs == {
            "d/": b"", "d/x/": b"", "d/x/b": b"b", "d/x/deep/": b"", "d/x/deep/a": b"a",
            "empty/": b"",
        }  # fmt: skip

    @pytest.mark.transport
    async def test_directories_that_hold_nothing_are_there(
        self, guest: Guest, program: str
    ) -> None:
        req = request(
            program, "exit", "0", inputs=[("d/in", b"a")], outputs=("d",),
            output_directories=("d",), input_directories=("d/empty", "d/x/deep"),
        )  # fmt: skip
        for _ in range(2):
            done = await run(guest, req, MemoryBlobs(b"a"))
            assert done.outputs == {
                "d/": b"", "d/in": b"a", "d/empty/": b"", "d/x/": b"", "d/x/deep/": b""
            }  # fmt: skip

    @pytest.mark.transport
    async def test_a_blob_crosses_once(self, guest: Guest, program: str) -> None:
        data = b"crosses once"
        req = request(program, "copy", "a", "b", inputs=[("a", data), ("c", data)], outputs=("b",))
        blobs = MemoryBlobs(data)
        first = await run(guest, req, blobs)
        second = await run(guest, req, blobs)
        assert blobs.reads == [Digest.of(data)]
        assert first.outputs == second.outputs == {"b": data}

    @pytest.mark.transport
    async def test_a_missing_blob_leaves_the_guest_usable(self, guest: Guest, program: str) -> None:
        with pytest.raises(NotFoundError):
            await run(guest, request(program, "exit", "0", inputs=[("a", b"never uploaded")]))
        assert (await run(guest, request(program, "exit", "0"))).result.exit_code == 0

    async def test_an_output_that_was_not_made_is_absent_and_one_not_declared_stays(
        self, guest: Guest, program: str
    ) -> None:
        req = request(
            program, "write", "undeclared", "1", inputs=[("in", b"x")], outputs=("o", "d/p")
        )
        done = await run(guest, req, MemoryBlobs(b"x"))
        assert (done.result.exit_code, done.outputs) == (0, {})

    async def test_the_environment_is_the_requests_and_nothing_else(
        self, guest: Guest, program: str
    ) -> None:
        """Locale, time zone and search path come from the action, not from host or guest."""
        env = (("LC_ALL", "C"), ("PATH", "/usr/bin:/bin"), ("SOURCE_DATE_EPOCH", "1"))
        done = await run(guest, request(program, "env", env=env))
        assert sorted(done.stdout.decode().split()) == [f"{name}={value}" for name, value in env]
        assert (await run(guest, request(program, "env", env=()))).stdout == b""

    async def test_a_link_is_no_output(self, guest: Guest, program: str) -> None:
        req = request(program, "link", "/etc/hostname", "o", outputs=("o",))
        done = await run(guest, req)
        assert (done.result.exit_code, done.outputs) == (0, {})

    async def test_a_fifo_is_no_output(self, guest: Guest, program: str) -> None:
        done = await run(guest, request(program, "fifo", "o", outputs=("o",)))
        assert (done.result.exit_code, done.outputs) == (0, {})

    async def test_an_absent_program_is_a_result(self, guest: Guest) -> None:
        done = await run(guest, request("no-such-compiler"))
        assert (done.result.exit_code, done.result.reason) == (127, "no-such-program")

    async def test_the_deadline_ends_it(self, guest: Guest, program: str) -> None:
        limits = ExecLimits(wall_seconds=1.0, memory_bytes=64 << 20)
        done = await run(guest, request(program, "sleep", "600", limits=limits))
        assert done.result.reason == "deadline"
        assert done.result.exit_code != 0

    @pytest.mark.transport
    async def test_too_much_stdio_ends_it(self, guest: Guest, program: str) -> None:
        limits = ExecLimits(wall_seconds=60.0, memory_bytes=64 << 20, stdio_bytes=100_000)
        done = await run(guest, request(program, "spam", "1000000", limits=limits))
        assert done.result.reason == "stdio-limit"

    async def test_a_bad_request_is_refused_on_this_side(self, guest: Guest, program: str) -> None:
        with pytest.raises(CallerError):
            await run(guest, request(program, "exit", "0", outputs=("../escape",)))

    @pytest.mark.transport
    async def test_closing_the_events_ends_the_compile(self, guest: Guest, program: str) -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.5):
                await run(guest, request(program, "sleep", "600"))
        assert (await run(guest, request(program, "exit", "0"))).result.exit_code == 0

    @pytest.mark.transport
    async def test_execs_at_once_do_not_mix(self, guest: Guest, program: str) -> None:
        async def one(word: str) -> Outcome:
            data = word.encode()
            req = request(program, "copy", "in", "out", inputs=[("in", data)], outputs=("out",))
            return await run(guest, req, MemoryBlobs(data))

        words = [f"word-{i}" for i in range(4)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(w)) for w in words]
        assert [t.result().outputs["out"] for t in tasks] == [w.encode() for w in words]

    @pytest.mark.transport
    async def test_the_same_input_gives_the_same_events(self, guest: Guest, program: str) -> None:
        req = request(program, "copy", "a", "b", inputs=[("a", b"stable")], outputs=("b",), env=())
        first, second = [await run(guest, req, MemoryBlobs(b"stable")) for _ in range(2)]
        assert (first.stdout, first.stderr, first.outputs) == (
            second.stdout, second.stderr, second.outputs,
        )  # fmt: skip
