"""What a worker asks a guest with Windows about its compilers: where they are, then what they are.

A Windows image has no directory where compilers belong, and vcvars puts one of many on PATH. So the
guest lists all programs of these names below the directories of drive C, except for Windows itself.
Each is then asked by its path, as a compile names it. One that is for another kind of machine does
not start, and counts as absent.

Sources: Microsoft, "for", "call" and "cmd" of the Windows commands. `for /r` gives a plain name
once for each directory below, whether it is there or not.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from hpcc.compilers.msvc.probe import VERSION_SOURCE, program_directories, program_name, read_cl
from hpcc.core import Toolchain

_WINDOWS: Final = r"C:\Windows\System32;C:\Windows"
# An argument with quotes and blanks would be parsed twice, by different rules: hence a file.
_SCRIPT_NAME: Final = "list.cmd"
# `for /r` takes no variable of another `for` as its place, only an argument of the script.
_SCRIPT: Final = (
    b"@echo off\r\n"
    b'for /d %%d in (C:\\*) do if /i not "%%~nxd"=="Windows" call :look "%%~d"\r\n'
    b"exit /b 0\r\n"
    b":look\r\n"
    b'for /r "%~1" %%f in (cl.exe clang-cl.exe clang.exe) do if exist "%%~f" echo %%~f\r\n'
    b"exit /b 0\r\n"
)
_PATH: Final = re.compile(r"C:\\[A-Za-z0-9 ()+.,_\\-]{1,180}\\(?:cl|clang-cl|clang)\.exe", re.I)
_SOURCE_NAME: Final = "v.c"
# clang is asked as the cl that it can be; without the flag it would be another compiler.
_CL_MODE: Final = "--driver-mode=cl"


class WindowsQuestion(NamedTuple):
    """One exec: its arguments, variables and only input. `names` are what a compiler is called."""

    asked: str
    names: tuple[str, ...]
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    source: tuple[str, bytes]


def list_question(asked: str) -> WindowsQuestion:
    """Return the question where compilers are; `programs_listed` reads what it prints."""
    argv = ("cmd.exe", "/d", "/q", "/c", _SCRIPT_NAME)
    return WindowsQuestion(asked, (), argv, (("PATH", _WINDOWS),), (_SCRIPT_NAME, _SCRIPT))


def programs_listed(stdout: bytes) -> list[str]:
    """Return the compilers' paths in a guest's list, each once, without those that are odd."""
    lines = (line.strip() for line in stdout.decode("latin-1").splitlines())
    paths = {line.lower(): line for line in lines if _PATH.fullmatch(line)}
    return list(paths.values())


def describe_question(path: str) -> WindowsQuestion:
    """Return the question what a compiler is; `read_answer` reads what it prints."""
    name, home = program_name(path.encode()), path.rpartition("\\")[0]
    mode = (_CL_MODE,) if name == "clang" else ()
    argv = (path, *mode, "-nologo", "-EP", _SOURCE_NAME)
    env = (("PATH", ";".join((*program_directories(home), _WINDOWS))),)
    return WindowsQuestion(path, (name,), argv, env, (_SOURCE_NAME, VERSION_SOURCE))


def read_answer(question: WindowsQuestion, stdout: bytes) -> Toolchain:
    """Return the compiler that describes itself on its stdout.

    Raises:
        CallerError: another answer than that of cl or clang-cl.
    """
    return read_cl(question.names, stdout)
