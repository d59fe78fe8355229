"""The parts of `make bench-corpus` that need no package: list, shim, records, comparison, report."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))

from corpus import listing, shims
from corpus.building import build, first_error
from corpus.recording import (
    Command,
    command_of,
    headers_of,
    parse_record,
    read_commands,
    rebased,
    sample,
)
from corpus.replaying import Replayer, Row, Seen, compare_all, differences, measure, since
from corpus.report import (
    COLD,
    PackageResult,
    load_result,
    refusals,
    rendered,
    save,
    shortfalls,
    totals_below,
)
from corpus.scenarios import NAMES, Place, Tree, edited_comment, prepare
from corpus.sources import Apt, SourceError, source_entries
from corpus.tools import BARE, CCACHE, HPCC, Tool

LIST = """
[[package]]
name = "a-package"
system = "cmake"
language = "c++"
options = ["-DX=1"]
[[excuse]]
package = "*"
scenario = "moved-tree"
why = "names are visible"
"""


def command(*argv: str, cwd: str = "/t/tree/build") -> Command:
    found = command_of(cwd, argv)
    assert found is not None
    return found


def test_the_open_list_has_enough_of_each_kind() -> None:
    packages = listing.load().packages
    assert len(packages) >= 40
    kinds = Counter(package.system for package in packages)
    assert kinds.keys() == set(listing.SYSTEMS)
    assert min(kinds.values()) >= 5
    assert {package.language for package in packages} == set(listing.LANGUAGES)


def test_the_list_is_read_with_its_excuses() -> None:
    corpus = listing.parse(LIST)
    assert corpus.packages[0].options == ("-DX=1",)
    excuse = corpus.excuse("a-package", "moved-tree")
    assert excuse is not None
    assert excuse.why == "names are visible"
    assert corpus.excuse("a-package", "second-clone") is None
    assert corpus.chosen("a-package", 0) == corpus.packages
    assert corpus.chosen("", 1) == corpus.packages


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"cmake"', '"scons"', "system of"),
        ('"a-package"', '"../x"', "not the name"),
        ("options", "optoins", "optoins"),
        ('why = "names are visible"', 'why = ""', "must say why"),
        ("[[package]]", "[[package", "not TOML"),
        ("options", 'subdir = "../.."\noptions', "leaves the tree"),
    ],
)
def test_a_malformed_list_is_refused(old: str, new: str, why: str) -> None:
    with pytest.raises(listing.ListError, match=why):
        listing.parse(LIST.replace(old, new, 1))


def test_an_unknown_name_and_a_doubled_one_are_refused() -> None:
    with pytest.raises(listing.ListError, match="not in"):
        listing.parse(LIST).chosen("a-package,other", 0)
    with pytest.raises(listing.ListError, match="twice"):
        listing.parse(LIST + LIST)


def test_sources_of_apt_become_source_packages_without_local_directories() -> None:
    deb822 = (
        "# text\nTypes: deb\nURIs: http://a/\nSuites: x\n\nTypes: deb\nURIs: file:/b\nSuites: y\n"
    )
    assert source_entries(deb822, is_deb822=True).splitlines()[1:] == [
        "Types: deb-src", "URIs: http://a/", "Suites: x",
    ]  # fmt: skip
    lines = "deb http://a x main\n#deb http://b x\ndeb file:/c x\ndeb-src http://d x\n"
    assert source_entries(lines, is_deb822=False) == "deb-src http://a x main"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs that print how they were called."""
    directory = tmp_path_factory.mktemp("real")
    for name in ("cc1", "as", "gcc"):
        (directory / name).write_text('#!/bin/sh\necho "$@"\nexit 3\n')
        (directory / name).chmod(0o755)
    return directory


def run_shim(real: Path, directory: Path, name: str, *args: str, **env: str) -> bytes:
    shims.build(directory / name, real)
    done = subprocess.run(
        [directory / name, *args], env={**os.environ, **env}, capture_output=True, check=False
    )
    assert done.returncode == 3
    return done.stdout


def test_the_shim_counts_compiles_and_passes_everything_on(real: Path, tmp_path: Path) -> None:
    count = tmp_path / "count"
    for name, *args in (("cc1", "-quiet", "a.c"), ("cc1", "-E", "a.c"), ("as", "-o", "a.o")):
        out = run_shim(real, tmp_path, name, *args, CORPUS_COUNT=str(count))
        assert out.decode().split() == args
    run_shim(real, tmp_path, "cc1", "b.c")  # without a count file nothing is counted
    lines = count.read_text().splitlines()
    assert lines == ["cc1 compile", "cc1 other", "as compile"]
    assert shims.real_runs(lines, is_assembler=False) == 1
    assert shims.real_runs(lines, is_assembler=True) == 1
    assert shims.real_runs(["cc1 other"], is_assembler=False) == 0


def test_a_run_that_cannot_be_counted_fails(real: Path, tmp_path: Path) -> None:
    shims.build(tmp_path / "cc1", real)
    env = {**os.environ, "CORPUS_COUNT": str(tmp_path / "missing/count")}
    assert subprocess.run([tmp_path / "cc1"], env=env, check=False).returncode == 125


def test_the_shim_records_a_compile_that_can_be_run_again(real: Path, tmp_path: Path) -> None:
    tree, records = tmp_path / "tree", tmp_path / "records"
    (tree / "sub").mkdir(parents=True)
    records.mkdir()
    (tree / "sub/a b.c").write_text("")
    (tree / "sub/a.o").write_text("")
    shims.build(tree / "gcc", real)
    for argv in (["-c", "a b.c", "-o", "a.o", "-MD", "-MF", "x.d"], ["a.o", "-o", "a"], ["-v"]):
        env = {**os.environ, "CORPUS_RECORD": str(records), "LANG": "C", "MAKEFLAGS": "-j"}
        subprocess.run([tree / "gcc", *argv], cwd=tree / "sub", env=env, check=False)
    assert len(list(records.iterdir())) == 3
    (found,) = read_commands(records, tree)
    assert found.argv == ("gcc", "-c", "a b.c", "-o", "a.o", "-MD", "-MF", "x.d")
    assert (found.cwd, found.depfile) == (str(tree / "sub"), "x.d")
    names = dict(found.env)
    assert names["LANG"] == "C"
    assert not {"MAKEFLAGS", "PATH", "CORPUS_RECORD"} & names.keys()


@pytest.mark.parametrize(
    "argv",
    [
        "gcc a.c -o a",
        "gcc -c a.c b.c",
        "gcc -c x.o",
        "gcc -E -c a.c",
        "gcc -c conftest.c",
        "c++ -flto=auto -c /b/CMakeFiles/_CMakeLTOTest-CXX/src/foo.cpp",
        "gcc -c",
    ],
)
def test_what_compiles_no_single_source_is_left_out(argv: str) -> None:
    assert command_of("/t", argv.split()) is None
    assert parse_record(b"torn") is None


def test_outputs_follow_the_flags() -> None:
    assert command("gcc", "-c", "x.c").output == "x.o"
    found = command("gcc", "-MD", "-c", "../src/x.c", "-oy.o")
    assert (found.output, found.depfile) == ("y.o", "y.d")
    assert "/t/tree/build/y.gcno" in found.outputs()
    assert command("gcc", "-Wp,-MMD,.x.d", "-c", "x.c").depfile == ".x.d"
    # The source is never taken for an output.
    assert "/t/tree/build/x.su" not in command("gcc", "-c", "x.c", "-o", "y.o").outputs()


def test_a_command_moves_with_its_tree_and_gets_a_second_target() -> None:
    first = command("g++", "-I/t/tree/src", "-DP=\"/t/tree\"", "-c", "/t/tree/src/x.cc", "-o", "x.o", "-MF", "x.d",
                    "-MTx.o", "-MD")  # fmt: skip
    moved = first.moved("/t/tree", "/t/clone")
    assert moved.argv[1:5] == ("-I/t/clone/src", '-DP="/t/clone"', "-c", "/t/clone/src/x.cc")
    assert moved.cwd == "/t/clone/build"
    assert rebased("/t/tree-2/x", "/t/tree", "/t/clone") == "/t/tree-2/x"
    second = first.retargeted()
    assert (second.output, second.depfile) == ("x.second.o", "x.second.d")
    assert second.argv[5:] == ("-o", "x.second.o", "-MF", "x.second.d", "-MTx.second.o", "-MD")
    assert second.source == first.source


def test_the_first_error_of_a_build_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert first_error(log) == "no output"
    log.write_text("$ make\ndone\n")
    assert first_error(log) == "done"
    log.write_text("$ meson\nx: ERROR: no kyua\nninja: error: no file\n")
    assert first_error(log) == "x: ERROR: no kyua"


def test_a_sample_is_spread_and_stable() -> None:
    commands = [command("gcc", "-c", f"{i}.c") for i in range(10)]
    assert [c.source for c in sample(commands, 3)] == ["0.c", "3.c", "6.c"]
    assert sample(commands, 0) == sample(commands, 99) == commands


def test_a_header_that_most_depfiles_name_comes_first() -> None:
    texts = ["x.o: /t/a.h \\\n /t/b.h /usr/c.h", "y.o: /t/b.h"]
    assert headers_of(texts, "/t") == ["/t/b.h", "/t/a.h"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"/* License */\nint a;\n", b"/* edited  License */\nint a;\n"),
        (b"int a;\n  // x\n", b"int a;\n  // edited  x\n"),
        (b"int a;", b"int a;\n/* edited */\n"),
    ],
)
def test_an_edited_comment_moves_no_line(old: bytes, new: bytes) -> None:
    assert edited_comment(old) == new


SEEN = Seen(0, b"warning\n", (("/t/a.o", "11"),), 1)


def test_each_kind_of_difference_is_found() -> None:
    assert differences(SEEN, replace(SEEN, runs=0)) == []
    assert differences(SEEN, replace(SEEN, exit_code=1)) == ["exit code"]
    assert differences(SEEN, replace(SEEN, messages=b"")) == ["messages"]
    assert differences(SEEN, replace(SEEN, files=(("/t/a.o", "22"),))) == ["/t/a.o"]
    assert differences(SEEN, replace(SEEN, files=())) == ["/t/a.o"]
    assert since({"a": 1, "b": 2}, {"a": 3, "b": 2, "c": 1}) == {"a": 2, "c": 1}


class FakeReplayer(Replayer):
    """Answers with what another bare compile would leave."""

    def __init__(self, again: Seen) -> None:
        self._again = again

    def run(self, tool: Tool, commands: object) -> list[Seen]:
        assert tool.name == BARE
        return [self._again]


@pytest.mark.parametrize(("again", "differing"), [("11", ["a.c: /t/a.o"]), ("33", [])])
def test_an_object_counts_as_differing_unless_two_bare_compiles_differ(
    again: str, differing: list[str]
) -> None:
    bare, row = Tool(BARE, (), {}), Row("same-directory")
    other = replace(SEEN, files=(("/t/a.o", "22"),), runs=0)
    seen = {BARE: [SEEN], CCACHE: [SEEN], HPCC: [other]}
    replayer = FakeReplayer(replace(SEEN, files=(("/t/a.o", again),)))
    compare_all(replayer, bare, [command("gcc", "-c", "a.c")], seen, row)
    assert row.hits == {CCACHE: 0, HPCC: 1}
    assert row.differing == {CCACHE: [], HPCC: differing}
    assert bool(row.unstable) is not bool(differing)


def results(hpcc: int, ccache: int, *differing: str) -> list[PackageResult]:
    row = Row("same-directory", 5, {HPCC: hpcc, CCACHE: ccache}, {HPCC: list(differing)})
    row.reasons = {"uncacheable.has-include": 5 - hpcc}
    row.places = ["has-include: a macro decides; /t/gtest-port.h:284: #define HAS"]
    return [PackageResult("a-package", "cmake", "c++", rows=[row])]


def test_a_row_below_ccache_or_with_a_difference_is_a_shortfall() -> None:
    corpus = listing.parse(LIST)
    assert shortfalls(results(5, 5), corpus) == []
    assert shortfalls(results(5, 4), corpus) == []
    assert shortfalls(results(4, 5), corpus) == ["a-package, same-directory: 4 hits, ccache 5 of 5"]
    assert "1 outputs of hpcc differ" in shortfalls(results(5, 5, "a.c: a.o"), corpus)[0]
    excused = results(0, 5)
    excused[0].rows[0].scenario = "moved-tree"
    assert shortfalls(excused, corpus) == []
    # Only missing hits are excused, never a wrong output.
    excused[0].rows[0].differing = {HPCC: ["a.c: a.o"]}
    assert len(shortfalls(excused, corpus)) == 1


def test_the_report_shows_hits_reasons_and_differences(tmp_path: Path) -> None:
    found = results(4, 5, "a.c: a.o")
    found.append(PackageResult("b", "make", "c", trouble="no source"))
    text, is_good = rendered(found, listing.parse(LIST))
    assert not is_good
    assert "uncacheable.has-include 1" in text
    assert "/t/gtest-port.h:284: #define HAS" in text
    assert "hpcc: a-package, same-directory: a.c: a.o" in text
    assert "b: no source" in text
    assert "2 shortfalls" in text
    save(found[0], tmp_path / "x/r.json", {"commands": 5})
    assert load_result(tmp_path / "x/r.json", {"commands": 5}) == found[0]
    assert load_result(tmp_path / "x/r.json", {"commands": 6}) is None
    assert load_result(tmp_path / "none.json", {}) is None


def test_a_run_of_the_whole_list_must_be_above_ccache_with_few_refusals() -> None:
    corpus = listing.parse(LIST)
    found = results(5, 4)
    cold = Row(COLD, 400, reasons={"uncacheable.date-time": 3, "missed.new-command": 397})
    found[0].rows.append(cold)
    assert refusals(found) == (3, 400)
    assert totals_below(found) == []
    assert rendered(found, corpus, is_whole=True)[1]
    cold.reasons["bypass.plugin"] = 1
    assert totals_below(found) == ["4 of 400 commands are refused, 1 % or more"]
    assert rendered(found, corpus)[1]
    assert not rendered(found, corpus, is_whole=True)[1]
    del cold.reasons["bypass.plugin"]
    found[0].rows[0].hits = {HPCC: 4, CCACHE: 4}
    assert totals_below(found) == ["in total 4 hits, ccache 4"]
    assert not rendered([], corpus)[1]


def test_a_build_ends_when_it_has_compiled_enough(tmp_path: Path) -> None:
    """The build below compiles without end."""
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src/Makefile").write_text(
        "all:\n\t@n=0; while :; do n=$$((n+1)); echo 'int x;' > a$$n.c; cc -c a$$n.c || exit 1; done\n"
    )
    package = listing.Package(name="endless", system="make", language="c")
    recorders = shims.recorders(tmp_path / "recorders")
    found = build(package, root, recorders, tmp_path / "records", seconds=300, enough=3)
    assert len(found) >= 3
    assert found == read_commands(tmp_path / "records", root)


def test_all_files_of_an_archive_get_one_time_so_that_nothing_is_made_anew(tmp_path: Path) -> None:
    """The distribution's patch made Makefile.am newer than Makefile.in."""
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "src/Makefile.am").write_text("")
    (root / "src/Makefile.in").write_text(
        "all: ../src/Makefile.in\n\tcc -c ../src/a.c\n../src/Makefile.in: ../src/Makefile.am\n\tfalse\n"
    )
    (root / "src/a.c").write_text("int a;\n")
    (root / "src/configure").write_text("#!/bin/sh\ncp -p ../src/Makefile.in Makefile\n")
    (root / "src/configure").chmod(0o755)
    os.utime(root / "src/Makefile.in", (1, 1))
    package = listing.Package(name="patched", system="autotools", language="c")
    recorders = shims.recorders(tmp_path / "recorders")
    found = build(package, root, recorders, tmp_path / "records", seconds=300)
    assert [c.source for c in found] == ["../src/a.c"]


@pytest.mark.parametrize("has_old", [True, False])
def test_an_older_version_is_fetched_where_the_mirror_lacks_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_old: bool
) -> None:
    asked: list[str] = []

    def get(self: Apt, *args: str, cwd: Path | None = None) -> None:
        del self, cwd
        asked.append(args[-1])
        if not has_old or args[-1] != "zstd=1":
            raise SourceError("404")

    monkeypatch.setattr(Apt, "_get", get)
    monkeypatch.setattr(Apt, "_versions", lambda *_: ["2", "1"])
    apt = Apt(tmp_path)
    if has_old:
        apt.fetch("zstd", tmp_path)
        assert asked == ["zstd", "zstd", "zstd=2", "zstd=2", "zstd=1"]
    else:
        with pytest.raises(SourceError):
            apt.fetch("zstd", tmp_path)


def test_a_file_that_the_mirror_lacks_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "apt-get"
    program.write_text(
        "#!/bin/sh\necho 'Err:1 http://m/p x 1 (dsc)' >&2\n"
        "echo 'E: Failed to fetch http://m/p/x_1.dsc  404  Not Found' >&2\n"
        "echo 'E: Failed to fetch some archives.' >&2\nexit 100\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(Apt, "_prepare", lambda _: None)
    with pytest.raises(SourceError, match=r"x_1\.dsc  404"):
        Apt(tmp_path / "state").fetch("x", tmp_path)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    root = tmp_path / "tree"
    (root / "src").mkdir(parents=True)
    (root / "build").mkdir()
    (root / "src/a.h").write_text("/* A */\n#define A 1\n")
    (root / "src/a.c").write_text('#include "a.h"\nint a = A;\n')
    argv = ("gcc", f"-I{root}/src", "-MD", "-MF", "a.d", "-c", "../src/a.c", "-o", "a.o")
    return Tree(root, [command(*argv, cwd=str(root / "build"))])


@pytest.mark.parametrize("name", ["comment-edited", "branch-and-back"])
def test_no_scenario_edits_a_file_that_a_link_leads_to(
    tree: Tree, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.scenarios._SETTLE_SECONDS", 0.0)
    machine = tmp_path / "machine"
    machine.mkdir()
    texts = {"b.h": "#define B 1\n", "b.c": '#include "b.h"\nint b = B;\n'}
    for file, text in texts.items():
        (machine / file).write_text(text)
    (tree.root / "src/vendor").symlink_to(machine)
    argv = ("gcc", "-MD", "-MF", "b.d", "-c", f"{tree.root}/src/vendor/b.c", "-o", "b.o")
    commands = [*tree.commands, command(*argv, cwd=str(tree.build))]
    (tree.build / "b.d").write_text(f"b.o: {tree.root}/src/vendor/b.c {tree.root}/src/vendor/b.h\n")
    place = prepare(name, Tree(tree.root, commands))
    assert place is not None
    assert {file: (machine / file).read_text() for file in texts} == texts
    place.undo()


@pytest.mark.parametrize("name", NAMES)
def test_each_scenario_compiles_in_its_place_and_leaves_the_tree_as_it_was(
    tree: Tree, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("corpus.scenarios._SETTLE_SECONDS", 0.0)
    bare = Tool(BARE, (), {})
    replayer = Replayer(tree.root.parent / "scratch", deadline=float("inf"))
    replayer.run(bare, tree.commands)
    home = "CMAKE_HOME_DIRECTORY:INTERNAL={}/src\n"
    (tree.build / "CMakeCache.txt").write_text(home.format(tree.root))
    files = [*tree.root.rglob("src/*"), tree.build / "CMakeCache.txt"]
    before = {path: path.read_bytes() for path in files}
    place = prepare(name, tree)
    assert isinstance(place, Place)
    row = measure(replayer, [bare], name, place.commands)
    assert row.commands == 1
    (only,) = place.commands
    assert Path(only.object).is_file()
    assert (name in {"same-directory", "comment-edited", "branch-and-back"}) == (
        only.object == str(tree.root / "build/a.o")
    )
    if name in {"second-clone", "moved-tree"}:
        build = Path(only.cwd)
        assert (build / "CMakeCache.txt").read_text() == home.format(build.parent)
    if name == "comment-edited":
        assert "edited" in (tree.root / "src/a.h").read_text()
    if place.between is not None:
        assert "corpus_branch" in (tree.root / "src/a.h").read_text()
        place.between()
    place.undo()
    assert {path: path.read_bytes() for path in files} == before
