from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from hpcc.compilers import Bypass
from hpcc.daemon._files import FileMemo
from hpcc.daemon._identity import Compilers


def test_a_link_that_leads_to_another_compiler_is_another_compiler(tmp_path: Path) -> None:
    gcc, clang = shutil.which("gcc"), shutil.which("clang")
    assert gcc is not None
    assert clang is not None, "apt-get install clang"
    link = tmp_path / "cc"
    link.symlink_to(gcc)
    compilers = Compilers(FileMemo(time.time_ns))
    env = {b"PATH": os.environb[b"PATH"]}
    before = compilers.identify(bytes(link), env, lambda: False)
    link.unlink()
    link.symlink_to(clang)
    after = compilers.identify(bytes(link), env, lambda: False)
    assert not isinstance(before, Bypass)
    assert not isinstance(after, Bypass)
    assert not before.is_clang
    assert after.is_clang
    assert before.digest != after.digest


def test_a_compiler_named_by_its_real_path_counts_with_its_libraries() -> None:
    clang = shutil.which("clang")
    assert clang is not None, "apt-get install clang"
    real = os.path.realpath(clang).encode()
    compilers = Compilers(FileMemo(time.time_ns))
    env = {b"PATH": os.environb[b"PATH"]}
    assert not isinstance(compilers.identify(real, env, lambda: False), Bypass)
    (known,) = compilers._known.values()
    assert any(b"libLLVM" in path or b"libclang" in path for path, _ in known.files)
