"""Assembles the seccomp filter of a warden: the system calls that it may make. No I/O.

Classic BPF over `struct seccomp_data` (linux/seccomp.h): a check of the architecture, then one test
per call. A call that is not listed ends the process.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

KILL_PROCESS: Final = 0x80000000
ALLOW: Final = 0x7FFF0000

# linux/bpf_common.h: word loads from the data, jumps on a constant, and the verdict.
LOAD: Final = 0x20
JUMP_EQUAL: Final = 0x15
JUMP_GREATER_EQUAL: Final = 0x35
JUMP_ANY_BIT: Final = 0x45
RETURN: Final = 0x06

_NUMBER_AT: Final = 0
_ARCHITECTURE_AT: Final = 4
_ARGUMENTS_AT: Final = 16
_ARGUMENT_BYTES: Final = 8
_INSTRUCTION: Final = struct.Struct("=HBBI")
_WORD: Final = 0xFFFFFFFF

# asm-generic/mman-common.h, asm-generic/ioctls.h
_PROT_READ_OR_WRITE: Final = 0x3
_MAP_ANONYMOUS: Final = 0x20
_FIONBIO: Final = 0x5421


@dataclass(frozen=True, slots=True)
class Instruction:
    """One `struct sock_filter`; jumps are counted from the next instruction."""

    code: int
    operand: int
    if_true: int = 0
    if_false: int = 0

    def pack(self) -> bytes:
        return _INSTRUCTION.pack(self.code, self.if_true, self.if_false, self.operand)


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentCheck:
    """A condition on the low word of an argument; exactly one of the three is given."""

    argument: int
    equals: int | None = None
    has_any_of: int | None = None
    has_none_of: int | None = None

    def instructions(self) -> list[Instruction]:
        """Assemble: falls through if the condition holds, else ends the process."""
        load = Instruction(LOAD, _ARGUMENTS_AT + self.argument * _ARGUMENT_BYTES)
        kill = Instruction(RETURN, KILL_PROCESS)
        if self.equals is not None:
            return [load, Instruction(JUMP_EQUAL, self.equals, if_true=1), kill]
        if self.has_any_of is not None:
            return [load, Instruction(JUMP_ANY_BIT, self.has_any_of, if_true=1), kill]
        assert self.has_none_of is not None
        return [load, Instruction(JUMP_ANY_BIT, self.has_none_of, if_false=1), kill]


@dataclass(frozen=True, slots=True)
class Architecture:
    """Call numbers of one machine; another ABI's numbers (x32) begin at `first_foreign`."""

    audit: int
    numbers: Mapping[str, int]
    first_foreign: int | None = None


# Calls without conditions, the frequent ones first. None takes a path, makes a descriptor or a
# process, or names another process. No descriptor can be received either: there is no recvmsg.
PLAIN: Final = (
    "read", "write", "epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "writev", "futex",
    "munmap", "mremap", "brk", "madvise", "clock_gettime",
    "gettimeofday", "getrandom", "getpid", "gettid", "close", "shutdown", "getsockname",
    "getpeername", "getsockopt", "rt_sigprocmask", "rt_sigreturn", "restart_syscall", "exit",
    "exit_group",
)  # fmt: skip
# Sending and receiving use no flags: out-of-band data has been a way into kernels. Memory must be
# anonymous and never executable. The one ioctl makes a socket non-blocking.
CHECKED: Final[Mapping[str, tuple[ArgumentCheck, ...]]] = {
    "recvfrom": (ArgumentCheck(argument=3, equals=0),),
    "sendto": (ArgumentCheck(argument=3, equals=0),),
    "sendmsg": (ArgumentCheck(argument=2, equals=0),),
    "mmap": (
        ArgumentCheck(argument=2, has_none_of=_WORD & ~_PROT_READ_OR_WRITE),
        ArgumentCheck(argument=3, has_any_of=_MAP_ANONYMOUS),
    ),
    "mprotect": (ArgumentCheck(argument=2, has_none_of=_WORD & ~_PROT_READ_OR_WRITE),),
    "ioctl": (ArgumentCheck(argument=1, equals=_FIONBIO),),
}

# asm/unistd_64.h and asm-generic/unistd.h; a call that a machine lacks is absent.
ARCHITECTURES: Final = {
    "x86_64": Architecture(
        audit=0xC000003E,
        first_foreign=0x40000000,
        numbers={
            "read": 0, "write": 1, "close": 3, "mmap": 9, "mprotect": 10, "munmap": 11, "brk": 12,
            "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "writev": 20, "mremap": 25,
            "madvise": 28, "getpid": 39, "sendto": 44, "recvfrom": 45, "sendmsg": 46,
            "shutdown": 48, "getsockname": 51, "getpeername": 52, "getsockopt": 55, "exit": 60,
            "gettimeofday": 96, "gettid": 186, "futex": 202, "restart_syscall": 219,
            "clock_gettime": 228, "exit_group": 231, "epoll_wait": 232, "epoll_ctl": 233,
            "epoll_pwait": 281, "getrandom": 318, "epoll_pwait2": 441,
        },
    ),
    "aarch64": Architecture(
        audit=0xC00000B7,
        numbers={
            "epoll_ctl": 21, "epoll_pwait": 22, "ioctl": 29, "close": 57, "read": 63, "write": 64,
            "writev": 66, "exit": 93, "exit_group": 94, "futex": 98, "clock_gettime": 113,
            "restart_syscall": 128, "rt_sigprocmask": 135, "rt_sigreturn": 139,
            "gettimeofday": 169, "getpid": 172, "gettid": 178, "getsockname": 204,
            "getpeername": 205, "sendto": 206, "recvfrom": 207, "getsockopt": 209, "shutdown": 210,
            "sendmsg": 211, "brk": 214, "munmap": 215, "mremap": 216, "mmap": 222, "mprotect": 226,
            "madvise": 233, "getrandom": 278, "epoll_pwait2": 441,
        },
    ),
}  # fmt: skip


def assemble(
    architecture: Architecture,
    plain: Sequence[str] = PLAIN,
    checked: Mapping[str, tuple[ArgumentCheck, ...]] = CHECKED,
) -> list[Instruction]:
    """Return the filter: listed calls are allowed, any other call ends the process."""
    kill, allow = Instruction(RETURN, KILL_PROCESS), Instruction(RETURN, ALLOW)
    program = [
        Instruction(LOAD, _ARCHITECTURE_AT),
        Instruction(JUMP_EQUAL, architecture.audit, if_true=1),
        kill,
        Instruction(LOAD, _NUMBER_AT),
    ]
    if architecture.first_foreign is not None:
        program += [
            Instruction(JUMP_GREATER_EQUAL, architecture.first_foreign, if_false=1),
            kill,
        ]
    for name in plain:
        if name in architecture.numbers:
            number = architecture.numbers[name]
            program += [Instruction(JUMP_EQUAL, number, if_false=1), allow]
    for name, checks in checked.items():
        body = [step for check in checks for step in check.instructions()] + [allow]
        number = architecture.numbers[name]
        program += [Instruction(JUMP_EQUAL, number, if_false=len(body)), *body]
    return [*program, kill]


def pack(program: Sequence[Instruction]) -> bytes:
    """Return the filter in the kernel's form."""
    return b"".join(step.pack() for step in program)
