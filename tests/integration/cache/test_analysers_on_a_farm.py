"""clang-tidy and cppcheck on a farm: what a guest reports is what this machine would report."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from hpcc.cache.analysers.report import check_report
from hpcc.cache.base.api import Run
from hpcc.cache.cache import Cache
from hpcc.cache.host import host_toolchains
from hpcc.cache.host.host_toolchains import ask_compiler
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.compilers.tidy.family import TIDY as TIDY_FAMILY
from hpcc.config.settings import RemoteSettings, Settings
from hpcc.core import RemoteFailure, Toolchain
from hpcc_testkit.cache.compiles import (
    Compiled,
    FakeLauncher,
    PlacedRemote,
    counted,
    farm_session,
    run_bare,
)

TIDY = "clang-tidy-19"
pytestmark = [
    pytest.mark.skipif(
        shutil.which(TIDY) is None or shutil.which("cppcheck") is None,
        reason="tools/bootstrap.sh packages test installs clang-tidy and cppcheck",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="a directory at /src needs root"),
]
CHECKS = "Checks: '-*,modernize-use-nullptr,llvm-header-guard'\nHeaderFilterRegex: '.*'\n"
NULL = b"[modernize-use-nullptr]"
FILES = {
    ".clang-tidy": CHECKS,
    "src/a.cc": '#include "h.h"\nint *f(int c) {\n  int *p = 0;\n'
    "  int a[2] = {c};\n  static_assert(sizeof(__FILE__) > 1);\n"
    "  return c ? p : hh() + a[N];\n}\n",
    "src/c.cc": '#include "h.h"\nint f(int c) {\n  int a[2] = {c};\n  return a[N];\n}\n',
    "inc/h.h": "#define N 2\ninline int *hh() { return 0; }\n",
    "known.txt": "missingIncludeSystem\n",
}
CMAKE = (TIDY, "--extra-arg-before=--driver-mode=g++", "ROOT/src/a.cc", "--", "/usr/bin/c++",
         "-IROOT/inc", "-std=c++17", "-o", "x.o", "-c", "ROOT/src/a.cc")  # fmt: skip
CPPCHECK = ("cppcheck", "--enable=warning,information", "-DX=1", "-IROOT/early", "-IROOT/inc",
            "ROOT/src/c.cc")  # fmt: skip
Same = Callable[..., Compiled]


@functools.cache
def _asked(
    compiler: bytes, called: bytes, path: bytes
) -> tuple[host_toolchains.HostToolchain, frozenset[str]]:
    return ask_compiler(compiler, called, path)


@pytest.fixture(autouse=True)
def asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask each tool for all tests together: it takes longer than most of them."""
    monkeypatch.setattr(host_toolchains, "ask_compiler", lambda *words: _asked(*words[:3]))


def _own(program: str) -> Toolchain:
    path = os.fsencode(shutil.which(program) or "")
    found = _asked(path, os.fsencode(program), b"/usr/local/bin:/usr/bin:/bin")[0].toolchain
    assert found is not None
    return found


@pytest.fixture(scope="module")
def tools() -> tuple[Toolchain, ...]:
    return _own(TIDY), _own("cppcheck")


@pytest.fixture
def remote(tools: tuple[Toolchain, ...]) -> PlacedRemote:
    remote = PlacedRemote()
    remote.said = farm_session(*tools)
    return remote


@pytest.fixture
def cache(make_cache: Callable[..., Cache], remote: PlacedRemote) -> Cache:
    return make_cache(remote)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", root], check=True)
    (root / "build").mkdir()
    return root


@pytest.fixture
def launcher(cache: Cache, root: Path) -> FakeLauncher:
    return FakeLauncher(handler=cache, cwd=root / "build")


@pytest.fixture
def same(launcher: FakeLauncher, root: Path) -> Same:
    """Return a call that runs bare and through the cache: both must print the same."""

    def run(*argv: str) -> Compiled:
        words = [word.replace("ROOT", str(root)) for word in argv]
        bare = run_bare(words, cwd=launcher.cwd)
        ours = launcher.compile(*words)
        assert (ours.exit_code, ours.stdout, ours.stderr) == bare
        return ours

    return run


def test_a_report_comes_from_the_farm_and_is_kept(
    same: Same, remote: PlacedRemote, cache: Cache, root: Path
) -> None:
    (root / "src/a.cc").write_text("#include <vector>\n" + FILES["src/a.cc"])
    for argv, finding in ((CMAKE, NULL), (CPPCHECK, b"[arrayIndexOutOfBounds]")):
        first = same(*argv)
        assert finding in first.stdout + first.stderr
        assert str(root).encode() in first.stdout + first.stderr
        assert (first.answer, same(*argv).answer) == ("done", "done")
    assert counted(cache, "miss.remote.executed", "hit.remote") == (2, 2)
    tidy, cppcheck = remote.requests
    inside = str(root)[1:]
    assert {i.path for i in tidy.inputs} == {
        f"{inside}/{name}" for name in (".clang-tidy", "src/a.cc", "inc/h.h")
    }
    assert {i.path for i in cppcheck.inputs} == {f"{inside}/{n}" for n in ("src/c.cc", "inc/h.h")}
    assert (tidy.needs_exact, tidy.outputs, cppcheck.outputs) == (True, (), ())


def test_each_input_of_a_report_is_one_of_the_action(
    same: Same, cache: Cache, root: Path, launcher: FakeLauncher
) -> None:
    assert same(*CMAKE).answer == "done"
    edits = {
        "src/a.cc": FILES["src/a.cc"].replace("0;\n  int a", "0; // NOLINT\n  int a"),
        "inc/h.h": "#define N 1\ninline int *hh() { return 0; }  // another one\n",
        "inc/.clang-tidy": "Checks: '-*'\n",
        "src/.clang-tidy": "InheritParentConfig: true\nChecks: readability-braces-around-statements\n",
        "src/h.h": "#define N 0\nint *hh();\n",
    }  # fmt: skip
    for number, (name, text) in enumerate(edits.items(), 2):
        (root / name).write_text(text)
        assert same(*CMAKE).answer == "done", name
        assert counted(cache, "miss.remote.executed") == (number,), name
    launcher.cwd = root  # relative names, and a filter that holds the root's own name
    relative = (
        TIDY,
        f"--header-filter={root.name}/inc/.*",
        "src/a.cc",
        "--",
        "-Iinc",
        "-std=c++17",
    )
    assert same(*relative).answer == "done"
    (root / "own.yml").write_text("Checks: '-*,modernize-use-nullptr'\n")
    named = (TIDY, "--config-file=own.yml", "--quiet", *relative[1:], "-DX=/src")
    assert same(*named).answer == "done"
    lists = ("--suppressions-list=known.txt", "--library=own", "--inline-suppr", "-I", "none")
    cppcheck = ("cppcheck", "--enable=all", *lists, "-Iinc", "src/a.cc")
    (root / "own.cfg").write_text('<?xml version="1.0"?>\n<def format="2"></def>\n')
    assert same(*cppcheck).answer == "done"
    (root / "none").mkdir()
    assert same(*cppcheck).answer == "done"
    assert counted(cache, "miss.remote.executed") == (len(edits) + 5,)
    assert not [name for name in cache.counters() if name.startswith("fallback")]


def test_a_compile_command_of_a_database_travels(
    same: Same, cache: Cache, root: Path, launcher: FakeLauncher, remote: PlacedRemote
) -> None:
    def entry(name: str, *flags: str) -> dict[str, object]:
        words = ["/usr/bin/c++", "-I../inc", "-std=c++17", *flags, "-o", "x.o", "-c", name]
        return {"directory": f"{root}/build", "command": " ".join(words), "file": name}

    source = f"{root}/src/a.cc"
    whole = [entry(f"{root}/src/b.cc"), entry(source, "-DWHY=1")]
    (root / "build/compile_commands.json").write_text(json.dumps(whole))
    absolute = same(TIDY, "-p", "ROOT/build", "--extra-arg=-DX", "ROOT/src/a.cc")
    assert (absolute.answer, NULL in absolute.stdout) == ("done", True)
    launcher.cwd = root
    assert same(TIDY, "-p=build", "--quiet", "src/a.cc").answer == "done"
    assert counted(cache, "miss.remote.executed") == (2,)
    # An edit of another entry is none of this source's.
    whole[0] = entry(f"{root}/src/b.cc", "-O2")
    (root / "build/compile_commands.json").write_text(json.dumps(whole))
    assert same(TIDY, "-p=build", "--quiet", "src/a.cc").answer == "done"
    whole[1] = entry(source, "-DWHY=2")
    (root / "build/compile_commands.json").write_text(json.dumps(whole))
    assert same(TIDY, "-p=build", "--quiet", "src/a.cc").answer == "done"
    assert counted(cache, "miss.remote.executed", "hit.remote") == (3, 1)
    # Headers are looked for beside such a compiler.
    whole[1] = {**entry(source), "command": f"/usr/local/bin/c++ -I../inc -c {source}"}
    (root / "build/compile_commands.json").write_text(json.dumps(whole))
    assert same(TIDY, "-p=build", "--quiet", "src/a.cc").answer == "run"
    assert counted(cache, "fallback.analyser") == (1,)
    whole[1] = entry(source)
    (root / "build/compile_commands.json").write_text(json.dumps(whole))
    launcher.cwd = root.parent  # the working directory is none of the project's
    assert same(TIDY, "-p", "ROOT/build", "ROOT/src/a.cc").answer == "run"
    assert counted(cache, "fallback.outside-root") == (1,)


def _wrote(name: str, text: str) -> Callable[[Path], object]:
    return lambda root: (root / name).write_text(text)


def _linked(root: Path) -> None:
    (root / "inc").rename(root / "real")
    (root / "inc").symlink_to("real")


STAYS: dict[str, tuple[str, tuple[str, ...], Callable[[Path], object]]] = {
    "a filter that /src matches": ("analyser", ("--header-filter=src/.*", *CMAKE[1:]), str),
    "lines": ("analyser", ('--line-filter=[{"name":"a.cc"}]', *CMAKE[1:]), str),
    "fixes": ("analyser", ("--export-fixes=x.yml", *CMAKE[1:]), str),
    "such a filter in a file": (
        "analyser", CMAKE[1:], _wrote("inc/.clang-tidy", "HeaderFilterRegex: src/.*\n")),
    "a file's option": (
        "analyser", CMAKE[1:],
        _wrote(".clang-tidy", "CheckOptions: {misc-include-cleaner.IgnoreHeaders: x}\n")),
    "a link": ("analyser", CMAKE[1:], _linked),
    "a settings file above": ("outside-root", CMAKE[1:], _wrote("../.clang-tidy", CHECKS)),
    "the guest's own name": (
        "analyser", CMAKE[1:],
        lambda root: (root / "inc/h.h").write_text(f'#define N 1\n// "/src{root}"\n')),
    "a clock": ("analyser", CMAKE[1:], _wrote("inc/h.h", "const char *N = __TIME__;\n")),
    "more flags": (
        "analyser-config", CMAKE[1:], _wrote(".clang-tidy", "ExtraArgs: ['-DX']\n")),
    "a suppressed file": ("analyser", ("--suppress=x:*/h.h", *CPPCHECK[1:]), str),
    "a list of them": (
        "analyser", ("--suppressions-list=ROOT/l.txt", *CPPCHECK[1:]), _wrote("l.txt", "x:h.h\n")),
    "a directory elsewhere": ("outside-root", ("-I/usr/include", *CPPCHECK[1:]), str),
    "a name elsewhere": (
        "outside-root", CPPCHECK[1:], _wrote("inc/h.h", '#include "/usr/none/x.h"\n#define N 1\n')),
    "an absolute name": (
        "analyser", CPPCHECK[1:],
        lambda root: (root / "inc/h.h").write_text(f'#include "{root}/known.txt"\n#define N 1\n')),
    "a way above everything": (
        "analyser", CPPCHECK[1:],
        lambda root: (root / "inc/h.h").write_text(f'#include "{"../" * 40}{root}/known.txt"\n')),
    "its own name": ("analyser", CPPCHECK[1:], _wrote("inc/h.h", "#define N sizeof(__FILE__)\n")),
    "a style above": ("outside-root", CMAKE[1:], _wrote("../.clang-format", "IndentWidth: 4\n")),
}  # fmt: skip


@pytest.mark.parametrize("case", STAYS)
def test_what_a_guest_could_judge_otherwise_stays_here(
    case: str, launcher: FakeLauncher, cache: Cache, root: Path, remote: PlacedRemote
) -> None:
    reason, words, change = STAYS[case]
    change(root)
    program = TIDY if "--" in words else "cppcheck"
    request = launcher.request([program, *(word.replace("ROOT", str(root)) for word in words)])
    answer = cache.begin(request, lambda: False)
    assert isinstance(answer, Run)
    cache.abandon(request, answer)
    assert counted(cache, f"fallback.{reason}", "miss.remote.executed") == (1, 0)
    assert remote.requests == []


def test_a_report_that_shows_the_guest_is_made_here(
    same: Same, cache: Cache, root: Path, launcher: FakeLauncher
) -> None:
    (root / "inc/h.h").write_text("#ifndef X\n#define X\n#define N 1\nint *hh();\n#endif\n")
    assert re.sub(r"\W", "_", f"{root}/inc/h.h").upper().strip("_").encode() in same(*CMAKE).stdout
    (root / ".clang-tidy").write_text("Checks: '-*,google-readability-todo'\n")
    (root / "inc/h.h").write_text("#define N 1\nint *hh(); // TODO: now\n")
    (root / "src/a.cc").write_text("int x; // TODO: later\n")
    same(*CMAKE, "-DY")  # another command: a refusal is remembered for a while
    assert counted(cache, "fallback.names-in-output", "fallback.analyser") == (1, 1)
    (root / "sub").mkdir()
    (root / "sub/here").symlink_to(root / "build")
    launcher.env, launcher.cwd = {"PWD": str(root / "sub/here")}, root / "build"
    launcher.compile(*(word.replace("ROOT", str(root)) for word in CMAKE))
    assert counted(cache, "fallback.directory-spelling") == (1,)


def test_colours_hide_no_finding_elsewhere() -> None:
    prepared = SimpleNamespace(family=TIDY_FAMILY)
    guest = GuestMap(b"/var/p", b"/var/p", lambda _: False, b"/var/p", b"/src/var/p")
    check_report(prepared, guest, b"\x1b[1m/var/p/a.cc:1:2: \x1b[0m\x1b[0;1;35mwarning: \x1b[0mx\n")
    with pytest.raises(NotPortableError, match="analyser"):
        check_report(
            prepared, guest, b"\x1b[1m/usr/x/a.h:1:2: \x1b[0m\x1b[0;1;35mwarning: \x1b[0mx\n"
        )


def test_a_root_that_xml_writes_otherwise_stays_here(
    same: Same, cache: Cache, root: Path, launcher: FakeLauncher
) -> None:
    launcher.cwd = root.rename(root.with_name("R&D"))
    words = [word.replace("ROOT", str(launcher.cwd)) for word in CPPCHECK]
    assert b"R&amp;D" in same(*words, "--xml").stderr
    assert counted(cache, "fallback.analyser") == (1,)


def test_a_style_is_an_input(same: Same, cache: Cache, root: Path) -> None:
    once = "#pragma once\n"
    for name, text in {
        "inc/m.h": f'{once}#include "y.h"\n', "inc/y.h": f"{once}int y();\n", "inc/z.h": once,
        "src/a.cc": '#include "m.h"\n#include "z.h"\nint g() { return y(); }\n',
        ".clang-tidy": "Checks: '-*,misc-include-cleaner'\n",
    }.items():  # fmt: skip
        (root / name).write_text(text)
    before = same(*CMAKE)
    (root / ".clang-format").write_text("IncludeCategories: [{Regex: y, Priority: -5}]\n")
    after = same(*CMAKE)
    assert before.stdout != after.stdout
    assert (before.answer, after.answer) == ("done", "done")
    assert counted(cache, "miss.remote.executed") == (2,)


@pytest.mark.parametrize("kind", ["other headers", "other directories", "no tool", "unknown"])
def test_an_image_without_the_same_tool_gets_no_run(
    kind: str, remote: PlacedRemote, tools: tuple[Toolchain, ...], launcher: FakeLauncher,
    cache: Cache, root: Path,
) -> None:  # fmt: skip
    tidy = tools[0]
    ((name, digest),) = tidy.headers
    image = {
        "other headers": (replace(tidy, headers=((name, "0" * 64),)),),
        "other directories": (replace(tidy, headers=(("elsewhere", digest),)),),
        "no tool": (replace(tidy, names=("clang-tidy-18",)),),
        "unknown": None,
    }[kind]
    remote.said = replace(farm_session(), compilers=image)
    request = launcher.request([word.replace("ROOT", str(root)) for word in CMAKE])
    answer = cache.begin(request, lambda: False)
    assert isinstance(answer, Run)
    cache.abandon(request, answer)
    assert counted(cache, "fallback.not-in-image", "fallback.parity") == (1, 0)
    assert remote.requests == []


def test_before_a_login_the_dispatcher_decides(
    remote: PlacedRemote, same: Same, cache: Cache
) -> None:
    remote.said = None
    remote.failure = RemoteFailure("not-in-image", "no such tool")
    assert same(*CPPCHECK).answer == "run"
    (request,) = remote.requests
    assert request.needs_exact
    assert request.toolchain
    assert counted(cache, "fallback.not-in-image") == (1,)


def test_where_no_compile_may_fall_back_an_analyser_runs_here(
    remote: PlacedRemote, make_cache: Callable[..., Cache], launcher: FakeLauncher, root: Path
) -> None:
    settings = Settings(remote=RemoteSettings(fallback="never"))
    cache = make_cache(remote, settings)
    request = launcher.request([word.replace("ROOT", str(root)) for word in CPPCHECK])
    answer = cache.begin(request, lambda: False)
    assert isinstance(answer, Run)
    cache.abandon(request, answer)
    assert not [name for name in cache.counters() if name.startswith("fallback")]
    assert remote.requests == []
