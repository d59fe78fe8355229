"""Recognises drivers that are wrappers: they execute programs that are not the compiler's own.

Problem: a wrapper may read any variable and any file before it executes the compiler that answers
in its place (mpicc, afl-gcc, Buildroot's and many a company's). None of this is in the key, and on
a farm the image's compiler would compile without the wrapper's flags.

Rule: a trace of a compile of nothing shows each program that is executed (`exec_trace`). The driver
may execute itself, and the programs that it names when it is asked for them: the compiler proper,
the assembler and their like. A process may execute one of these once. Anything else is a wrapper,
be it the driver, the assembler or the compiler proper.

Where no trace is possible, and where the kernel runs the driver in an emulator, programs must be
ELF files, and the driver must hold the name of a variable that only a driver reads.

What must never happen: a wrapper's result becomes a hit. A wrapper therefore runs as it is.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence, Set
from typing import Final

from hpcc.cache.host.exec_trace import Execution, FileId, executions
from hpcc.compilers.spec.drivers import DRIVER_MARKS

_ELF: Final = b"\x7fELF"


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
    own = {_identify(path) for path in (compiler, *programs)}
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


def _judge(seen: Sequence[Execution], driver: FileId, own: Set[FileId]) -> bool | None:
    """Tell whether a trace is a wrapper's; None if it began with another file than the driver."""
    if seen[0].program != driver:
        return None  # an emulator's, or the driver was replaced a moment ago
    pids = [execution.pid for execution in seen]
    return len(set(pids)) < len(pids) or not own >= {e.program for e in seen}


def _looks_like_a_driver(compiler: bytes, programs: Collection[bytes]) -> bool:
    return all(map(_is_elf, programs)) and _has_mark(compiler)


def _is_elf(path: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(_ELF)) == _ELF


def _has_mark(path: bytes) -> bool:
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        return text[: len(_ELF)] == _ELF and any(text.find(mark) >= 0 for mark in DRIVER_MARKS)


def _identify(path: bytes) -> FileId:
    status = os.stat(path)
    return status.st_dev, status.st_ino
