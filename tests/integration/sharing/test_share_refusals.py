"""Results that must stay private: hpcc adds no flag, or no other clone gets the result."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

from .conftest import FILES, Clone

_ARGV = ("gcc", "-g", "-Iinc", "-MD", "-c", "src/main.c", "-o", "build/x.o")


def _compile(clone: Clone, argv: tuple[str, ...], cwd: str = ".") -> tuple[str, list[bytes]]:
    """Compile; return the kind of answer and the arguments that were run."""
    seen: list[bytes] = []
    launcher = FakeLauncher(
        handler=clone.handler,
        cwd=clone.root / cwd,
        env=clone.env,
        before_run=lambda run: seen.extend(run.argv),
    )
    return launcher.compile(*argv).answer, seen


def _assert_as_bare(
    clone: Clone, argv: tuple[str, ...], cwd: str = ".", maps: list[str] | None = None
) -> None:
    """Assert that outputs and messages equal those of the bare compile with these maps."""
    clone.wipe()
    code, out, err = clone.bare([*argv, *(maps or ())], cwd)
    expected = clone.outputs()
    clone.wipe()
    done = clone.compile(argv, cwd)
    assert (done.exit_code, done.stdout, done.stderr) == (code, out, err)
    assert clone.outputs() == expected


def _reasons(cache: Cache) -> dict[str, int]:
    return {n: count for n, count in cache.counters().items() if n.startswith("private.")}


def test_without_a_marker_nothing_is_injected_and_nothing_shared(
    make_clone: Callable[..., Clone], cache: Cache
) -> None:
    one, two = make_clone("a/one", marker=None), make_clone("b/two", marker=None)
    answer, argv = _compile(one, _ARGV)
    assert answer == "run"
    assert argv[1 : len(_ARGV)] == [os.fsencode(a) for a in _ARGV[1:]]
    assert not any(b"prefix-map" in word for word in argv)
    assert _compile(two, _ARGV)[0] == "run"
    _assert_as_bare(one, _ARGV)
    _assert_as_bare(two, _ARGV)
    assert "hit.shared" not in cache.counters()
    assert not _reasons(cache)


_PRIVATE_FLAGS = {
    "coverage": ("--coverage",),
    "profile": ("-fprofile-generate", "-fprofile-update=single"),
    "profile-arcs": ("-fprofile-arcs",),
    "address": ("-fsanitize=address",),
    "undefined": ("-fsanitize=undefined", "-g"),
    "lto": ("-flto",),
    "stack-usage": ("-fstack-usage",),
    "save-temps": ("-save-temps=obj",),
    "split-dwarf": ("-g", "-gsplit-dwarf"),
    "compressed": ("-g", "-gz"),
    "assembler": ("-Wa,--noexecstack",),
    "preprocessor": ("-Wp,-MD,build/x.P",),
    "own-debug-map": ("-g", "-fdebug-prefix-map=/x=/y"),
    "own-macro-map": ("-fmacro-prefix-map=/x=/y",),
    "own-file-map": ("-ffile-prefix-map=/x=.",),
    "seed": ("-frandom-seed=1",),
    "unknown": ("-fno-tree-vectorize",),
    "parameter": ("--param", "max-inline-insns-single=10"),
    "sysroot": ("--sysroot=/",),
}


# GCC puts the time or a random number into these.
_DIFFER_EACH_TIME = ("coverage", "profile", "profile-arcs", "lto")
# Content keys know these flags, and the source names no place.
_FOUND_BY_CONTENT = (
    *("stack-usage", "assembler", "preprocessor", "own-macro-map", "own-file-map"),
    *("seed", "unknown", "parameter"),
)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
@pytest.mark.parametrize("flags", _PRIVATE_FLAGS)
def test_flags_off_the_list_keep_a_result_private_and_as_it_was(
    compiler: str,
    flags: str,
    first: Clone,
    second: Clone,
    make_clone: Callable[..., Clone],
    cache: Cache,
) -> None:
    """A marker costs no hit: with such flags two clones have what they have without one."""
    argv = (compiler, *_PRIVATE_FLAGS[flags], "-Iinc", "-c", "src/main.c", "-o", "build/x.o")
    without = make_clone("c/one", marker=None), make_clone("d/two", marker=None)
    for clone in without:
        path = clone.root / "src/main.c"
        clone.write("src/main.c", f"{path.read_text()}int another(void) {{ return 1; }}\n")
        clone.age()
    expected = [_compile(clone, argv)[0] for clone in without]
    answers = []
    for clone in (first, second):
        answer, run = _compile(clone, argv)
        answers.append(answer)
        assert not any(os.fsencode(clone.root) in word and b"prefix-map" in word for word in run)
    assert answers == expected
    assert ("done" in answers) == (flags in _FOUND_BY_CONTENT)
    assert "hit.shared" not in cache.counters()
    bypasses = [n for n in cache.counters() if n.startswith("bypass.")]
    misses = answers.count("run")
    assert bypasses or _reasons(cache) == {"private.flags": misses}
    if flags not in _DIFFER_EACH_TIME:
        _assert_as_bare(second, argv)


@pytest.mark.parametrize("compiler", ["gcc-14", "clang-19"])
def test_a_macro_that_holds_the_root_is_no_path_to_be_stripped(
    compiler: str, first: Clone, second: Clone, cache: Cache
) -> None:
    def argv(clone: Clone) -> tuple[str, ...]:
        return (compiler, f'-DDATA="{clone.root}/data"', *_ARGV[1:])

    for clone in (first, second):
        clone.write("src/main.c", "const char *data = DATA;\n")
        clone.age()
        answer, run = _compile(clone, argv(clone))
        assert answer == "run"
        assert not any(b"prefix-map" in word for word in run)
    _assert_as_bare(first, argv(first))
    _assert_as_bare(second, argv(second))
    assert _reasons(cache) == {"private.root-in-argument": 2}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('const char *where = "{root}/data";\n', "embeds-path"),
        ('const char *where = "{home}/data";\n', "embeds-path"),
        ("/* see {root}/doc */ int i;\n", "root-in-source"),
        ('#include "{root}/inc/conf.h"\nint i = CONF;\n', "root-in-source"),
        ('#include "{root_odd}/inc/conf.h"\nint i = CONF;\n', "root-in-source"),
        (
            '#define HERE "{start}"\n#define H <conf.h>\n#include H\nint i = CONF;\n',
            "computed-include",
        ),
        ("#warning in {root}/src\nint i;\n", "root-in-source"),
        ('#include "{root}-2/next.h"\nint i = NEXT;\n', "neighbour"),
    ],
)
def test_a_result_that_names_the_checkout_is_kept_for_it_alone(
    text: str, reason: str, first: Clone, second: Clone, cache: Cache
) -> None:
    """The second clone has identical bytes, but they name a place in the first clone."""
    home = os.path.realpath(Path.home())
    odd = str(first.root).replace("/", "//", 2)
    start = "/".join(first.root.parts[:3])[1:]
    filled = text.format(root=first.root, home=home, root_odd=odd, start=start)
    for clone in (first, second):
        neighbour = clone.root.parent / f"{clone.root.name}-2"
        neighbour.mkdir()
        (neighbour / "next.h").write_text(f"#define NEXT {len(clone.root.name)}\n")
        clone.write("src/main.c", filled)
        clone.age()
        os.utime(neighbour / "next.h", (1e9, 1e9))
    assert _compile(first, _ARGV)[0] == "run"
    assert _reasons(cache) == {f"private.{reason}": 1}
    assert _compile(first, _ARGV)[0] == "done"  # its own result all the same
    assert _compile(second, _ARGV)[0] == "run"
    assert "hit.shared" not in cache.counters()
    _assert_as_bare(first, _ARGV, maps=first.maps())
    _assert_as_bare(second, _ARGV, maps=second.maps())


def test_a_compile_that_fails_is_the_users_own(first: Clone, cache: Cache) -> None:
    argv = ("gcc", f"-I{first.root}/inc", "-c", f"{first.root}/src/bad.c", "-o", "build/x.o")
    first.write("src/bad.c", "int f(void) { return __FILE__[0] + missing; }\n")
    first.age()
    bare = first.bare(argv)
    done = first.compile(argv)
    assert done.answer == "retried"
    assert (done.exit_code, done.stdout, done.stderr) == bare
    assert bare[0] == 1
    assert cache.counters()["miss.failed"] == 1


_SIZE = '_Static_assert(sizeof(__FILE__) > {size}, "__FILE__ is short");\nint i;\n'


def test_a_compile_that_fails_for_the_maps_alone_succeeds_and_is_cached_without(
    first: Clone, cache: Cache
) -> None:
    argv = ("gcc", "-g", "-c", f"{first.root}/src/long.c", "-o", "build/x.o")
    first.write("src/long.c", _SIZE.format(size=len("./src/long.c") + 1))
    first.age()
    answers = [first.compile(argv) for _ in range(5)]
    assert {a.exit_code for a in answers} == {0}
    assert {a.stderr for a in answers} == {b""}
    assert [a.answer for a in answers] == ["retried"] * 3 + ["run", "done"]
    assert cache.counters()["private.fails-with-maps"] == 1
    _assert_as_bare(first, argv)


def test_an_include_by_file_name_finds_what_it_finds_without_us(first: Clone) -> None:
    """`#include __FILE__` of an absolute name: the mapped name finds no file, or another one."""
    first.write(
        "src/self.c", "#ifndef ONCE\n#define ONCE\n#include __FILE__\n#else\nint i;\n#endif\n"
    )
    first.age()
    argv = ("gcc", "-c", f"{first.root}/src/self.c", "-o", "build/x.o")
    done = first.compile(argv)
    assert (done.answer, done.exit_code, done.stderr) == ("retried", 0, b"")


@pytest.mark.parametrize("compiler", ["gcc-13", "gcc-14", "clang-19"])
@pytest.mark.parametrize("shape", ["dots", "link", "dots-in-header", "link-in-header"])
def test_system_headers_that_a_compiler_may_call_by_other_names_are_not_shared(
    compiler: str, shape: str, first: Clone, second: Clone, cache: Cache
) -> None:
    where = {"dots": "../inc", "link": "../link"}.get(shape, "../wide")
    for clone in (first, second):
        (clone.root / "link").symlink_to("inc")
        clone.write("wide/low/conf.h", "#define CONF 9\n")
        clone.write("wide/conf.h", '#include "low/../low/conf.h"\n')
        if shape == "link-in-header":
            clone.write("wide/conf.h", '#include "over/conf.h"\n')
            (clone.root / "wide/over").symlink_to("low")
        clone.age()

    def argv(clone: Clone) -> tuple[str, ...]:
        # Absolute where only what is found behind it is odd.
        spelled = where if where != "../wide" else f"{clone.root}/wide"
        return (compiler, "-g", "-isystem", spelled, "-MD", "-c", "../src/main.c", "-o", "x.o")

    for clone in (first, second):
        assert _compile(clone, argv(clone), "build")[0] == "run"
    assert _reasons(cache) == {"private.system-directory": 2}
    maps = second.maps("build") if where == "../wide" else None
    _assert_as_bare(second, argv(second), "build", maps)


def test_a_directory_spelled_through_a_link_is_not_shared(
    first: Clone, tmp_path: Path, cache: Cache
) -> None:
    (tmp_path / "way").symlink_to(first.root)
    first.env["PWD"] = str(tmp_path / "way")
    _assert_as_bare(first, _ARGV)
    assert _reasons(cache) == {"private.directory-spelling": 1}


def test_a_stale_pwd_means_nothing_to_a_compiler_and_to_the_key(
    first: Clone, second: Clone, cache: Cache
) -> None:
    first.env["PWD"] = str(first.root / "src")
    second.env["PWD"] = str(second.root)
    assert _compile(first, _ARGV)[0] == "run"
    assert _compile(second, _ARGV)[0] == "done"
    second.env["PWD"] = "/usr"
    _assert_as_bare(second, _ARGV, maps=second.maps())
    assert cache.counters()["hit.shared"] == 2


@pytest.mark.parametrize("name", ["CPATH", "C_INCLUDE_PATH", "GCC_COLORS"])
def test_variables_that_hold_paths_keep_a_result_private(
    name: str, first: Clone, cache: Cache
) -> None:
    first.env[name] = str(first.root / "inc")
    _assert_as_bare(first, _ARGV)
    assert _reasons(cache) == {"private.environment": 1}


def test_the_marker_can_leave_directories_out(
    make_clone: Callable[..., Clone], cache: Cache
) -> None:
    marker = 'version = 1\nname = "my project"\nexclude = ["src", "third/party/"]\n'
    clone = make_clone("a/one", marker=marker)
    _assert_as_bare(clone, _ARGV)
    assert _reasons(cache) == {"private.excluded": 1}
    clone.write("srcs/main.c", "int i;\n")
    clone.age()
    argv = ("gcc", "-g", "-c", "srcs/main.c", "-o", "build/y.o")
    assert any(b"prefix-map" in word for word in _compile(clone, argv)[1])


@pytest.mark.parametrize(
    "edit",
    [
        ("src/util.h", FILES["src/util.h"].replace("INNER", "INNER + 1")),
        ("src/conf.h", "#define CONF 8\n"),
        ("src/deep/assert.h", "#define assert(x)\n"),
        ("inc/util.h", "#error never reached\n"),
    ],
)
def test_each_clone_has_its_own_files(
    edit: tuple[str, str], first: Clone, second: Clone, cache: Cache
) -> None:
    assert _compile(first, _ARGV)[0] == "run"
    second.write(*edit)
    second.age()
    _assert_as_bare(second, _ARGV, maps=second.maps())
    _assert_as_bare(first, _ARGV, maps=first.maps())
    for clone in (first, second):
        assert _compile(clone, _ARGV)[0] == "done"
    # As the first again, without its edit: there are results for both states.
    (second.root / edit[0]).unlink()
    if edit[0] in FILES:
        second.write(edit[0], FILES[edit[0]])
    second.age()
    assert _compile(second, _ARGV)[0] == "done"
    _assert_as_bare(second, _ARGV, maps=second.maps())


def test_results_are_shared_through_the_disk_and_by_a_third_clone(
    make_clone: Callable[..., Clone], make_cache: Callable[[], Cache], first: Clone, second: Clone
) -> None:
    assert _compile(first, _ARGV)[0] == "run"
    later = make_cache()
    second.handler = later
    third = make_clone("t")
    third.handler = later
    for clone in (third, second):
        assert _compile(clone, _ARGV)[0] == "done"
        _assert_as_bare(clone, _ARGV, maps=clone.maps())
    assert later.counters()["hit.shared"] == 4


_ROOTS = {
    "regex": (b"a+b~c.d", True),
    "spaces": (b"two  words and one", True),
    "umlaut": "grün-日本".encode(),
    "star": b"a*[x](y)^$|?",
    "format": b"%s{0}%(x)d\\n",
    "quote": b'it\'s "quoted"',
    "newline": b"two\nlines",
    "equals": b"a=b",
    "colon": b"a:b;c,d",
    "hash": b"#a $HOME",
    "not-utf-8": b"\xff\xfe-odd",
    "backslash": b"back\\slash",
    "mark": b"-leading",
}


@pytest.mark.parametrize("compiler", ["gcc", "clang-19"])  # absolute names: not Clang 14
@pytest.mark.parametrize("kind", _ROOTS)
def test_odd_names_of_roots_give_right_outputs(
    compiler: str, kind: str, first: Clone, tmp_path: Path, cache: Cache
) -> None:
    entry = _ROOTS[kind]
    name = entry[0] if isinstance(entry, tuple) else entry
    root = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))
    clone = Clone(root, cache)
    for path, text in FILES.items():
        clone.write(path, text)
    clone.write(".hpcc", "")
    (root / "build").mkdir()
    clone.age()

    def argv(one: Clone) -> tuple[str, ...]:
        source = f"{one.root}/src/main.c"
        return (
            compiler,
            "-g",
            f"-I{one.root}/inc",
            "-Wall",
            "-MD",
            "-MP",
            "-c",
            source,
            "-o",
            "x.o",
        )

    assert _compile(first, argv(first), "build")[0] == "run"
    answer, _ = _compile(clone, argv(clone), "build")
    is_shared = answer == "done"
    is_expected = isinstance(entry, tuple) or kind in {"umlaut", "mark"}
    assert is_shared == is_expected, cache.counters()
    _assert_as_bare(clone, argv(clone), "build", clone.maps("build") if is_shared else None)
    if not is_shared:
        bypasses = [n for n in cache.counters() if n.startswith("bypass.")]
        assert bypasses or _reasons(cache)["private.root"] >= 1


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_twins_that_are_to_be_read_once_are_compared_in_each_clone(
    compiler: str, first: Clone, second: Clone
) -> None:
    """Two names of one file here may be two files there, which the compiler then reads both."""
    for clone in (first, second):
        clone.write("src/main.c", '#include "t/../once.h"\n#include "once.h"\nint i = A;\n')
        clone.write("src/once.h", "#pragma once\nstatic int a;\nenum { A = sizeof(int) };\n")
        (clone.root / "src/t").mkdir()
        clone.age()
    argv = (compiler, *_ARGV[1:])
    first.compile(argv)
    assert _compile(second, argv)[0] == "done"
    _assert_as_bare(second, argv, maps=second.maps())
    (second.root / "src/t").rmdir()
    (second.root / "inc/deep").mkdir()
    (second.root / "src/t").symlink_to("../inc/deep")
    second.write("inc/once.h", (second.root / "src/once.h").read_text())
    os.utime(second.root / "inc/once.h", (1, 1))
    assert second.bare(argv)[0] != 0  # `A` is defined twice
    assert _compile(second, argv)[0] in {"run", "retried"}


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_copies_that_are_to_be_read_once_are_shared_if_they_are_related_alike(
    compiler: str, first: Clone, second: Clone
) -> None:
    for clone in (first, second):
        clone.write("src/main.c", '#include "copy.h"\n#include "once.h"\nint i = A;\n')
        for name in ("src/copy.h", "src/once.h"):
            clone.write(name, "#pragma once\n#ifndef A\n#define A __LINE__\n#endif\n")
        clone.age()
        os.utime(clone.root / "src/copy.h", (1, 1))
    argv = (compiler, *_ARGV[1:])
    first.compile(argv)
    assert _compile(second, argv)[0] == "done"
    _assert_as_bare(second, argv, maps=second.maps())
    (second.root / "src/copy.h").unlink()
    os.link(second.root / "src/once.h", second.root / "src/copy.h")
    assert _compile(second, argv)[0] == "run"
    _assert_as_bare(second, argv, maps=second.maps())


def test_a_link_in_one_clone_alone_gives_that_clones_names(first: Clone, second: Clone) -> None:
    """GCC writes a system header's real name if that is shorter."""
    for clone in (first, second):
        clone.write("wide/low/conf.h", "#define CONF 9\n")
        clone.write("wide/conf.h", '#include "over/conf.h"\n')
    first.write("wide/over/conf.h", "#define CONF 9\n")
    (second.root / "wide/over").symlink_to("low")
    for clone in (first, second):
        clone.age()
        argv = ("gcc", "-g", "-isystem", f"{clone.root}/wide", "-MD", "-c", "src/main.c")
        assert _compile(clone, argv)[0] == "run"
        _assert_as_bare(clone, argv, maps=clone.maps())


def test_a_search_directory_that_is_a_link_in_one_clone_is_not_shared(
    first: Clone, second: Clone, cache: Cache
) -> None:
    """A compiler drops the first of two names of one directory if the second is a system one."""
    (first.root / "link").symlink_to("inc")
    second.write("link/conf.h", "#define CONF 99\n")
    argv = ("gcc", "-g", "-Ilink", "-isystem", "inc", "-MD", "-c", "src/main.c", "-o", "build/x.o")
    for clone in (first, second):
        clone.age()
        assert _compile(clone, argv)[0] == "run"
    _assert_as_bare(first, argv)
    _assert_as_bare(second, argv, maps=second.maps())
    assert _reasons(cache) == {"private.linked-directory": 1}


def test_a_link_leads_each_clone_where_its_own_link_leads(
    first: Clone, second: Clone, tmp_path: Path
) -> None:
    for clone, value in ((first, 1), (second, 2)):
        elsewhere = tmp_path / f"elsewhere-{value}"
        elsewhere.mkdir()
        (elsewhere / "conf.h").write_text(f"#define CONF {value}\n")
        os.utime(elsewhere / "conf.h", (1e9, 1e9))
        (clone.root / "src/out").symlink_to(elsewhere)
        clone.write("src/main.c", '#include "out/conf.h"\nint i = CONF;\n')
        clone.age()
    for clone in (first, second):
        assert _compile(clone, _ARGV)[0] == "run"
        _assert_as_bare(clone, _ARGV, maps=clone.maps())


def test_a_parent_of_the_root_is_each_clones_own(first: Clone, second: Clone) -> None:
    for clone, value in ((first, 1), (second, 2)):
        (clone.root.parent / "up.h").write_text(f"#define UP {value}\n")
        os.utime(clone.root.parent / "up.h", (1e9, 1e9))
        clone.write("src/main.c", '#include "../../up.h"\nint i = UP;\n')
        clone.age()
    for clone in (first, second):
        assert _compile(clone, _ARGV)[0] == "run"
        _assert_as_bare(clone, _ARGV, maps=clone.maps())


def test_a_compiler_inside_the_clone_is_private(first: Clone, cache: Cache) -> None:
    tool = first.root / "gcc"
    tool.symlink_to(subprocess.check_output(["which", "gcc"], text=True).strip())
    argv = (str(tool), *_ARGV[1:])
    assert _compile(first, argv)[0] != "done"
    assert first.maps()[0].encode() not in b" ".join(_compile(first, argv)[1])
    assert run_bare(argv, cwd=first.root)[0] == 0
    assert "private.environment" in cache.counters() or any(
        n.startswith("bypass.") for n in cache.counters()
    )
