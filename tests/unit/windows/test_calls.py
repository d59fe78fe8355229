"""hpcc's Windows calls up to the system: flags, structures, command lines, specifications."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpcc.core import CallerError, InfrastructureError
from hpcc.rpc.base.process import watch_in_thread
from hpcc.supervisor.windows_service import (
    WorkerService,
    install_worker,
    uninstall_worker,
    worker_spec,
)
from hpcc.windows.command_line import command_line
from hpcc.windows.library import CallResult, WindowsError, _System, load_library
from hpcc.windows.pipes import PipeListener

SID = "S-1-5-21-1-2-3-1001"
ACCESS_DENIED, PIPE_BUSY = 5, 231


class Recorded:
    """A `Library` that records each call; `answers` are per function, and the last one repeats."""

    def __init__(self) -> None:
        self.answers: dict[str, list[CallResult]] = defaultdict(lambda: [CallResult(1, 0)])
        self.calls: list[tuple[str, tuple[int, ...]]] = []
        self.memory: dict[int, bytes] = {}
        self.owner = SID

    def call(self, function: str, *arguments: int) -> CallResult:
        self.calls.append((function, arguments))
        if function == "GetSecurityInfo":
            return CallResult(0, 0)
        if function == "lstrlenW":
            return CallResult(len(self.owner), 0)
        found = self.answers[function]
        return found.pop(0) if len(found) > 1 else found[0]

    def allocate(self, data: bytes) -> int:
        address = 0x1000 + 0x1000 * len(self.memory)
        self.memory[address] = data
        return address

    def load(self, address: int, size: int) -> bytes:
        if size == 2 * len(self.owner):  # what ConvertSidToStringSidW gave
            return self.owner.encode("utf-16-le")
        return self.memory.get(address, bytes(size))[:size]

    def free(self, address: int) -> None:
        return

    def made(self) -> list[tuple[int, ...]]:
        return [arguments for name, arguments in self.calls if name == "CreateNamedPipeW"]


def test_a_pipe_is_the_first_of_its_name_overlapped_and_closed_to_the_network() -> None:
    library = Recorded()
    PipeListener.open(library, "\\\\.\\pipe\\x", "D:", SID)
    ((name, open_mode, mode, instances, _, _, wait, security),) = library.made()
    assert library.memory[name].decode("utf-16-le") == "\\\\.\\pipe\\x\0"
    assert open_mode == 0x40080003  # FILE_FLAG_OVERLAPPED, FIRST_PIPE_INSTANCE, ACCESS_DUPLEX
    assert (mode, instances, wait) == (8, 255, 0)  # PIPE_REJECT_REMOTE_CLIENTS, bytes
    size, _, inherited = struct.unpack("<I4xQi4x", library.memory[security])
    assert (size, inherited) == (24, 0)


@pytest.mark.parametrize("error", [ACCESS_DENIED, PIPE_BUSY])
def test_a_name_that_is_there_is_joined_if_it_is_ours(error: int) -> None:
    library = Recorded()
    library.answers["CreateNamedPipeW"] = [CallResult((1 << 64) - 1, error), CallResult(7, 0)]
    PipeListener.open(library, "p", "D:", SID)
    assert [made[1] for made in library.made()] == [0x40080003, 0x40000003]
    library = Recorded()
    library.owner = "S-1-5-21-9-9-9-9999"
    library.answers["CreateNamedPipeW"] = [CallResult((1 << 64) - 1, error), CallResult(7, 0)]
    with pytest.raises(CallerError) as caught:
        PipeListener.open(library, "p", "D:", SID)
    assert caught.value.reason == "pipe-taken"
    assert ("CloseHandle", (7,)) in library.calls


def test_a_name_that_does_not_let_us_in_is_taken() -> None:
    library = Recorded()
    library.answers["CreateNamedPipeW"] = [CallResult((1 << 64) - 1, ACCESS_DENIED)]
    with pytest.raises(CallerError) as caught:
        PipeListener.open(library, "p", "D:", SID)
    assert caught.value.reason == "pipe-taken"
    library.answers["CreateNamedPipeW"] = [CallResult((1 << 64) - 1, 87)]
    with pytest.raises(WindowsError):
        PipeListener.open(library, "p", "D:", SID)


def test_calls_go_through_ctypes_with_whole_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The C library of this machine stands in for kernel32."""
    library = _System(lambda *_, **__: ctypes.CDLL(None), lambda: 42)
    at = library.allocate(b"four\0rest")
    assert library.call("strlen", at) == CallResult(4, 42)
    assert library.load(at, 9) == b"four\0rest"
    library.free(at)
    assert library.call("labs", -7 & (1 << 64) - 1).value == 7
    with pytest.raises(InfrastructureError) as caught:
        load_library()
    assert caught.value.reason == "not-windows"


# ---- command lines: the reader is the rule of "Parsing C command-line arguments", written anew ----


def read_back(line: str) -> list[str]:
    words: list[str] = []
    at = 0
    while at < len(line):
        if line[at] == " ":
            at += 1
            continue
        word, is_quoted = "", False
        while at < len(line) and (is_quoted or line[at] != " "):
            slashes = 0
            while at < len(line) and line[at] == "\\":
                slashes, at = slashes + 1, at + 1
            if at < len(line) and line[at] == '"':
                word += "\\" * (slashes // 2)
                if slashes % 2:
                    word += '"'
                else:
                    is_quoted = not is_quoted
                at += 1
            else:
                word += "\\" * slashes
                if at < len(line) and (is_quoted or line[at] != " "):
                    word, at = word + line[at], at + 1
        words.append(word)
    return words


@given(st.lists(st.text(st.sampled_from('ab \\"é'), max_size=6), max_size=4))
def test_arguments_are_read_back_as_they_were(words: list[str]) -> None:
    argv = ["C:\\Program Files\\x.exe", *words]
    line = command_line(argv)
    assert line.startswith('"C:\\Program Files\\x.exe"')
    assert read_back(line) == argv


@pytest.mark.parametrize(
    "argv",
    [["x.exe"], ['C:\\"x.exe'], ["\\\\srv\\x.exe"], ["C:\\x", "a\nb"], ["C:\\x", "y" * 33_000]],
)
def test_what_cannot_be_a_command_line_is_refused(argv: list[str]) -> None:
    with pytest.raises(CallerError):
        command_line(argv)


# ---- the worker as a service ----


async def test_a_service_leaves_at_the_end_of_its_input() -> None:
    """On Windows the loop cannot wait for a pipe."""
    loop = asyncio.get_running_loop()
    reader, writer = os.pipe()
    asked = asyncio.Event()
    thread = watch_in_thread(loop, reader, asked.set)
    os.write(writer, b"nothing")
    assert not asked.is_set()
    os.close(writer)
    async with asyncio.timeout(10):
        await asked.wait()
    thread.join(10)
    os.close(reader)


def worker(**changes: Any) -> WorkerService:
    values: dict[str, Any] = {
        "host": "C:\\Program Files\\hpcc\\hpcc-service.exe",
        "python": "C:\\Program Files\\hpcc\\python.exe",
        "config": "D:\\w\\worker.json",
        "data": "C:\\ProgramData",
    }
    return WorkerService(**{**values, **changes})


def test_the_services_program_is_in_quotes_and_its_log_where_only_the_system_writes() -> None:
    spec = worker_spec(worker(stop_seconds=30))
    assert spec.command_line == (
        '"C:\\Program Files\\hpcc\\hpcc-service.exe" run'
        " --log C:\\ProgramData\\hpcc\\logs\\worker.log --stop-seconds 30 --"
        ' "C:\\Program Files\\hpcc\\python.exe" -I -m hpcc.cli worker --config D:\\w\\worker.json'
    )
    assert (spec.account, spec.restart_seconds) == ("", (60, 300, 900))


@pytest.mark.parametrize(
    "changes",
    [{"config": "worker.json"}, {"config": "\\\\srv\\w.json"}, {"host": ""}, {"data": ""},
     {"stop_seconds": 0}, {"stop_seconds": 3601}],
)  # fmt: skip
def test_a_service_that_could_not_run_is_not_made(changes: dict[str, object]) -> None:
    with pytest.raises(CallerError):
        worker_spec(worker(**changes))


def test_without_an_administrator_nothing_is_done() -> None:
    library = Recorded()  # whose token says that it is not elevated
    for attempt in (lambda: install_worker(library, worker()), lambda: uninstall_worker(library)):
        with pytest.raises(CallerError) as caught:
            attempt()
        assert caught.value.reason == "not-elevated"
    assert not {"CreateServiceW", "OpenSCManagerW", "CreateDirectoryW"} & {
        n for n, _ in library.calls
    }
