"""Which programs a command executes, and which drivers are wrappers."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.base.files import FileMemo
from hpcc.cache.host import compiler_probe, exec_trace, wrappers
from hpcc.cache.host.compiler_probe import Identity
from hpcc.cache.host.exec_trace import Execution, executions
from hpcc.cache.host.identity import Compilers
from hpcc.cache.host.wrappers import executes_others
from hpcc.cache.replay.engine import open_engine
from hpcc.compilers.spec.table import Bypass
from hpcc.core.reasons.bypass import BypassReason

_ENV = {b"PATH": b"/usr/bin:/bin"}
_QUESTIONS = ((b"-xc",), (b"-xc++",))
_WRAPPER = """
#include <unistd.h>
int main(int n, char **v) { v[0] = "/usr/bin/gcc"; return execv(v[0], v); }
"""


def _file(path: str | bytes) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino


def _which(name: str) -> bytes:
    return os.fsencode(os.path.realpath(shutil.which(name) or f"/usr/bin/{name}"))


def _programs() -> list[bytes]:
    answers = [
        subprocess.run(["gcc", f"-print-prog-name={n}"], capture_output=True, check=True).stdout
        for n in ("cc1", "cc1plus")
    ]
    return [*(answer.strip() for answer in answers), _which("as")]


@pytest.fixture
def wrapper(tmp_path: Path) -> bytes:
    """Build a program that executes gcc."""
    (tmp_path / "w.c").write_text(_WRAPPER)
    subprocess.run(["gcc", "-w", "w.c", "-o", "gcc"], cwd=tmp_path, check=True)
    return os.fsencode(tmp_path / "gcc")


def test_a_trace_shows_the_command_and_what_it_starts(tmp_path: Path) -> None:
    argv = [b"/usr/bin/gcc", b"-c", b"-xc", b"/dev/null", b"-o", os.fsencode(tmp_path / "a.o")]
    seen = executions(argv, env=_ENV, cwd=b"/")
    assert seen is not None
    cc1, _, assembler = _programs()
    assert [e.program for e in seen] == [_file("/usr/bin/gcc"), _file(cc1), _file(assembler)]
    assert len({e.pid for e in seen}) == 3
    assert (tmp_path / "a.o").stat().st_size > 0


def test_the_traced_command_gets_its_variables_and_no_others(tmp_path: Path) -> None:
    env = {b"PATH": b"/usr/bin:/bin", b"G++_ROOT": b"/x y", b"EMPTY": b""}
    script = b'env -0 > "$0"'
    out = tmp_path / "env"
    executions([b"/bin/bash", b"-c", script, os.fsencode(out)], env=env, cwd=b"/")
    got = dict(part.split(b"=", 1) for part in out.read_bytes().split(b"\0") if part)
    assert got.items() >= env.items()
    assert got.keys() - env.keys() <= {b"PWD", b"SHLVL", b"_", b"OLDPWD"}  # bash sets these


def test_a_program_that_a_process_became_is_shown_with_it() -> None:
    seen = executions([b"/bin/sh", b"-c", b"exec /bin/true"], env=_ENV, cwd=b"/")
    assert seen is not None
    assert [e.program for e in seen] == [_file("/bin/sh"), _file("/bin/true")]
    assert len({e.pid for e in seen}) == 1


def test_a_command_without_end_is_ended_with_all_its_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_trace, "QUERY_SECONDS", 0.3)
    script = b"setsid sleep 1000 & echo $! > pids; exec sleep 1000"
    with pytest.raises(OSError, match="has gaps"):
        executions([b"/bin/sh", b"-c", script], env=_ENV, cwd=os.fsencode(tmp_path))
    pid = int((tmp_path / "pids").read_text())
    assert not Path(f"/proc/{pid}/cwd").exists()


def test_a_command_that_executes_without_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exec_trace, "_MAX_EXECUTIONS", 5)
    script = b"while :; do /bin/true; done"
    with pytest.raises(OSError, match="has gaps"):
        executions([b"/bin/sh", b"-c", script], env=_ENV, cwd=b"/")


def test_a_trace_never_shows_the_shell_in_front_of_the_command() -> None:
    seen: list[tuple[Execution, ...] | None] = []

    def run() -> None:
        seen.extend(executions([b"/bin/true"], env=_ENV, cwd=b"/") for _ in range(60))

    # A trace of a process that is still at its execve shows that one, too: one of forty, with
    # this many at once.
    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    programs = [[e.program for e in one] if one else None for one in seen]
    assert programs == [[_file("/bin/true")]] * 360


def test_a_trace_with_gaps_takes_no_driver_for_a_compiler(
    wrapper: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exec_trace._Trace, "_note", lambda *_: False)
    with pytest.raises(OSError, match="has gaps"):
        executes_others(wrapper, _programs(), _QUESTIONS, env=_ENV, cwd=b"/")


def test_one_execve_that_was_not_seen_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    note, seen = exec_trace._Trace._note, []

    def forgetful(trace: exec_trace._Trace, pid: int) -> bool:
        seen.append(pid)
        return note(trace, pid) and len(seen) != 2

    monkeypatch.setattr(exec_trace._Trace, "_note", forgetful)
    with pytest.raises(OSError, match="has gaps"):
        executions([b"/bin/sh", b"-c", b"/bin/true; /bin/true"], env=_ENV, cwd=b"/")
    assert len(seen) == 4


def test_no_trace_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert executions([b"/a=b"], env=_ENV, cwd=b"/") is None
    with pytest.raises(OSError, match="has gaps"):
        executions([b"/not/there"], env=_ENV, cwd=b"/")
    assert executions([b"/bin/true"], env=_ENV, cwd=b"/not/there") is None
    monkeypatch.setattr(exec_trace, "_ptrace", lambda *_: -1)
    assert executions([b"/bin/true"], env=_ENV, cwd=b"/") is None


@pytest.mark.parametrize("is_traced", [True, False])
def test_a_compiler_is_no_wrapper_and_a_wrapper_is_one(
    is_traced: bool, wrapper: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_traced:
        monkeypatch.setattr(wrappers, "executions", lambda *_, **__: None)
    programs = _programs()
    assert not executes_others(_which("gcc"), programs, _QUESTIONS, env=_ENV, cwd=b"/")
    assert executes_others(wrapper, programs, _QUESTIONS, env=_ENV, cwd=b"/")
    script = tmp_path / "as"
    script.write_text('#!/bin/sh\nexec /usr/bin/as "$@"\n')
    script.chmod(0o755)
    path = {b"PATH": os.fsencode(tmp_path) + b":/usr/bin"}
    programs = [*programs[:2], os.fsencode(script)]
    assert executes_others(_which("gcc"), programs, _QUESTIONS, env=path, cwd=b"/")


@pytest.mark.parametrize("name", ["clang", "clang-17", "clang-19"])
@pytest.mark.parametrize("is_traced", [True, False])
def test_clang_is_no_wrapper(name: str, is_traced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_traced:
        monkeypatch.setattr(wrappers, "executions", lambda *_, **__: None)
    question = ((b"-fno-integrated-as", b"-xc"),)
    assert not executes_others(_which(name), [_which("as")], question, env=_ENV, cwd=b"/")


def test_an_emulator_in_front_of_the_driver_leaves_the_question_to_its_file(
    wrapper: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulated = (Execution(1, _file("/bin/true")), Execution(2, _file("/bin/true")))
    monkeypatch.setattr(wrappers, "executions", lambda *_, **__: emulated)
    assert not executes_others(_which("gcc"), _programs(), _QUESTIONS, env=_ENV, cwd=b"/")
    assert executes_others(wrapper, _programs(), _QUESTIONS, env=_ENV, cwd=b"/")


def test_a_process_that_becomes_the_driver_twice_is_a_wrapper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gcc = _file(_which("gcc"))
    for pids, is_one in (((1, 2), False), ((1, 1), True), ((1, 2, 2), True)):
        seen = tuple(Execution(pid, gcc, 1) for pid in pids)
        monkeypatch.setattr(wrappers, "executions", lambda *_, seen=seen, **__: seen)
        assert executes_others(_which("gcc"), [], _QUESTIONS, env=_ENV, cwd=b"/") is is_one


def test_a_program_that_is_not_the_drivers_own_makes_a_wrapper(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gcc, own, other = _file(_which("gcc")), _file(_which("as")), _file("/bin/true")
    for program, is_one in ((own, False), (other, True)):
        seen = (Execution(1, gcc), Execution(2, program))
        monkeypatch.setattr(wrappers, "executions", lambda *_, seen=seen, **__: seen)
        assert (
            executes_others(_which("gcc"), [_which("as")], _QUESTIONS, env=_ENV, cwd=b"/") is is_one
        )


def test_what_a_program_of_the_system_executes_is_its_own_matter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gcc, assembler, real = _file(_which("gcc")), _file(_which("as")), _file("/bin/true")
    replaces = (Execution(1, gcc), Execution(2, assembler, 1), Execution(2, real, 1))
    waits = (Execution(1, gcc), Execution(2, assembler, 1), Execution(3, real, 2))
    for seen in (replaces, waits):
        monkeypatch.setattr(wrappers, "executions", lambda *_, seen=seen, **__: seen)
        assert not executes_others(_which("gcc"), [_which("as")], ((),), env=_ENV, cwd=b"/")
        monkeypatch.setattr(wrappers, "_OF_THE_SYSTEM", b"/elsewhere/")
        assert executes_others(_which("gcc"), [_which("as")], ((),), env=_ENV, cwd=b"/")
        monkeypatch.undo()


def test_a_wrapper_is_asked_once_and_again_when_it_has_changed(
    wrapper: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def counted(
        compiler: bytes, *rest: Sequence[Any], **more: Mapping[bytes, bytes] | bytes
    ) -> Any:
        asked.append(compiler)
        return executes_others(compiler, *rest, **more)  # type: ignore[arg-type]  # as given

    monkeypatch.setattr(compiler_probe, "executes_others", counted)
    compilers = Compilers(FileMemo(lambda: 1 << 62), open_engine())
    for _ in range(3):
        assert compilers.identify(wrapper, _ENV, lambda: False) == Bypass(BypassReason.WRAPPER)
    assert asked == [wrapper]
    os.unlink(wrapper)
    os.symlink(_which("gcc"), wrapper)
    assert isinstance(compilers.identify(wrapper, _ENV, lambda: False), Identity)
    assert asked == [wrapper, wrapper]
