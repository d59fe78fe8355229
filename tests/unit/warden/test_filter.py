"""The seccomp filter of wardens, run in an interpreter, allows exactly the listed calls."""

from __future__ import annotations

import platform
import re
import socket
import struct
from pathlib import Path

import pytest

from hpcc.warden.filter import (
    ALLOW,
    ARCHITECTURES,
    CHECKED,
    JUMP_ANY_BIT,
    JUMP_EQUAL,
    JUMP_GREATER_EQUAL,
    KILL_PROCESS,
    LOAD,
    PLAIN,
    RETURN,
    Architecture,
    assemble,
    pack,
)

PROT_READ, PROT_WRITE, PROT_EXEC = 1, 2, 4
MAP_PRIVATE, MAP_ANONYMOUS = 0x02, 0x20
FIONBIO, TIOCGWINSZ = 0x5421, 0x5413
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def verdict(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Run the filter as the kernel would (Documentation/userspace-api/seccomp_filter)."""
    data = struct.pack("<iIQ6Q", number, audit, 0, *(*arguments, *[0] * 6)[:6])
    steps = list(struct.iter_unpack("<HBBI", program))
    at, word = 0, 0
    while True:
        code, if_true, if_false, operand = steps[at]
        at += 1
        if code == LOAD:
            (word,) = struct.unpack_from("<I", data, operand)
        elif code == RETURN:
            return operand
        elif code == JUMP_EQUAL:
            at += if_true if word == operand else if_false
        elif code == JUMP_GREATER_EQUAL:
            at += if_true if word >= operand else if_false
        elif code == JUMP_ANY_BIT:
            at += if_true if word & operand else if_false
        else:
            pytest.fail(f"an instruction {code:#x} that nobody wrote")


@pytest.fixture(params=ARCHITECTURES)
def machine(request: pytest.FixtureRequest) -> Architecture:
    return ARCHITECTURES[request.param]


def test_exactly_the_listed_calls_are_allowed(machine: Architecture) -> None:
    program = pack(assemble(machine))
    listed = {machine.numbers[n] for n in PLAIN if n in machine.numbers}
    allowed = {n for n in range(1024) if verdict(program, machine.audit, n) == ALLOW}
    # These pass their checks with nothing but zeros; mmap and ioctl do not.
    with_zeros = {machine.numbers[n] for n in ("mprotect", "sendto", "recvfrom", "sendmsg")}
    assert allowed == listed | with_zeros


def test_what_is_not_allowed_ends_the_process(machine: Architecture) -> None:
    program = pack(assemble(machine))
    verdicts = {verdict(program, machine.audit, n) for n in range(1024)}
    assert verdicts == {ALLOW, KILL_PROCESS}


@pytest.mark.parametrize(
    ("name", "arguments", "is_allowed"),
    [
        ("mmap", (0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS), True),
        ("mmap", (0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS), False),
        ("mmap", (0, 4096, PROT_READ, MAP_PRIVATE, 3), False),
        ("mprotect", (0, 4096, PROT_READ | PROT_WRITE), True),
        ("mprotect", (0, 4096, PROT_EXEC), False),
        ("sendto", (3, 0, 1, socket.MSG_OOB), False),
        ("sendto", (3, 0, 1, 0), True),
        ("recvfrom", (3, 0, 1, socket.MSG_OOB), False),
        ("recvfrom", (3, 0, 1, socket.MSG_PEEK), False),
        ("sendmsg", (3, 0, socket.MSG_OOB), False),
        ("ioctl", (3, FIONBIO), True),
        ("ioctl", (3, TIOCGWINSZ), False),
    ],
)
def test_arguments_are_checked(
    machine: Architecture, name: str, arguments: tuple[int, ...], is_allowed: bool
) -> None:
    program = pack(assemble(machine))
    found = verdict(program, machine.audit, machine.numbers[name], *arguments)
    assert found == (ALLOW if is_allowed else KILL_PROCESS)


def test_another_architectures_calls_are_refused() -> None:
    for machine in ARCHITECTURES.values():
        for other in ARCHITECTURES.values():
            if other is not machine:
                number = machine.numbers["read"]
                assert verdict(pack(assemble(machine)), other.audit, number) == KILL_PROCESS


def test_x32_calls_are_refused() -> None:
    machine = ARCHITECTURES["x86_64"]
    program = pack(assemble(machine))
    for name in (*PLAIN, *CHECKED):
        if name in machine.numbers:
            number = machine.numbers[name] | 0x40000000
            assert verdict(program, machine.audit, number) == KILL_PROCESS


def test_jumps_and_length_fit_the_kernels_fields(machine: Architecture) -> None:
    program = assemble(machine)
    assert len(program) < 4096  # BPF_MAXINSNS
    assert all(step.if_true < 256 and step.if_false < 256 for step in program)


def test_no_listed_call_takes_a_path_or_makes_a_descriptor_or_a_process() -> None:
    assert not {*PLAIN, *CHECKED} & {
        "open", "openat", "openat2", "stat", "newfstatat", "execve", "execveat", "fork", "vfork",
        "clone", "clone3", "socket", "socketpair", "accept4", "connect", "bind", "recvmsg", "pipe2",
        "dup", "fcntl", "memfd_create", "epoll_create1", "eventfd2", "pidfd_open", "io_uring_setup",
        "ptrace", "process_vm_readv", "kill", "tgkill", "prlimit64", "setrlimit", "prctl", "seccomp",
        "setuid", "setresuid", "unshare", "setns", "mount", "bpf", "keyctl", "userfaultfd",
    }  # fmt: skip


def test_the_numbers_are_the_kernels(machine: Architecture) -> None:
    name = next(n for n, m in ARCHITECTURES.items() if m is machine)
    if name == "x86_64" != platform.machine():
        pytest.skip("its header is only on such machines")
    # arm64 has the generic numbers, whose header is everywhere.
    text = HEADERS[name].read_text()
    known = {
        call: int(number)
        for call, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
    }
    assert {n: known[n] for n in machine.numbers} == dict(machine.numbers)
