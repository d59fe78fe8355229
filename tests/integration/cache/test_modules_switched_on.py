"""GCC 14 with modules switched on, as CMake does for every C++20 source.

Each hazard is shown with the real compiler: what it writes or reads besides headers, and what
replaces a header from one compile to the next.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hpcc.cache.base.api import Run
from hpcc.cache.cache import Cache, open_cache
from hpcc.cache.results.pending import Pending
from hpcc.cache.results.records_read import read_records
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.clocks import TrustedClock
from hpcc_testkit.cache.compiles import Compiled, FakeLauncher, FakeRemote, run_bare

GCC = "g++-14"
STANDARD = "-std=gnu++20"
MAP = "CMakeFiles/a.cpp.o.modmap"
OUTPUTS = ("CMakeFiles/a.cpp.o", "CMakeFiles/a.cpp.o.d", "CMakeFiles/a.cpp.ddi")
LISTING = "-fdeps-format=p1689r5"
MAP_DIGEST = hashlib.sha256(b"$root .\n").digest()
SOURCE = '#include "h.h"\nint main() { return h() + EXTRA; }\n'
# GCC asks for the header by both names, and the depfile has only the first.
TWICE = '#include "h.h"\n#include "sub/../h.h"\nint main() { return h(); }\n'
HEADER = "#pragma once\n#define EXTRA 1\ninline int h() { return EXTRA; }\n"


def command(source: str = "../src/a.cpp", *more: str, mapper: str = MAP) -> tuple[str, ...]:
    """Return what CMake 3.31 passes to GCC 14, in its order."""
    named = (f"-fmodule-mapper={mapper}",) if mapper else ()
    depfile = ("-MD", "-MT", OUTPUTS[0], "-MF", OUTPUTS[1])
    modules = ("-fmodules-ts", *named, LISTING, "-x", "c++")
    return (GCC, "-O1", STANDARD, *more, *depfile, *modules, "-o", OUTPUTS[0], "-c", source)


def plant(root: Path) -> Path:
    """Write a project, and return its build directory."""
    build = root / "build"
    for name, text in {
        "src/a.cpp": SOURCE,
        "src/h.h": HEADER,
        "src/sub/x.h": "",
        f"build/{MAP}": "$root .\n",
        ".hpcc": "",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return build


@pytest.fixture
def make(paths: Paths) -> Iterator[Callable[..., Cache]]:
    """Open caches whose clock believes the tests' file system: the tests wait for nothing."""
    opened: list[Cache] = []

    def one(remote: FakeRemote | None = None) -> Cache:
        opened.append(open_cache(paths, Settings(), remote, clock=TrustedClock()))
        return opened[-1]

    yield one
    for cache in opened:
        cache.close()


@pytest.fixture
def cache(make: Callable[..., Cache]) -> Cache:
    return make()


@pytest.fixture
def build(tmp_path: Path) -> Path:
    return plant(tmp_path / "first" / "project")


@pytest.fixture
def there(cache: Cache, build: Path) -> FakeLauncher:
    return FakeLauncher(handler=cache, cwd=build)


@pytest.fixture
def elsewhere(cache: Cache) -> Iterator[FakeLauncher]:
    """A clone whose path begins with another directory, so that its header units are elsewhere."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="hpcc-") as name:
        yield FakeLauncher(handler=cache, cwd=plant(Path(name) / "project"))


def outputs(build: Path) -> dict[str, bytes]:
    return {name: (build / name).read_bytes() for name in OUTPUTS if (build / name).exists()}


def compile_bare(build: Path, argv: tuple[str, ...]) -> dict[str, bytes]:
    """Return the outputs of a compile without hpcc, which are then removed."""
    code, _, err = run_bare(argv, cwd=build)
    assert code == 0, err
    found = outputs(build)
    for name in found:
        (build / name).unlink()
    return found


def compiled(launcher: FakeLauncher, argv: tuple[str, ...]) -> str:
    """Compile, compare the object with that of a compile without hpcc, and return the answer."""
    ended = launcher.compile(*argv)
    assert ended.exit_code == 0, ended.stderr
    made = outputs(launcher.cwd)
    code, _, err = run_bare(argv, cwd=launcher.cwd)
    assert code == 0, err
    assert made == outputs(launcher.cwd)
    return ended.answer


def make_unit(build: Path, header: str, root: str = "") -> None:
    """Compile a header unit, and put it where the compile of a source would find it."""
    argv = (GCC, STANDARD, "-fmodules-ts", "-fmodule-header", "-x", "c++-header", header)
    code, _, err = run_bare(argv, cwd=build)
    assert code == 0, err
    if root:  # a map decides where header units are found, not where they are written
        shutil.copytree(build / "gcm.cache", build / root, dirs_exist_ok=True)
        shutil.rmtree(build / "gcm.cache")


def counted(cache: Cache, kind: str) -> dict[str, int]:
    return {k: v for k, v in cache.counters().items() if k.startswith(f"{kind}.") and v}


def test_a_unit_without_modules_hits_with_all_that_gcc_writes(
    there: FakeLauncher, build: Path, cache: Cache
) -> None:
    expected = compile_bare(build, command())
    assert set(expected) == set(OUTPUTS)
    answers = []
    for _ in range(3):
        answers.append(there.compile(*command()).answer)
        assert outputs(build) == expected
        for name in OUTPUTS:
            (build / name).unlink()
    assert answers == ["run", "done", "done"]
    assert not counted(cache, "bypass")
    assert not counted(cache, "uncacheable")


def test_a_new_build_directory_and_a_second_clone_hit(
    there: FakeLauncher, build: Path, cache: Cache, tmp_path: Path
) -> None:
    expected = compile_bare(build, command())
    assert there.compile(*command()).answer == "run"
    shutil.rmtree(build)
    plant(build.parent)
    assert there.compile(*command()).answer == "done"
    second = plant(tmp_path / "second clone" / "project")
    elsewhere = FakeLauncher(handler=cache, cwd=second)
    assert elsewhere.compile(*command()).answer == "done"
    assert outputs(second) == expected
    assert not counted(cache, "private")


def test_absolute_directories_are_shared_with_a_clone_elsewhere(
    there: FakeLauncher, build: Path, cache: Cache, elsewhere: FakeLauncher
) -> None:
    def absolute(build: Path) -> tuple[str, ...]:
        include = f"-I{build.parent}/src/sub"
        return command(f"{build.parent}/src/a.cpp", include, mapper=f"{build}/{MAP}")

    assert there.compile(*absolute(build)).answer == "run"
    second = elsewhere.cwd
    assert compiled(elsewhere, absolute(second)) == "done"
    make_unit(second, f"{second.parent}/src/h.h", ".")
    assert compiled(elsewhere, absolute(second)) == "run"
    assert compiled(there, absolute(build)) == "done"


@pytest.mark.parametrize(
    ("header", "mapper"),
    [
        ("../src/h.h", MAP),
        ("../src/sub/../h.h", MAP),
        ("../src/h.h", ""),
        ("{root}/src/h.h", MAP),
        ("{root}/src/h.h", ""),
    ],
)
def test_the_header_unit_that_appears(
    header: str, mapper: str, there: FakeLauncher, build: Path, cache: Cache
) -> None:
    header = header.format(root=build.parent)
    source = header.replace("sub/../", "").replace("h.h", "a.cpp")
    argv = command(source, mapper=mapper)
    if "sub" in header:
        (build.parent / "src/a.cpp").write_text(TWICE)
    assert compiled(there, argv) == "run"
    assert compiled(there, argv) == "done"
    make_unit(build, header, "." if mapper else "")
    (build.parent / "src/h.h").write_text(HEADER)  # the same text: only the unit is new
    for _ in range(2):
        assert compiled(there, argv) == "run"
    refused = counted(cache, "uncacheable")
    assert sum(refused.values()) == 2, refused
    assert set(refused) <= {"uncacheable.modules", "uncacheable.header-unit"}


def test_the_header_unit_below_a_directory_that_is_there_already(
    there: FakeLauncher, build: Path, cache: Cache
) -> None:
    """Where the root is /src, a build directory may well have a directory `src`, too."""
    inside = build / str(build.parent / "src").lstrip("/")
    inside.mkdir(parents=True)
    argv = command(f"{build.parent}/src/a.cpp")
    assert compiled(there, argv) == "run"
    assert compiled(there, argv) == "done"
    make_unit(build, f"{build.parent}/src/h.h", ".")
    assert (inside / "h.h.gcm").exists()
    assert compiled(there, argv) == "run"


def test_units_of_other_headers_make_all_units_possible(
    there: FakeLauncher, build: Path, cache: Cache
) -> None:
    make_unit(build, "../src/sub/x.h", ".")
    assert compiled(there, command()) == "run"
    assert counted(cache, "uncacheable") == {"uncacheable.header-unit": 1}
    make_unit(build, "../src/h.h", ".")
    assert compiled(there, command()) == "run"


def test_the_unit_of_a_system_header_that_appears(there: FakeLauncher, build: Path) -> None:
    (build.parent / "src/a.cpp").write_text("#include <stddef.h>\nsize_t a() { return 0; }\n")
    assert compiled(there, command()) == "run"
    assert compiled(there, command()) == "done"
    rules = (build / OUTPUTS[1]).read_text().split()
    make_unit(build, next(name for name in rules if name.endswith("/stddef.h")), ".")
    assert compiled(there, command()) == "run"
    assert b".gcm" in (build / OUTPUTS[1]).read_bytes()


USES = {
    "interface": "export module m;\nexport int f() { return 1; }\n",
    "fragment": "module;\n#include <stddef.h>\nexport module m;\n",
    "macro": "#define WORD m\nexport module WORD;\n",
    "importer": "int x;\nimport base;\nint f() { return base(); }\n",
    "header": '#include "imports.h"\nint f() { return base(); }\n',
    "part": "module base:part;\nint f() { return 1; }\n",
}


def plant_modules(build: Path) -> None:
    """Write a map, a header that imports, and the interface of `base`."""
    (build / MAP).write_text("$root .\nbase base.bmi\nm m.bmi\nbase:part part.bmi\n")
    (build.parent / "src/imports.h").write_text("import base;\n")
    (build.parent / "src/base.cpp").write_text("export module base;\nexport int base();\n")
    plain = (GCC, STANDARD, "-fmodules-ts", f"-fmodule-mapper={MAP}", "-c", "-o", "base.o")
    assert run_bare((*plain, "../src/base.cpp"), cwd=build)[0] == 0


@pytest.mark.parametrize("use", [use for use in USES if use != "macro"])
def test_a_unit_that_uses_modules_is_kept(
    use: str, there: FakeLauncher, build: Path, cache: Cache
) -> None:
    """Interfaces may have any name; the map tells it."""
    plant_modules(build)
    assert there.compile(*command("../src/base.cpp")).answer == "run"
    (build.parent / "src/a.cpp").write_text(USES[use])
    written = {"interface": ["m.bmi"], "fragment": ["m.bmi"], "part": ["part.bmi"]}.get(use, [])
    names = (*OUTPUTS, *written)
    assert there.compile(*command()).answer == "run"
    first = [(build / name).read_bytes() for name in names]
    for name in names:
        (build / name).unlink()
    assert there.compile(*command()).answer == "done"
    assert first == [(build / name).read_bytes() for name in names]
    assert counted(cache, "private") == {"private.modules": 1 + bool(written)}


@pytest.mark.parametrize(
    ("use", "listing"), [("macro", True), ("interface", False), ("importer", False)]
)
def test_a_unit_whose_modules_are_not_known_is_never_kept(
    use: str, listing: bool, there: FakeLauncher, build: Path, cache: Cache, paths: Paths
) -> None:
    """No list of modules, or a macro that hides what a source declares."""
    plant_modules(build)
    (build.parent / "src/a.cpp").write_text(USES[use])
    argv = tuple(word for word in command() if listing or word != LISTING)
    for _ in range(2):
        assert there.compile(*argv).answer in {"run", "retried"}
    assert counted(cache, "uncacheable") == {"uncacheable.modules": 2}
    cache.close()
    record = read_records(os.fspath(paths.cache))[-1]
    lines = {"interface": 1, "macro": 2, "importer": 2}
    assert f"a.cpp:{lines[use]}: " in record.culprit


def test_another_map_is_another_compile(there: FakeLauncher, build: Path) -> None:
    assert compiled(there, command()) == "run"
    assert compiled(there, command()) == "done"
    (build / "units").mkdir()
    (build / MAP).write_text("$root units\n")
    assert compiled(there, command()) == "run"
    assert compiled(there, command()) == "done"
    make_unit(build, "../src/h.h", "units")
    assert compiled(there, command()) == "run"


def test_a_map_that_changes_during_the_compile(there: FakeLauncher, build: Path) -> None:
    (build / "units").mkdir()

    def change(_run: Run) -> None:
        (build / MAP).write_text("$root units\n")

    there.before_run = change
    assert compiled(there, command()) == "run"
    there.before_run = lambda _run: None
    assert compiled(there, command()) == "run"
    assert compiled(there, command()) == "done"


def test_a_program_that_is_linked_above_the_map_meanwhile(there: FakeLauncher, build: Path) -> None:
    """CMake's targets in a subdirectory have their maps below the place of their programs."""
    mapper = "util/CMakeFiles/a.cpp.o.modmap"
    (build / mapper).parent.mkdir(parents=True)
    (build / mapper).write_text("$root .\n")

    def link(_run: Run) -> None:
        for place in (build, build / "util"):
            (place / "program").touch()

    def replace_directory(_run: Run) -> None:
        (build / "util").rename(build / "old")
        shutil.copytree(build / "old", build / "util", copy_function=os.link)

    there.before_run = link
    assert compiled(there, command(mapper=mapper)) == "run"
    assert compiled(there, command(mapper=mapper)) == "done"
    there.before_run = replace_directory
    assert compiled(there, command("../src/a.cpp", "-DX", mapper=mapper)) == "run"
    there.before_run = lambda _run: None
    assert compiled(there, command("../src/a.cpp", "-DX", mapper=mapper)) == "run"


def test_a_map_is_read_before_the_run_and_compared_after_it(
    there: FakeLauncher, build: Path
) -> None:
    """Ninja writes it a moment before; a writer that was stopped could write it during the run."""
    seen: list[bool] = []

    def look(run: Run) -> None:
        assert isinstance(run.token, Pending)
        path = os.fsencode(build / MAP)
        seen.extend(run.token.started.agrees([(path, d)]) for d in (MAP_DIGEST, bytes(32)))

    there.before_run = look
    assert there.compile(*command()).answer == "run"
    assert seen == [True, False]


@pytest.mark.parametrize("text", ["../src/h.h h.bmi\n", "$root a b\n", "$root .", "m a b\n"])
def test_a_map_of_another_form_is_not_believed(
    text: str, there: FakeLauncher, build: Path, cache: Cache
) -> None:
    (build / MAP).write_text(text)
    for _ in range(2):
        assert compiled(there, command()) == "run"
    assert counted(cache, "uncacheable") == {"uncacheable.header-unit": 2}


@pytest.mark.parametrize("mapper", ["|cat", "@cat", "=socket", "<0>1", "host:1", ":99", "m?id"])
def test_only_a_file_may_be_the_mapper(
    mapper: str, there: FakeLauncher, build: Path, cache: Cache
) -> None:
    (build / "m").write_text("$root .\n")
    assert there.compile(*command(mapper=mapper)).reason == "module-mapper"
    assert there.compile(*command("../src/a.cpp", "-fmodule-mapper=x")).reason == "module-mapper"
    assert set(counted(cache, "bypass")) <= {"bypass.module-mapper"}


def test_the_variable_that_names_a_mapper_is_refused(there: FakeLauncher) -> None:
    there.env["CXX_MODULE_MAPPER"] = "map"
    assert there.compile(*command(mapper="")).reason == "module-mapper"


def test_gcc_still_fails_without_a_depfile(there: FakeLauncher, build: Path) -> None:
    argv = (GCC, "-fmodules-ts", LISTING, "-c", "../src/a.cpp", "-o", "a.o")
    assert run_bare(argv, cwd=build)[0] == 1
    ended = there.compile(*argv)
    assert (ended.answer, ended.exit_code) == ("exec", 1)


def test_on_a_farm_it_is_compiled_and_cached_here(
    make: Callable[..., Cache], build: Path, paths: Paths
) -> None:
    paths.farm_file.parent.mkdir(parents=True, exist_ok=True)
    paths.farm_file.write_text("{}")
    cache = make(FakeRemote())
    launcher = FakeLauncher(handler=cache, cwd=build)
    ended: list[Compiled] = [launcher.compile(*command()) for _ in range(2)]
    assert [one.answer for one in ended] == ["run", "done"]
    assert counted(cache, "fallback") == {"fallback.modules": 2}
