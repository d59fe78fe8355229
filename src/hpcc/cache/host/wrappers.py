"""Recognises drivers that are wrappers: they execute programs that are not the compiler's own.

Problem: a wrapper may read any variable and any file before it executes the compiler that answers
in its place (mpicc, afl-gcc, Buildroot's and many a company's). None of this is in the key, and on
a farm the image's compiler would compile without the wrapper's flags.

Rule: a trace of a compile of nothing shows each program that is executed (`exec_trace`). The driver
may execute itself, and the programs that it names when it is asked for them: the compiler proper,
the assembler and their like. A process may execute one of these once. Anything else is a wrapper,
be it the driver, the assembler or the compiler proper.

What a program of the system's directories executes in its turn is not looked at. It is a part of
the installation there, for example a program in front of cc1 that counts how often it runs. Only
root can put it there.

Where no trace is possible, and where the kernel runs the driver in an emulator, programs must be
ELF files, and the driver must hold the name of a variable that only a driver reads.

What must never happen: a wrapper's result becomes a hit. A wrapper therefore runs as it is.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from hpcc.cache.host.exec_trace import Execution, FileId, executions
from hpcc.compilers.spec.drivers import DRIVER_MARKS

_ELF: Final = b"\x7fELF"
_LINE_BYTES: Final = 256
# The places of compilers that a distribution installs.
_OF_THE_SYSTEM: Final = (b"/usr/bin/", b"/usr/lib/", b"/usr/libexec/", b"/lib/", b"/bin/")


def executes_others(
    compiler: bytes,
    programs: Collection[bytes],
    questions: Sequence[Sequence[bytes]],
    *,
    env: Mapping[bytes, bytes],
    cwd: bytes,
) -> bool:
    """Tell whether a driver executes more than itself and `programs`.

    `questions` are the arguments of compiles that together execute all of them.

    Raises:
        OSError: one of the files cannot be read.
    """
    own = {_identify(compiler): False}
    for path in programs:
        is_of_system = os.path.realpath(path).startswith(_OF_THE_SYSTEM)
        own.setdefault(_identify(path), is_of_system)
        if is_of_system and (interpreter := _interpreter(path)):
            own.setdefault(_identify(interpreter), True)
    with tempfile.TemporaryDirectory(prefix="hpcc-probe-") as directory:
        output = os.path.join(os.fsencode(directory), b"probe.o")
        for question in questions:
            argv = [compiler, *question, b"-c", b"/dev/null", b"-o", output]
            seen = executions(argv, env=env, cwd=cwd)
            found = None if seen is None else _judge(seen, _identify(compiler), own)
            if found is None:
                return not _looks_like_a_driver(compiler, programs)
            if found:
                return True
    return False


def _judge(seen: Sequence[Execution], driver: FileId, own: Mapping[FileId, bool]) -> bool | None:
    """Tell whether a trace is a wrapper's; None if it began with another file than the driver.

    `own`: the driver and its programs, and whether what they execute is not looked at.
    """
    if seen[0].program != driver:
        return None  # an emulator's, or the driver was replaced a moment ago
    pids: set[int] = set()
    inner: set[int] = set()
    for execution in seen:
        if execution.pid in inner or execution.parent in inner:
            inner.add(execution.pid)
            continue
        if execution.pid in pids or execution.program not in own:
            return True
        pids.add(execution.pid)
        if own[execution.program]:
            inner.add(execution.pid)
    return False


def _looks_like_a_driver(compiler: bytes, programs: Collection[bytes]) -> bool:
    return all(map(_is_elf, programs)) and _has_mark(compiler)


def _interpreter(path: bytes) -> bytes:
    """Return the program that runs a script; b"" if the file is not a script."""
    with open(path, "rb") as file:
        line = file.read(_LINE_BYTES).partition(b"\n")[0]
    words = line[2:].split()
    is_there = line.startswith(b"#!") and words and os.path.exists(words[0])
    return words[0] if is_there else b""


def _is_elf(path: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_ELF)) == _ELF


def _has_mark(path: bytes) -> bool:
    if not _is_elf(path):  # an empty file cannot be mapped either
        return False
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return any(text.find(mark) >= 0 for mark in DRIVER_MARKS)


def _identify(path: bytes) -> FileId:
    status = os.stat(path)
    return status.st_dev, status.st_ino
