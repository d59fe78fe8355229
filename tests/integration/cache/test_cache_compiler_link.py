from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from hpcc.cache.base.files import FileMemo
from hpcc.cache.host.identity import Compilers
from hpcc.cache.replay.engine import Outcome
from hpcc.cache.replay.python_engine import PythonEngine
from hpcc.compilers.clang.family import CLANG
from hpcc.compilers.gnu.family import GNU
from hpcc.compilers.spec.table import Bypass


def test_a_link_that_leads_to_another_compiler_is_another_compiler(tmp_path: Path) -> None:
    gcc, clang = shutil.which("gcc"), shutil.which("clang")
    assert gcc is not None
    assert clang is not None, "apt-get install clang"
    link = tmp_path / "cc"
    link.symlink_to(gcc)
    compilers = Compilers(FileMemo(time.time_ns), PythonEngine())
    env = {b"PATH": os.environb[b"PATH"]}
    before = compilers.identify(bytes(link), env, lambda: False)
    link.unlink()
    link.symlink_to(clang)
    after = compilers.identify(bytes(link), env, lambda: False)
    assert not isinstance(before, Bypass)
    assert not isinstance(after, Bypass)
    assert before.family is GNU
    assert after.family is CLANG
    assert before.digest != after.digest


def test_a_compiler_named_by_its_real_path_counts_with_its_libraries() -> None:
    clang = shutil.which("clang")
    assert clang is not None, "apt-get install clang"
    real = os.path.realpath(clang).encode()
    compilers = Compilers(FileMemo(time.time_ns), PythonEngine())
    env = {b"PATH": os.environb[b"PATH"]}
    assert not isinstance(compilers.identify(real, env, lambda: False), Bypass)
    (known,) = compilers._known.values()
    assert any(b"libLLVM" in path or b"libclang" in path for path, _ in known.evidence.files)


def test_people_with_different_paths_have_the_same_compiler(tmp_path: Path) -> None:
    gcc = os.path.realpath(shutil.which("gcc") or "")
    found = []
    for person in ("ann", "bob"):
        own = tmp_path / person
        own.mkdir()
        compilers = Compilers(FileMemo(time.time_ns), PythonEngine())
        env = {b"PATH": bytes(own) + b":" + os.environb[b"PATH"]}
        found.append(compilers.identify(gcc.encode(), env, lambda: False))
    assert found[0] == found[1]
    # Bob's own assembler is found before the system's.
    assembler = shutil.which("as")
    assert assembler is not None
    shutil.copy(assembler, tmp_path / "bob" / "as")
    with open(tmp_path / "bob" / "as", "ab") as file:
        file.write(b"another")
    after = compilers.identify(gcc.encode(), env, lambda: False)
    assert isinstance(after, Bypass) or after.digest != getattr(found[1], "digest", None)


class _Counting(PythonEngine):
    def __init__(self) -> None:
        self.outcomes: list[int] = []

    def replay(self, prepared: object, connection: int) -> int:
        self.outcomes.append(super().replay(prepared, connection))
        return self.outcomes[-1]


def test_a_compiler_that_is_known_is_looked_at_in_one_call(tmp_path: Path) -> None:
    gcc = os.path.realpath(shutil.which("gcc") or "")
    directory = tmp_path / "bin"
    directory.mkdir()
    (directory / "gcc").symlink_to(gcc)
    engine = _Counting()
    compilers = Compilers(FileMemo(lambda: time.time_ns() + 10**10), engine)
    path = bytes(directory) + b":" + os.environb[b"PATH"]
    env = {b"PATH": path}
    compiler = bytes(directory / "gcc")
    before = compilers.identify(compiler, env, lambda: False)
    assert not isinstance(before, Bypass)
    for _ in range(3):
        assert compilers.identify(compiler, env, lambda: False) == before
    assert engine.outcomes == [Outcome.DONE, Outcome.DONE]
    (directory / "gcc").unlink()
    shutil.copy(gcc, directory / "gcc")
    with open(directory / "gcc", "ab") as file:
        file.write(b"another")
    after = compilers.identify(compiler, env, lambda: False)
    assert engine.outcomes[-1] == Outcome.CHANGED
    assert isinstance(after, Bypass) or after.digest != before.digest
