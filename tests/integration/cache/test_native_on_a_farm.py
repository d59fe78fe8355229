"""`-march=native` travels spelled out, if the image has this machine's compiler."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.host.native_flags import NativeFlags
from hpcc.cache.results.records_read import read_records
from hpcc.config.farm_session import FarmSession
from hpcc.config.paths import Paths
from hpcc.core import ClientPolicy, Toolchain
from hpcc.core.memo import BoundedMemo
from hpcc_testkit.cache.compiles import FARM, FakeLauncher, FakeRemote, run_bare

SOURCE = """
float dot(const float *a, const float *b, int n) {
    float sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}
int bits(unsigned x) { return __builtin_popcount(x); }
#ifdef __AVX2__
int wide = 256;
#endif
"""
COMPILERS = ("gcc-12", "gcc-13", "gcc-14", "clang-14", "clang-17", "clang-19")


def _session(compiler: str, version: str = "") -> FarmSession:
    shown = subprocess.run([compiler, "-v"], capture_output=True, check=True).stderr.decode()
    found = re.search(r"version ([0-9.]+)", shown)
    assert found is not None
    toolchain = Toolchain(
        names=(compiler,),
        family="clang" if "clang" in compiler else "gcc",
        version=version or found[1],
        target="x86_64-linux-gnu",
    )
    return FarmSession(
        scheduler=FARM.scheduler,
        tenant=FARM.tenant,
        image=FARM.image,
        expires_at=time.time() + 3600,
        policy=ClientPolicy(fallback="warn", parity="ignore"),
        compilers=(toolchain,),
    )


@pytest.fixture
def remote() -> FakeRemote:
    return FakeRemote()


@pytest.fixture
def launcher(make_cache: Callable[..., Cache], remote: FakeRemote, tmp_path: Path) -> FakeLauncher:
    root = tmp_path / "proj"
    (root / ".git").mkdir(parents=True)
    (root / "a.c").write_text(SOURCE)
    old = time.time() - 3600
    os.utime(root / "a.c", (old, old))
    return FakeLauncher(handler=make_cache(remote), cwd=root)


def _compiled(launcher: FakeLauncher, argv: list[str]) -> tuple[str, bytes]:
    ended = launcher.compile(*argv)
    assert ended.exit_code == 0, ended.stderr
    data = (launcher.cwd / "a.o").read_bytes()
    (launcher.cwd / "a.o").unlink()
    return ended.answer, data


@pytest.mark.parametrize("compiler", COMPILERS)
def test_an_object_is_the_one_of_the_flags_here(
    compiler: str, launcher: FakeLauncher, remote: FakeRemote
) -> None:
    remote.said = _session(compiler)
    tried = ["-O3 -march=native", "-mtune=native -O2", "-O2 -march=native -mno-avx2 -ffast-math"]
    tried += ["-O3 -g -march=native", "-O3 -march=native -fverbose-asm"]
    travelled = []
    for flags in tried:
        argv = [compiler, *flags.split(), "-c", "a.c", "-o", "a.o"]
        assert run_bare(argv, cwd=launcher.cwd)[0] == 0
        bare = (launcher.cwd / "a.o").read_bytes()
        answer, data = _compiled(launcher, argv)
        assert data == bare, flags
        if answer == "done":
            travelled.append(flags)
            assert _compiled(launcher, argv) == ("done", bare)
    for request in remote.requests:
        has_specs = any(item.path == "hpcc-native.specs" for item in request.inputs)
        assert any("=native" in word for word in request.argv) is has_specs
        assert any(word.startswith(("-march=", "-mtune=")) for word in request.argv)
        assert has_specs is ("-specs=/src/hpcc-native.specs" in request.argv)
    # Clang's list of features would name one twice.
    assert travelled == [t for t in tried if "-mno-" not in t or compiler.startswith("gcc")]
    assert len(remote.requests) == len(travelled)


@pytest.mark.parametrize("flags", ["-g", "-O2 -g -mno-avx2", "-g3 -mtune=native -std=c99"])
def test_debug_information_of_gcc_lists_the_flags_as_here(
    flags: str, launcher: FakeLauncher, remote: FakeRemote
) -> None:
    remote.said = _session("gcc-12")
    argv = ["gcc-12", "-march=native", *flags.split(), "-c", "a.c", "-o", "a.o"]
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    bare = (launcher.cwd / "a.o").read_bytes()
    assert _compiled(launcher, argv) == ("done", bare)
    (item,) = [i for i in remote.requests[0].inputs if i.path == "hpcc-native.specs"]
    shown = Path(item.host_path).read_text()
    assert shown.startswith("*cc1_cpu:\n%>march=native %>mtune=native ")
    assert "-march=" in shown
    assert "=native -" in shown  # nothing else is left of it
    # A file that somebody changed is written anew.
    Path(item.host_path).write_text("*cc1_cpu:\n-march=x86-64\n\n")
    (launcher.cwd / "a.c").write_text(SOURCE + "int more;\n")
    assert run_bare(argv, cwd=launcher.cwd)[0] == 0
    bare = (launcher.cwd / "a.o").read_bytes()
    assert _compiled(launcher, argv) == ("done", bare)
    assert len(remote.requests) == 2


def test_a_file_of_specs_cannot_be_mistaken_for_one_of_the_project(
    launcher: FakeLauncher, remote: FakeRemote, paths: Paths
) -> None:
    remote.said = _session("gcc-12")
    (launcher.cwd / "a.c").write_text(
        '#if __has_include("hpcc-native.specs")\nint guest;\n#endif\n'
    )
    assert _compiled(launcher, ["gcc-12", "-march=native", "-g", "-c", "a.c"])[0] == "run"
    assert remote.requests == []
    launcher.handler.close()  # type: ignore[attr-defined]  # a cache
    (record,) = read_records(os.fspath(paths.cache))
    assert record.fallback == "native: a source holds a name of hpcc's"


def test_link_time_optimization_with_debug_information_stays_here(
    launcher: FakeLauncher, remote: FakeRemote
) -> None:
    remote.said = _session("gcc-12")
    argv = ["gcc-12", "-march=native", "-flto", "-g", "-c", "a.c", "-o", "a.o"]
    assert _compiled(launcher, argv)[0] == "run"
    assert remote.requests == []


@pytest.mark.parametrize("image", ["none", "other-version", "other-name"])
def test_without_this_compiler_in_the_image_it_stays_here(
    image: str, launcher: FakeLauncher, remote: FakeRemote, paths: Paths
) -> None:
    if image != "none":
        compiler, version = ("gcc", "99.1.0") if image == "other-version" else ("gcc-12", "")
        remote.said = _session(compiler, version)
    assert _compiled(launcher, ["gcc", "-march=native", "-c", "a.c", "-o", "a.o"])[0] == "run"
    assert remote.requests == []
    launcher.handler.close()  # type: ignore[attr-defined]  # a cache
    (record,) = read_records(os.fspath(paths.cache))
    assert re.fullmatch(r"native: the image has no gcc [0-9.]+, which .*", record.fallback)


def test_another_processor_has_another_key(
    launcher: FakeLauncher, remote: FakeRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.said = _session("gcc-14")
    argv = ["gcc-14", "-O2", "-march=native", "-c", "a.c", "-o", "a.o"]
    assert [_compiled(launcher, argv)[0] for _ in range(2)] == ["done", "done"]
    assert len(remote.requests) == 1
    monkeypatch.setattr(NativeFlags, "resolve", lambda *_: b"what another processor can do")
    assert _compiled(launcher, argv)[0] == "done"
    assert len(remote.requests) == 2


def test_a_memo_that_another_thread_empties_costs_only_questions(
    launcher: FakeLauncher, remote: FakeRemote, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.said = _session("gcc-14")
    monkeypatch.setattr(BoundedMemo, "__setitem__", lambda *_: None)
    argv = ["gcc-14", "-O2", "-march=native", "-c", "a.c", "-o", "a.o"]
    assert [_compiled(launcher, argv)[0] for _ in range(2)] == ["done", "done"]
    assert len(remote.requests) == 1
