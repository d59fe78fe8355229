"""nvcc: one command is one cached action, with the headers of all its preprocessor runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from hpcc.cache.cache import Cache
from hpcc.cache.key.prepare import Prepared
from hpcc.compilers.spec.table import Bypass
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare
from hpcc_testkit.cache.cxx_projects import without_process_ids
from hpcc_testkit.suite.nvcc import linked_toolkit, toolkit

SOURCE = """#include "k.h"
#ifdef __CUDA_ARCH__
#if __CUDA_ARCH__ >= 900
#include "a90.h"
#else
#include "a80.h"
#endif
#else
#include "host.h"
#endif
__global__ void k(int *p) { p[threadIdx.x] = F; }
int run(int *p) { k<<<1, 32>>>(p); return 0; }
"""
TWO = tuple(f"-gencode=arch=compute_{n},code=sm_{n}" for n in (80, 90))


@pytest.fixture
def nvcc() -> str:
    return str(toolkit() / "bin/nvcc")


@pytest.fixture
def launcher(project: Any, make_cache: Any) -> FakeLauncher:
    project.write("x.cu", SOURCE)
    project.write("inc/k.h", "#define F 7\n")
    for name in ("a80", "a90", "host"):
        project.write(f"inc/{name}.h", f"#define Z_{name}\n")
    project.write("early/keep", "")
    project.settle()
    return FakeLauncher(handler=make_cache(), cwd=project.directory)


def _prepared(launcher: FakeLauncher, *argv: str) -> Prepared | Bypass:
    assert isinstance(launcher.handler, Cache)
    classifier = launcher.handler._classifier
    found = classifier.prepare(launcher.request(argv), lambda: False)
    assert isinstance(found, Prepared | Bypass)
    return found


def _key(launcher: FakeLauncher, *argv: str) -> bytes:
    found = _prepared(launcher, *argv)
    assert isinstance(found, Prepared), found
    return found.key


def _reason(launcher: FakeLauncher, *argv: str) -> str:
    found = _prepared(launcher, *argv)
    return found.reason if isinstance(found, Bypass) else ""


def _compile(launcher: FakeLauncher, *argv: str) -> tuple[str, bytes]:
    """Compile without an old output; return the answer and the object."""
    output = launcher.cwd / argv[-1]
    output.unlink(missing_ok=True)
    done = launcher.compile(*argv)
    assert done.exit_code == 0, done.stderr
    return done.answer, output.read_bytes()


def test_headers_of_host_and_device_count(launcher: FakeLauncher, project: Any, nvcc: str) -> None:
    argv = (nvcc, "-Iearly", "-Iinc", "-arch=sm_80", "-MD", "-MF", "x.d", "-c", "x.cu", "-o", "x.o")
    depfile = project.directory / "x.d"
    answer, made = _compile(launcher, *argv)
    assert answer == "run"
    listed = depfile.read_bytes()
    depfile.unlink()
    assert _compile(launcher, *argv) == ("done", made)
    assert depfile.read_bytes() == listed
    for name in ("host", "a80"):
        project.write(f"inc/{name}.h", "#define OTHER\n")
        project.settle()
        assert _compile(launcher, *argv)[0] == "run", name
    assert _compile(launcher, *argv)[0] == "done"
    project.write("inc/a90.h", "#error\n")  # not read
    assert _compile(launcher, *argv)[0] == "done"
    # What only the second run of the host compiler reads, and no depfile names.
    path = project.write("early/fatbinary_section.h", "#error\n")
    (project.directory / "x.o").unlink()
    assert launcher.compile(*argv).exit_code != 0
    path.unlink()
    assert _compile(launcher, *argv)[0] == "done"


@pytest.mark.nightly
def test_each_header_of_each_pass_counts(launcher: FakeLauncher, project: Any, nvcc: str) -> None:
    argv = (nvcc, "-Iearly", "-Iinc", *TWO, "-rdc=true", "-lineinfo", "-c", "x.cu", "-o", "x.o")
    answer, made = _compile(launcher, *argv)
    assert answer == "run"
    assert _compile(launcher, *argv) == ("done", made)
    for name in ("host", "a80", "a90"):
        project.write(f"inc/{name}.h", "#define OTHER\n")
        project.settle()
        assert _compile(launcher, *argv)[0] == "run", name
        assert _compile(launcher, *argv)[0] == "done", name
    for name in ("k.h", "crt/host_runtime.h", "cuda_runtime.h", "crt/func_macro.h"):
        path = project.write(f"early/{name}", "#error\n")
        project.settle()
        (project.directory / "x.o").unlink()
        assert launcher.compile(*argv).exit_code != 0, name
        path.unlink()
        if path.parent.name == "crt":
            path.parent.rmdir()
        assert _compile(launcher, *argv)[0] == "done", name


@pytest.mark.parametrize("mode", ["-ptx", "-cubin", "-fatbin", "-dc"])
@pytest.mark.nightly
def test_other_products(launcher: FakeLauncher, project: Any, nvcc: str, mode: str) -> None:
    argv = (nvcc, "-Iinc", "-arch=sm_80", mode, "x.cu", "-o", "made")
    answer, made = _compile(launcher, *argv)
    assert answer == "run"
    assert _compile(launcher, *argv) == ("done", made)
    project.write("inc/a80.h", "#define OTHER\n")
    project.settle()
    assert _compile(launcher, *argv)[0] == "run"


def test_what_is_in_the_key(
    launcher: FakeLauncher, project: Any, nvcc: str, tmp_path: Path
) -> None:
    argv = ("-c", "x.cu", "-o", "x.o")
    plain = _key(launcher, nvcc, *argv)
    assert _key(launcher, nvcc, *argv) == plain
    keys = {plain, _key(launcher, nvcc, "-ccbin", "g++-14", *argv)}
    for env in (
        {"NVCC_CCBIN": "g++-14"},
        {"NVCC_PREPEND_FLAGS": "-DX=1"},
        {"NVCC_APPEND_FLAGS": "-DX=1"},
        {"NVCC_APPEND_FLAGS": "-O0"},
    ):
        launcher.env = env
        keys.add(_key(launcher, nvcc, *argv))
    assert len(keys) == 6
    launcher.env = {"TMPDIR": str(tmp_path)}
    assert _key(launcher, nvcc, *argv) == plain
    # Another gcc is found first.
    first = tmp_path / "bin"
    first.mkdir()
    (first / "gcc").symlink_to(shutil.which("gcc-14") or "")
    launcher.env = {"PATH": f"{first}:/usr/bin:/bin"}
    assert _key(launcher, nvcc, *argv) not in keys
    (first / "gcc").unlink()
    assert _key(launcher, nvcc, *argv) == plain
    launcher.env = {}
    # A response file counts by its content.
    project.write("a.rsp", "-Iinc\n-DA=1\n")
    named = _key(launcher, nvcc, "--options-file", "a.rsp", *argv)
    project.write("a.rsp", "-Iinc\n-DA=2\n")
    assert _key(launcher, nvcc, "--options-file", "a.rsp", *argv) != named


def test_the_files_of_the_toolkit_count(
    launcher: FakeLauncher, project: Any, tmp_path: Path
) -> None:
    home = linked_toolkit(tmp_path / "cuda")
    nvcc, profile = str(home / "bin/nvcc"), home / "bin/nvcc.profile"
    argv, text = ("-c", "x.cu", "-o", "x.o"), profile.read_text()
    keys = {_key(launcher, nvcc, *argv)}
    profile.write_text(text + "\n# a comment\n")
    keys.add(_key(launcher, nvcc, *argv))
    (home / "more").mkdir()
    profile.write_text(text + '\nINCLUDES += "-I$(TOP)/more" $(_SPACE_)\n')
    prepared = _prepared(launcher, nvcc, *argv)
    assert isinstance(prepared, Prepared)
    keys.add(prepared.key)
    for name in ("ptxas", "cudafe++", "fatbinary"):
        program = home / "bin" / name
        content = program.read_bytes()
        program.unlink()
        program.write_bytes(content + b"\0")
        program.chmod(0o755)
        keys.add(_key(launcher, nvcc, *argv))
    real = (home / "nvvm").resolve()
    (home / "nvvm").unlink()
    shutil.copytree(real, home / "nvvm", copy_function=lambda a, b: Path(b).symlink_to(a))
    library = home / "nvvm/libdevice/libdevice.10.bc"
    library.unlink()
    library.write_bytes(b"other")
    keys.add(_key(launcher, nvcc, *argv))
    assert len(keys) == 7
    for bad in ("CUDAFE_FLAGS += --x", "PATH += $(HOME)/bin:", "TOP += x", "compiler-bindir = /x",
                "INCLUDES += `id`", "NVCC_APPEND_FLAGS = -DX"):  # fmt: skip
        profile.write_text(f"{text}\n{bad}\n")
        assert _reason(launcher, nvcc, *argv) == "config-file", bad
    profile.write_text(text + '\nINCLUDES += "-DX=1" $(_SPACE_)\n')
    assert _reason(launcher, nvcc, *argv) == "nvcc-host"
    profile.unlink()
    assert _reason(launcher, nvcc, *argv) == "compiler-unreadable"


def test_what_is_refused(launcher: FakeLauncher, project: Any, nvcc: str, tmp_path: Path) -> None:
    argv = (nvcc, "-c", "x.cu", "-o", "x.o")
    for name in (
        "CUDAFE_FLAGS", "PTXAS_FLAGS", "OCG_FLAGS", "NVVM_FLAGS", "INCLUDES", "SYSTEM_INCLUDES",
        "CICC_PATH", "NVVMCCWIZ", "EDG_BASE", "compiler-bindir", "BASH_FUNC_gcc%%",
    ):  # fmt: skip
        launcher.env = {name: "/x"}
        assert _reason(launcher, *argv) == "environment", name
    for value in ("$(id)", "-DX='1'", "-optf x", "--keep", "-DX=1;id"):
        launcher.env = {"NVCC_APPEND_FLAGS": value}
        assert _reason(launcher, *argv) == "nvcc-option", value
    for env in ({"NVCC_CCBIN": "x y"}, {"NVCC_CCBIN": "./bin"}, {"TMPDIR": "/tmp/$(id)"},
                {"NVCC_CCBIN": "clang++-19"}):  # fmt: skip
        launcher.env = env
        assert _reason(launcher, *argv) == "nvcc-host", env
    launcher.env = {}
    # GCC reads generated code in the directory of temporary files, and looks there first.
    launcher.env = {"TMPDIR": str(tmp_path)}
    for name in ("crt/host_runtime.h", "fatbinary_section.h"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        assert _reason(launcher, *argv) == "nvcc-host", name
        (tmp_path / name).unlink()
    launcher.env = {}
    # A directory of the name of a program takes its place.
    assert _reason(launcher, *argv[:1], "-ccbin", "g++-14", *argv[1:]) == ""
    project.write("g++-14/x", "")
    assert _reason(launcher, *argv[:1], "-ccbin", "g++-14", *argv[1:]) == "nvcc-host"
    odd = tmp_path / "a$(id)"
    odd.mkdir()
    launcher.cwd = odd
    assert _reason(launcher, *argv) == "nvcc-host"


def test_clocks_and_assembler_are_settled(launcher: FakeLauncher, project: Any, nvcc: str) -> None:
    kernel = "__global__ void k(int *p) { *p = 1; }\n"
    argv = (nvcc, "-arch=sm_80", "-c", "x.cu", "-o", "x.o")

    def outcome(text: str) -> str:
        project.write("x.cu", text + kernel)
        project.settle()
        before = launcher.handler.counters()
        _compile(launcher, *argv)
        after = launcher.handler.counters()
        changed = [name for name in after if after[name] != before.get(name, 0)]
        return next((name for name in changed if name.startswith("uncacheable.")), "")

    assert outcome("const char *day = __DATE__;\n") == "uncacheable.date-time"
    # Only the device's code would hold it.
    device = "__device__ int t() {\n#ifdef __CUDA_ARCH__\nreturn __TIME__[0];\n#endif\n}\n"
    assert outcome(device) == "uncacheable.date-time"
    project.write("data.txt", "data")
    embedding = 'asm(".incbin \\"data.txt\\"");\n'
    assert outcome(embedding) == ""
    assert _compile(launcher, *argv)[0] == "done"
    project.write("data.txt", "more")
    project.settle()
    answer, made = _compile(launcher, *argv)
    assert answer == "run"
    assert b"more" in made
    # nvcc lists it as a/b.h.
    project.write("a/b.h", "")
    odd = project.write("a\\b.h", "")
    assert outcome('#include "a\\b.h"\n') == "uncacheable.depfile"
    odd.unlink()
    assert outcome("#ifdef NEVER\nconst char *day = __DATE__;\n#endif\n") == ""


@pytest.mark.parametrize(
    ("name", "listed"), [(r"a\b.h", "a/b.h"), ("a$$b.h", "a$b.h"), ("a\tb.h", "a"), ('a"b.h', "a")]
)
def test_a_file_that_nvcc_lists_under_another_name_is_not_missed(
    launcher: FakeLauncher, project: Any, nvcc: str, name: str, listed: str
) -> None:
    argv = (nvcc, "-I.", "-arch=sm_80", "-ptx", "x.cu", "-o", "made")
    project.write("x.cu", f"#include <{name}>\n__global__ void k(int *p) {{ *p = F; }}\n")
    project.write("b.h", "")
    for file in (listed, name):
        project.write(file, "#define F 7\n")
    project.settle()
    _, made = _compile(launcher, *argv)
    project.write(name, "#define F 8\n")
    project.settle()
    answer, other = _compile(launcher, *argv)
    assert answer == "run"
    assert other != made


def test_where_a_link_on_the_way_to_the_source_leads_is_an_input(
    launcher: FakeLauncher, project: Any, nvcc: str
) -> None:
    text = "namespace { __global__ void k() {} }\nvoid run() { k<<<1, 1>>>(); }\n"
    for place in ("one", "two"):
        project.write(f"{place}/a.cu", text)
    link = launcher.cwd / "link"
    bare, ours = [], []
    for place in ("one", "two", "one"):
        link.unlink(missing_ok=True)
        link.symlink_to(place)
        project.settle()
        argv = (nvcc, "-arch=sm_80", "-c", "link/a.cu", "-o", "a.o")
        code, *_ = run_bare(argv, cwd=launcher.cwd, env=launcher.env)
        assert code == 0
        bare.append(without_process_ids((launcher.cwd / "a.o").read_bytes()))
        answer, made = _compile(launcher, *argv)
        ours.append((answer, without_process_ids(made)))
    assert bare[0] != bare[1]  # symbols hold a hash of the source's real path
    assert ours == list(zip(("run", "run", "done"), bare, strict=True))


@pytest.mark.parametrize("moved", ["dir", "dir/a.cu"])
def test_what_becomes_a_link_later_is_an_input(
    launcher: FakeLauncher, project: Any, nvcc: str, moved: str
) -> None:
    project.write(
        "dir/a.cu", "namespace { __global__ void k() {} }\nvoid run() { k<<<1, 1>>>(); }\n"
    )
    argv = (nvcc, "-arch=sm_80", "-c", "dir/a.cu", "-o", "a.o")
    project.settle()
    answer, first = _compile(launcher, *argv)
    assert answer == "run"
    place = launcher.cwd / moved
    place.rename(place.with_name("other.cu"))
    place.symlink_to("other.cu")
    project.settle()
    answer, second = _compile(launcher, *argv)
    assert answer == "run"
    assert run_bare(argv, cwd=launcher.cwd, env=launcher.env)[0] == 0
    bare = without_process_ids((launcher.cwd / "a.o").read_bytes())
    assert without_process_ids(second) == bare != without_process_ids(first)
