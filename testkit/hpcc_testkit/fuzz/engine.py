"""Finds inputs that take a parser along branches which no input before has taken.

The problem: random bytes rarely come past a parser's first check. So each input that takes a new
branch is kept, and further inputs are made from those. `sys.monitoring` reports a branch of any
Python code, and is silent about those that it has reported: a run costs little more than the
parser.

A defect is what the target raises, an input that needs more than `SLOW_SECONDS` of CPU time, or one
that needs more memory than the process may have (`limit_memory`).
"""

from __future__ import annotations

import gc
import random
import resource
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType
from typing import Final

MAX_BYTES: Final = 32 << 10
SLOW_SECONDS: Final = 2.0
_MEMORY_BYTES: Final = 2 << 30
_MOST_CHANGES: Final = 6
_TOOL: Final = 4  # a number of sys.monitoring that no debugger, profiler or coverage tool has
_BOTH: Final = 2
# Files of the fuzzer, whose branches say nothing about an input.
_OWN: Final = ("/fuzz/engine.py", "/fuzz/farm_bytes.py", "/fuzz/local_bytes.py", "/random.py")
# What parsers of text and of numbers are often wrong about.
_WORDS: Final = (
    b"\0", b"\xff" * 4, b"\xff" * 8, b"\x80", b"\r\n", b"/", b"../", b"%s", b'"', b"\\", b"{}",
    b"[" * 12_000, b'{"a":' * 3000, b"null", b"NaN", b"Infinity", b"1e999", b"-1", b"0" * 40,
    b"18446744073709551616", b"9" * 1500, b"\xed\xa0\x80", b'"\\ud800"', b"\xe2\x80\xae", b"1.5",
)  # fmt: skip

Run = Callable[[bytes], object]


class DefectError(Exception):
    """An input on which the parser does what it must not."""

    def __init__(self, data: bytes, why: str) -> None:
        super().__init__(why)
        self.data = data


@dataclass(slots=True)
class Found:
    """What a run of the fuzzer found."""

    executions: int = 0
    cpu_seconds: float = 0.0
    kept: list[bytes] = field(default_factory=list)


def limit_memory() -> None:
    """Let this process have 2 GiB of addresses, so that an input which needs more is a defect."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, resource.RLIM_INFINITY))


class Branches:
    """Tells whether code of this thread has just taken a branch for the first time.

    What was there before is not collected meanwhile: its finalizers belong to other code.
    """

    def __init__(self) -> None:
        self._seen: dict[tuple[CodeType, int], set[int]] = {}
        self._is_new = False
        self._thread = threading.get_ident()

    def __enter__(self) -> Branches:
        events = sys.monitoring.events
        sys.monitoring.use_tool_id(_TOOL, "hpcc-fuzz")
        sys.monitoring.register_callback(_TOOL, events.BRANCH, self._branch)
        sys.monitoring.register_callback(_TOOL, events.PY_START, self._start)
        sys.monitoring.restart_events()
        gc.collect()
        gc.freeze()
        sys.monitoring.set_events(_TOOL, events.BRANCH | events.PY_START)
        return self

    def __exit__(self, *_: object) -> None:
        sys.monitoring.set_events(_TOOL, 0)
        sys.monitoring.free_tool_id(_TOOL)
        gc.unfreeze()

    def take(self) -> bool:
        """Return whether there was a new branch since the last call."""
        is_new, self._is_new = self._is_new, False
        return is_new

    def _start(self, code: CodeType, _: int) -> object:
        if threading.get_ident() != self._thread:
            return None
        self._is_new |= not code.co_filename.endswith(_OWN)
        return sys.monitoring.DISABLE

    def _branch(self, code: CodeType, at: int, to: int) -> object:
        if code.co_filename.endswith(_OWN):
            return sys.monitoring.DISABLE
        if threading.get_ident() != self._thread:
            return None
        seen = self._seen.setdefault((code, at), set())
        if to not in seen:
            seen.add(to)
            self._is_new = True
        return sys.monitoring.DISABLE if len(seen) >= _BOTH else None


class Fuzzer:
    """Makes inputs from a corpus, and keeps those that take a new branch."""

    def __init__(self, run: Run, corpus: Sequence[bytes], seed: int) -> None:
        self._run, self._inputs = run, list(corpus) or [b""]
        self._random = random.Random(seed)  # noqa: S311 - finds inputs, guards nothing

    def fuzz(self, cpu_seconds: float, executions: int = sys.maxsize) -> Found:
        """Try inputs until this process has used the time, or for so many executions.

        Raises:
            DefectError: an input is one.
        """
        found, begun = Found(), time.process_time()
        with Branches() as branches:
            for data in tuple(self._inputs):
                self._one(data)
            branches.take()
            while found.executions < executions:
                data = self._made()
                self._one(data)
                found.executions += 1
                found.cpu_seconds = time.process_time() - begun
                if branches.take():
                    self._inputs.append(data)
                    found.kept.append(data)
                if found.cpu_seconds >= cpu_seconds:
                    break
        return found

    def _one(self, data: bytes) -> None:
        begun = time.process_time()
        try:
            self._run(data)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise DefectError(data, f"{type(error).__name__}: {error}") from error
        if (took := time.process_time() - begun) > SLOW_SECONDS:
            raise DefectError(data, f"needs {took:.1f} s")

    def _made(self) -> bytes:
        data = bytearray(self._random.choice(self._inputs))
        for _ in range(self._random.randint(1, _MOST_CHANGES)):
            self._change(data)
        return bytes(data[:MAX_BYTES])

    def _change(self, data: bytearray) -> None:
        draw = self._random
        at = draw.randint(0, len(data))
        end = min(len(data), at + draw.choice((1, 1, 2, 4, 16, 64)))
        match draw.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at:end] = draw.randbytes(end - at or 1)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end]
            case 4:
                data[at:end] = draw.choice(_WORDS)
            case 5:
                data[at:at] = draw.choice(_WORDS)
            case _:
                other = draw.choice(self._inputs)
                start = draw.randint(0, len(other))
                data[at:end] = other[start : start + draw.choice((4, 16, 64, 256))]
