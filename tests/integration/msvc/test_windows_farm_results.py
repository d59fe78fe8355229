"""What a Windows client keeps of a farm's results, around the real clang-cl that lists headers.

The farm answers with bytes that depend on what it was sent. `hpcc_testkit.windows.local_drive` has
the machine.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hpcc.cache.base.api import CompileRequest, Done, Exec, Run, RunReport
from hpcc.cache.base.counters import Counters
from hpcc.cache.windows.opening import open_windows_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import (
    GuestReuse,
    Isolation,
    RemoteFailure,
    RemoteOutcome,
    RemoteOutput,
    RemoteRequest,
    RemoteResult,
    Toolchain,
    parse_windows_path,
)
from hpcc.core.basis import NO_TERMS, ResultBasis
from hpcc.daemon.windows_process import OnFarm
from hpcc.ports import SystemClock
from hpcc_testkit.cache.compiles import FARM, FakeRemote, farm_session
from hpcc_testkit.windows.cl_drive import client_of, posix
from hpcc_testkit.windows.local_drive import LocalDrive, windows

# A file that is younger than this when the compile begins may have changed since.
_SETTLED_SECONDS = 0.3
_ARGV = ("/nologo", "/c", "/Ifirst", "/Iinc", "/Fox.obj", "x.c")


class Farm(FakeRemote):
    """Answers each request with a digest of it; `meanwhile` runs before the answer."""

    def __init__(self) -> None:
        super().__init__()
        self.basis = ""
        self.meanwhile: Callable[[], object] = lambda: None

    def compile(self, request: RemoteRequest, is_cancelled: Callable[[], bool]) -> RemoteOutcome:
        self.requests.append(request)
        digest = hashlib.sha256(repr((request.argv, request.env)).encode())
        for item in request.inputs:
            digest.update(item.path.encode() + Path(posix(item.host_path)).read_bytes())
        self.meanwhile()
        if self.failure is not None:
            return self.failure
        return RemoteResult(
            exit_code=0, stdout=b"", stderr=b"C:\\src\\x.c(1): warning: w\n",
            outputs=(RemoteOutput("x.obj", digest.digest(), is_executable=False),),
            is_cached=False, isolation=Isolation.HYPERV, action="a" * 64, basis=self.basis,
        )  # fmt: skip


class Bench:
    """A project, its client's daemon, and a farm that can be taken away."""

    def __init__(self, directory: Path, clang_cl: Path) -> None:
        self.directory = directory / "w"
        for name in ("w/inc", "w/first", "VC/include", "LLVM/bin"):
            (directory / name).mkdir(parents=True)
        self.drive = LocalDrive(clang_cl)
        program = directory / "LLVM/bin/clang-cl.exe"
        program.symlink_to(clang_cl)
        self.program = windows(program).encode()
        self.env = {
            b"VCToolsInstallDir": windows(directory / "VC").encode(),
            b"INCLUDE": windows(directory / "VC/include").encode(),
        }
        self.counters = Counters(str(directory / "counters"), now=lambda: 0.0)
        paths = Paths.from_env({"HPCC_DIR": str(directory / "home")})
        opened = (self.drive, paths, Settings(), self.counters, SystemClock())
        cache, store = open_windows_cache(*opened, lambda _disk, _cwd: None, "")
        self.remote, self.has_farm = Farm(), True
        farm = client_of(
            *(self.remote, self.drive, self.counters, RemoteSettings(parity="refuse")),
            *(time.monotonic, cache.records, cache.image_results),
        )
        root = parse_windows_path(windows(self.directory))
        self.handler = OnFarm(
            self.counters, str(directory), cache, store, farm=farm,
            has_farm=lambda: self.has_farm, find_root=lambda _: root,
            resolve=lambda program: program,
        )  # fmt: skip
        self._counted: Counter[str] = Counter()
        self.said = b""  # the last answer's messages
        self.write("inc/h.h", "#define X 3\n")
        self.write("x.c", '#include "h.h"\nint f(void) { return X; }\n')

    def write(self, name: str, text: str) -> None:
        (self.directory / name).write_text(text)
        time.sleep(_SETTLED_SECONDS)

    def begin(self, *argv: str) -> tuple[CompileRequest, Done | Exec | Run]:
        words = tuple(a.encode() for a in argv or _ARGV)
        request = CompileRequest(
            argv=(self.program, *words), compiler=self.program,
            cwd=windows(self.directory).encode(), env=self.env, umask=0, stderr_is_tty=False,
        )  # fmt: skip
        return request, self.handler.begin(request, lambda: False)

    def compile(self, *argv: str) -> bytes:
        """Compile as launcher and daemon do together; return the object."""
        (self.directory / "x.obj").unlink(missing_ok=True)
        time.sleep(_SETTLED_SECONDS)
        request, found = self.begin(*argv)
        if isinstance(found, Run):
            done = self.drive.run(found.argv, self.env, request.cwd)
            report = RunReport(done.exit_code, 0, done.stdout, done.stderr, is_truncated=False)
            self.handler.finish(request, found, report)
            assert done.exit_code == 0, done
        elif isinstance(found, Exec):
            return found.reason.encode()
        else:
            assert (found.exit_code, found.stdout) == (0, b"")
            self.said = found.stderr
        return (self.directory / "x.obj").read_bytes()

    def counted(self) -> dict[str, int]:
        """Return what was counted since the last time."""
        now = Counter(self.counters.snapshot())
        new, self._counted = now - self._counted, now
        outcomes = ("hit.", "miss.", "uncacheable.", "bypass.", "fallback.")
        return {name: n for name, n in new.items() if name.startswith(outcomes)}


@pytest.fixture
def bench(tmp_path: Path, programs: Path) -> Bench:
    return Bench(tmp_path, programs / "clang-cl")


def test_a_repeated_compile_asks_neither_the_farm_nor_a_compiler(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.compile()
    assert bench.counted() == {"miss.remote.executed": 1}
    ran: list[object] = []
    monkeypatch.setattr(LocalDrive, "run", lambda *argv: ran.append(argv))
    said = bench.said
    bench.said = b""
    assert bench.compile() == first
    assert bench.said == said == f"{windows(bench.directory)}\\x.c(1): warning: w\n".encode()
    assert bench.counted() == {"hit.remote": 1}
    assert not ran
    assert len(bench.remote.requests) == 1


def test_another_state_of_the_sources_is_asked_for_and_an_old_one_is_known(bench: Bench) -> None:
    first = bench.compile()
    bench.write("inc/h.h", "#define X 4\n")
    second = bench.compile()
    bench.write("first/h.h", "#define X 5\n")  # found before the other one
    third = bench.compile()
    (bench.directory / "first/h.h").unlink()
    assert len({first, second, third}) == len(bench.remote.requests) == 3
    assert bench.compile() == second
    bench.write("inc/h.h", "#define X 3\n")
    assert bench.compile() == first
    assert bench.counted() == {"miss.remote.executed": 3, "hit.remote": 2}


@pytest.mark.parametrize(
    "other",
    [
        replace(FARM, image="toolchain@sha256:" + "b" * 64),
        replace(FARM, tenant="other"),
        replace(FARM, isolation="hyperv/hyperv"),
    ],
)
def test_another_image_tenant_or_boundary_is_asked(bench: Bench, other: object) -> None:
    bench.compile()
    bench.remote.current = other  # type: ignore[assignment]  # a farm
    bench.compile()
    assert bench.counted() == {"miss.remote.executed": 2}


def test_a_result_counts_only_under_terms_that_its_basis_meets(bench: Bench) -> None:
    strict = replace(NO_TERMS, minimum_isolation=Isolation.HYPERV)
    weak = ResultBasis(isolation=Isolation.LOCAL_NONE, reuse=GuestReuse.EXEC)
    bench.remote.basis = weak.text
    bench.compile()
    bench.remote.said = replace(farm_session(), compilers=None, terms=strict)
    bench.remote.basis = replace(weak, isolation=Isolation.HYPERV).text
    bench.compile()
    bench.compile()
    assert bench.counted() == {"miss.remote.executed": 2, "hit.remote": 1}


def test_a_policy_that_refuses_the_image_refuses_its_stored_results(bench: Bench) -> None:
    bench.compile()
    clang = Toolchain(names=("clang-cl",), family="clang-cl", version="1.2.3", target="x64")
    bench.remote.said = farm_session(clang)
    bench.compile()
    assert bench.counted() == {"miss.remote.executed": 1, "fallback.parity": 1, "miss.local": 1}


def test_results_of_the_farm_and_of_this_machine_do_not_mix(bench: Bench) -> None:
    of_farm = bench.compile()
    bench.has_farm = False
    here = bench.compile()
    assert here != of_farm
    assert bench.counted() == {"miss.remote.executed": 1, "miss.local": 1}
    bench.has_farm = True
    assert bench.compile() == of_farm
    bench.has_farm = False
    assert bench.compile() == here
    assert bench.counted() == {"hit.remote": 1, "hit.local": 1}


def test_what_the_farm_does_not_do_is_kept_here(bench: Bench) -> None:
    bench.remote.failure = RemoteFailure("no-worker", "none is there")
    here = bench.compile()
    assert bench.counted() == {"fallback.no-worker": 1, "miss.local": 1}
    assert bench.compile() == here
    assert bench.counted() == {"fallback.no-worker": 1, "hit.local": 1}


def test_a_command_that_is_not_for_the_cache_is_counted_once(bench: Bench) -> None:
    assert bench.compile("/E", "x.c") == b"preprocess-only"
    assert bench.counted() == {"bypass.preprocess-only": 1}


@pytest.mark.parametrize("name", ["inc/h.h", "x.c"])
def test_a_file_that_changed_while_the_farm_compiled_is_not_kept(bench: Bench, name: str) -> None:
    path = bench.directory / name
    text = path.read_text()
    bench.remote.meanwhile = lambda: path.write_text(text + "\n")
    bench.compile()
    assert bench.counted() == {
        "miss.remote.executed": 1, "uncacheable.modified-during-compile": 1,
    }  # fmt: skip
    bench.remote.meanwhile = lambda: None
    bench.compile()
    bench.write(name, text)
    bench.compile()
    assert len(bench.remote.requests) == 3


def test_a_header_that_appeared_while_the_farm_compiled_is_not_overlooked(bench: Bench) -> None:
    bench.remote.meanwhile = lambda: (bench.directory / "first/h.h").write_text("#define X 9\n")
    bench.compile()
    bench.remote.meanwhile = lambda: None
    bench.compile()
    assert len(bench.remote.requests) == 2


def test_a_link_in_place_of_the_object_is_not_written_through(bench: Bench, tmp_path: Path) -> None:
    bench.compile()
    (tmp_path / "mine").write_bytes(b"mine")
    (bench.directory / "x.obj").unlink()
    (bench.directory / "x.obj").symlink_to(tmp_path / "mine")
    assert isinstance(bench.begin()[1], Run)
    counted = bench.counted()
    assert counted["uncacheable.output-not-ours"] == 1
    assert counted["fallback.output-not-ours"] == 1
    assert (tmp_path / "mine").read_bytes() == b"mine"


@pytest.mark.parametrize("mode", ["-clang:-MD", "-clang:-MMD"])
def test_the_depfile_is_this_machines_and_comes_back_with_the_object(
    bench: Bench, mode: str
) -> None:
    named = mode, "-clang:-MTa b\\x.obj", "-clang:-MFx.obj.d"
    argv = (*_ARGV[:-1], *named, "--", _ARGV[-1])
    depfile = bench.directory / "x.obj.d"
    done = bench.drive.run(
        (bench.program, *(a.encode() for a in argv)), bench.env, windows(bench.directory).encode()
    )
    assert done.exit_code == 0, done
    expected = depfile.read_bytes()
    assert b"inc" in expected
    for counted in ({"miss.remote.executed": 1}, {"hit.remote": 1}):
        depfile.unlink()
        bench.compile(*argv)
        assert bench.counted() == counted
        assert depfile.read_bytes() == expected
    (request,) = bench.remote.requests
    assert not [word for word in request.argv if "clang:-M" in word]
    assert request.outputs == ("x.obj",)
    # Another target, or none, is another depfile of the same object.
    first = (bench.directory / "x.obj").read_bytes()
    assert bench.compile(*(a.replace("a b", "c") for a in argv)) == first
    assert depfile.read_bytes().startswith(b"c\\x.obj:")
    bench.compile(*_ARGV[:-1], mode, named[-1], "x.c")
    assert bench.counted() == {
        "miss.remote.executed": 1, "fallback.pass-through": 1, "miss.local": 1,
    }  # fmt: skip


def test_a_file_that_was_only_asked_for_is_an_input(bench: Bench) -> None:
    bench.write("inc/opt.h", "#define OPT 1\n")
    # In the guest, whose headers may differ, the second condition may hold.
    bench.write(
        "x.c",
        '#include "h.h"\n#if __has_include("opt.h") && defined(IN_THE_GUEST)\n#include "opt.h"\n#endif\n',
    )
    first = bench.compile()
    assert [i.path for i in bench.remote.requests[0].inputs] == ["inc/h.h", "inc/opt.h", "x.c"]
    assert bench.compile() == first
    bench.write("inc/opt.h", "#define OPT 2\n")
    assert bench.compile() != first
    assert bench.counted() == {"miss.remote.executed": 2, "hit.remote": 1}
    # clang lists it as well.
    bench.compile(*_ARGV[:-1], "-clang:-MD", "-clang:-MTx.obj", "-clang:-MFx.d", "x.c")
    assert b"opt.h" in (bench.directory / "x.d").read_bytes()


def test_a_refusal_of_the_farm_is_counted_once_and_fails_no_build(bench: Bench) -> None:
    bench.write("y.c", "int y;\n")
    bench.compile("/nologo", "/c", "/Iinc", "x.c", "y.c")
    assert bench.counted() == {"fallback.multiple-sources": 1, "miss.local": 2}
    assert bench.compile("/nologo", "/c", "/Yup.h", "/Fo", "x.c") == b"pch"
    assert bench.counted() == {"bypass.pch": 1}
