"""Named pipes over a fake library: the calls that are made, and how their answers are used."""

# ruff: noqa: N802 - the names of the library that is replaced
from __future__ import annotations

import ctypes
import struct
import threading
from typing import Any

import pytest

from hpcc.runtime.windows.pipes import WindowsAcceptor, load_pipe_calls

NAME = "\\\\.\\pipe\\hpcc-0-in"


class Library:
    """A fake kernel32 and advapi32 with one pipe; the test is its other end."""

    def __init__(self) -> None:
        self.made: list[tuple[Any, ...]] = []
        self.freed: list[int] = []
        self.closed: list[int] = []
        self.sddl = ""
        self.error = 0
        self.fails: set[str] = set()
        self.came = threading.Event()
        self.called_off = threading.Event()
        self.incoming: list[bytes] = []
        self.written = b""

    def last_error(self) -> int:
        return self.error

    def ConvertStringSecurityDescriptorToSecurityDescriptorW(
        self, sddl: str, revision: int, out: Any, size: None
    ) -> int:
        self.sddl = sddl
        out._obj.value = 77
        return int("convert" not in self.fails and revision == 1 and size is None)

    def LocalFree(self, memory: int) -> None:
        self.freed.append(memory)

    def CreateNamedPipeW(self, *arguments: Any) -> int | None:
        self.made.append((*arguments[:-1], struct.unpack("<I4xQi4x", arguments[-1].raw)))
        return ctypes.c_void_p(-1).value if "create" in self.fails else 5

    def ConnectNamedPipe(self, pipe: int, overlapped: None) -> int:
        while not self.came.wait(0.005):
            if self.called_off.is_set():
                self.error = 995
                return 0
        self.error = 535
        return int("raced" not in self.fails)

    def ReadFile(self, pipe: int, buffer: Any, size: int, moved: Any, overlapped: None) -> int:
        if not self.incoming:
            self.error = 5 if "read" in self.fails else 109
            return 0
        data = self.incoming.pop(0)
        buffer.raw = data + bytes(size - len(data))
        moved._obj.value = len(data)
        return 1

    def WriteFile(self, pipe: int, data: bytes, size: int, moved: Any, overlapped: None) -> int:
        self.error = 232
        moved._obj.value = min(size, 3)
        self.written += data[:3]
        return int("write" not in self.fails)

    def CancelIoEx(self, pipe: int, overlapped: None) -> int:
        self.called_off.set()
        return 1

    def CloseHandle(self, pipe: int) -> int:
        self.closed.append(pipe)
        return 1


def test_a_pipe_is_the_first_of_its_name_for_administrators_on_this_machine_alone() -> None:
    library = Library()
    WindowsAcceptor(library, NAME)
    ((name, mode, kind, most, *_, (size, descriptor, is_inherited)),) = library.made
    assert name == NAME
    assert mode & 0x0008_0000
    assert kind == 8
    assert most == 1
    assert (size, descriptor, is_inherited) == (24, 77, 0)
    assert library.sddl == "D:P(A;;FA;;;SY)(A;;FA;;;BA)"
    assert library.freed == [77]


@pytest.mark.parametrize("step", ["convert", "create"])
def test_a_name_that_is_taken_is_an_error(step: str) -> None:
    library = Library()
    library.fails = {step}
    with pytest.raises(OSError, match="Windows error"):
        WindowsAcceptor(library, NAME)


@pytest.mark.parametrize("race", [set(), {"raced"}])
def test_bytes_go_both_ways_until_the_other_end_closes(race: set[str]) -> None:
    library = Library()
    library.fails = race
    acceptor = WindowsAcceptor(library, NAME)
    library.came.set()
    end = acceptor.accept()
    assert end is not None
    acceptor.close()  # accepted: the handle is the end's
    assert not library.called_off.is_set()
    library.incoming = [b"one", b"two"]
    assert [end.receive(8, None) for _ in range(3)] == [b"one", b"two", b""]
    end.send(b"in pieces", 1)
    assert library.written == b"in pieces"
    library.fails = {"write", "read"}
    with pytest.raises(OSError, match="232"):
        end.send(b"x", 1)
    with pytest.raises(OSError, match="5"):
        end.receive(8, None)
    end.cancel()
    assert end.receive(8, None) == b""
    end.close()
    end.close()
    assert library.closed == [5]


def test_a_door_that_is_closed_lets_go_whoever_waits_there() -> None:
    library = Library()
    acceptor = WindowsAcceptor(library, NAME)
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(acceptor.accept()))
    thread.start()
    acceptor.close()
    thread.join(10)
    assert found == [None]
    assert library.closed == [5]
    acceptor.close()


def test_elsewhere_there_are_no_named_pipes() -> None:
    with pytest.raises(Exception, match="not Windows"):
        load_pipe_calls()
