"""Computes what a compile on Windows starts with: program, variables, exit status. Does no I/O.

All of it is text and rules, so it is the same on every system. Not yet tested on Windows.
"""

from __future__ import annotations

import errno
import ntpath
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from hpcc.agent.base.ending import Ending
from hpcc.core import (
    CallerError,
    ExecRequest,
    check_windows_length,
    check_windows_relative,
    windows_keys,
)

# Characters of a command line that CreateProcess takes, including the final zero.
MAX_LINE_UNITS: Final = 32_767
EXIT_DEADLINE: Final = 124
# The machine's variables that programs need to load their parts; never a secret of the agent.
_OF_THE_MACHINE: Final = (
    "SystemRoot", "SystemDrive", "windir", "ComSpec", "PATHEXT", "OS", "ProgramData",
    "ProgramFiles", "ProgramFiles(x86)", "CommonProgramFiles", "CommonProgramFiles(x86)",
    "PROCESSOR_ARCHITECTURE", "PROCESSOR_IDENTIFIER", "NUMBER_OF_PROCESSORS", "ALLUSERSPROFILE",
)  # fmt: skip
# Equal in every guest where the request does not set them. cl's run-time library reads TZ.
_PINNED: Final = {
    "TZ": "UTC0", "VSLANG": "1033", "COMPUTERNAME": "HPCC", "USERNAME": "hpcc",
}  # fmt: skip
# Where cl looks for its mspdbsrv: a separate one for each exec, which ends with the job.
_PDB_SERVER: Final = "_MSPDBSRV_ENDPOINT_"
# It would send a compiler's output to a handle that does not exist.
_REFUSED: Final = frozenset({"VS_UNICODE_OUTPUT"})
_MAX_PLAIN_EXIT: Final = 255
# ntstatus.h: exit codes of crashed programs, as the signals of other systems.
_SIGNALS: Final[Mapping[int, int]] = {
    0xC0000005: signal.SIGSEGV,  # access violation
    0xC00000FD: signal.SIGSEGV,  # stack overflow
    0xC000001D: signal.SIGILL,  # illegal instruction
    0xC0000094: signal.SIGFPE,  # integer division by zero
    0xC0000409: signal.SIGABRT,  # fail fast
    0x40000015: signal.SIGABRT,  # fatal application exit
}
_100NS: Final = 1e-7
# Windows can wait for 49 days in milliseconds.
_MAX_SECONDS: Final = 49 * 86400.0
_SPAWN_ABSENT: Final = frozenset({2, 3, 193, 216})  # not found, no path, no program, other machine
_LINE_TOO_LONG: Final = 206


class NoProgramError(Exception):
    """The program does not exist, or is not a program."""


def check_request(request: ExecRequest, root: str) -> frozenset[str]:
    r"""Return the inputs to write: one of those that Windows takes for the same file.

    `root` is `C:\src`.

    Raises:
        OSError: Windows cannot have a name, or one file would have two contents.
    """
    paths = [f.path for f in request.inputs]
    named = [*paths, *request.outputs, *request.output_directories]
    if request.cwd:
        named.append(request.cwd)
    try:
        for path in named:
            check_windows_relative(path)
            check_windows_length(f"{root}\\{path}")
        chosen = windows_keys({f.path: f.digest for f in request.inputs})
    except CallerError as error:
        raise OSError(errno.EINVAL, str(error)) from error
    return frozenset(chosen.values())


def environment(
    request: ExecRequest, machine: Mapping[str, str], *, endpoint: str, temporary: str
) -> dict[str, str]:
    """Return a program's whole environment: the request's variables and those that Windows needs.

    `machine` is the agent's own environment, of which only fixed names are taken.

    Raises:
        OSError: the request sets a variable twice, in two spellings.
    """
    made: dict[str, str] = {}
    seen: set[str] = set()
    for name, value in request.env:
        key = name.upper()
        if key in seen:
            raise OSError(errno.EINVAL, f"the variable {name[:80]!r} is there twice")
        seen.add(key)
        if key not in _REFUSED:
            made[name] = value
    own = {name.upper(): value for name, value in machine.items()}
    given = {n: own[n.upper()] for n in _OF_THE_MACHINE if n.upper() in own}
    made |= {n: v for n, v in {**given, **_PINNED}.items() if n.upper() not in seen}
    always = {"TEMP": temporary, "TMP": temporary, _PDB_SERVER: endpoint}
    for name in [n for n in made if n.upper() in always]:
        del made[name]
    return made | always


def find_program(
    name: str, variables: Mapping[str, str], cwd: str, is_file: Callable[[str], bool]
) -> str:
    r"""Return the absolute path of a program; current and agent's directory are not searched.

    A name without a separator is searched only in the request's PATH; CreateProcess would first
    search beside the agent and in the sources. Only `.exe` files: a script would be given to cmd,
    which parses its arguments by other rules.

    Raises:
        NoProgramError: there is none, or it is on a server or a device.
    """
    file = name if ntpath.splitext(name)[1].lower() == ".exe" else f"{name}.exe"
    if "\\" in file or "/" in file or ":" in file:
        places = [ntpath.join(cwd, file)]
    else:
        path = next((v for n, v in variables.items() if n.upper() == "PATH"), "")
        places = [ntpath.join(p.strip('"'), file) for p in path.split(";") if p]
    for place in places:
        found = ntpath.normpath(place)
        # Only on a drive: a server's file would cross the boundary, and a device is not a program.
        drive, root, rest = ntpath.splitroot(found)
        is_local = len(drive) == len("C:") and root == "\\" and ":" not in rest
        if is_local and is_file(found):
            return found
    raise NoProgramError(f"no {file[:80]!r} in the request's PATH")


def stub_arguments(request: ExecRequest, program: str, report: str) -> list[str]:
    """Return the arguments for `hpcc-agent.exe`; see its source."""
    limits = request.limits
    return [
        "run", "--restricted", "medium",
        "--memory", str(limits.memory_bytes), "--processes", str(limits.pids),
        "--timeout-ms", str(max(round(min(limits.wall_seconds, _MAX_SECONDS) * 1000), 1)),
        "--report", report, "--", program, *request.argv[1:],
    ]  # fmt: skip


def check_line(arguments: Sequence[str], line: str) -> None:
    """Refuse a command line that CreateProcess would; `line` is the arguments as they are written.

    Raises:
        OSError: it is too long.
    """
    units = len(line.encode("utf-16-le")) // 2 + 1
    if units > MAX_LINE_UNITS:
        raise OSError(
            errno.E2BIG,
            f"a command line of {units} characters in {len(arguments)} arguments, and Windows"
            f" takes {MAX_LINE_UNITS}: use a response file",
        )


def read_report(text: bytes, *, wall_seconds: float, started_at: float) -> Ending:
    """Parse the stub's line on how a job ended. The program cannot reach the file."""
    words = text.decode("ascii", "replace").split()
    match words:
        case [("done" | "memory" | "deadline") as word, code, user, kernel, peak] if all(
            w.isdecimal() for w in words[1:]
        ):
            status = status_of(int(code))
            if word == "deadline":
                status = EXIT_DEADLINE
            elif word == "memory":
                status = status or 1
            return Ending(
                status=status,
                reason="" if word == "done" else word,
                wall_seconds=wall_seconds,
                user_seconds=int(user) * _100NS,
                system_seconds=int(kernel) * _100NS,
                max_rss_bytes=int(peak),
                started_at=started_at,
            )
        case ["spawn", code] if code.isdecimal():
            number = int(code)
            if number in _SPAWN_ABSENT:
                return Ending(status=127, reason="no-such-program", detail=f"Windows error {code}")
            what = "the command line is too long" if number == _LINE_TOO_LONG else "not started"
            detail = f"{what}: Windows error {code}"
            return Ending(status=125, reason="agent-error", detail=detail)
        case _:
            return Ending(status=125, reason="agent-error", detail="the job ended unreported")


def status_of(code: int) -> int:
    """Return an exit code as Result has it: 0 to 255, or minus a signal for a crash."""
    if code in _SIGNALS:
        return -_SIGNALS[code]
    return min(code, _MAX_PLAIN_EXIT)
