"""Two machines and a place: what one compiled, the other gets without compiling."""

from __future__ import annotations

from pathlib import Path

from hpcc.cache.results.records_read import read_records
from hpcc_testkit.cache.machines import signing_key, writer

from .conftest import MAIN, OTHER, Team


def test_a_colleague_hits_without_compiling_and_gets_the_bytes_of_the_compiler(team: Team) -> None:
    ci, ann = team.ci(), team.machine("ann")
    first = ci.compile(*MAIN)
    assert first.answer == "run"
    ci.flush()
    assert ci.count("remote-cache.uploaded") == 1
    hit = ann.compile(*MAIN)
    assert (hit.answer, hit.exit_code) == ("done", 0)
    assert (ann.count("hit.signed"), ann.count("remote-cache.found")) == (1, 1)
    served, depfile = ann.read("main.o"), ann.read("main.d")
    assert served == ci.read("main.o")
    assert bytes(ann.root) not in served
    assert hit.stderr == first.stderr  # with a warning about `unused`, at a relative path
    assert b"unused" in hit.stderr
    maps = [f"-fmacro-prefix-map={ann.root}/=./", f"-fdebug-prefix-map={ann.root}/=/proc/self/cwd/"]
    ann.bare(*MAIN, *maps, f"-fdebug-prefix-map={ann.root}=/proc/self/cwd")
    assert (served, depfile) == (ann.read("main.o"), ann.read("main.d"))


def test_the_second_compile_is_local_and_asks_nobody(team: Team, tmp_path: Path) -> None:
    ci, ann = team.ci(), team.machine("ann")
    ci.compile(*MAIN)
    ci.flush()
    assert ann.compile(*MAIN).answer == "done"
    for path in (tmp_path / "shared").rglob("*"):
        if path.is_file():
            path.unlink()
    ann.restart()
    assert ann.compile(*MAIN).answer == "done"
    assert ann.counted("remote-cache.")["found"] == 1  # of the daemon before


def test_an_entry_takes_no_place_of_a_result_that_was_made_here(team: Team) -> None:
    ci, ann = team.ci(), team.machine("ann")
    assert ann.compile(*MAIN).answer == "run"
    own = ann.read("main.o")
    ci.compile(*MAIN)
    ci.flush()
    ann.restart()
    assert ann.compile(*MAIN).answer == "done"
    assert (ann.count("hit.local"), ann.count("hit.signed")) == (1, 0)
    # What was fetched is not this machine's result, and ends with its key.
    assert ann.compile(*OTHER).answer == "run"
    ci.compile(*OTHER)
    ci.flush()
    bob = team.machine("bob")
    assert bob.compile(*OTHER).answer == "done"
    bob.remote["revoked_keys"] = (team.key.key.line,)
    bob.restart()
    assert bob.compile(*OTHER).answer == "run"
    assert (bob.count("hit.local"), bob.count("hit.signed")) == (1, 1)
    assert ann.read("main.o") == own


def test_a_compile_that_differs_in_one_header_is_compiled(team: Team) -> None:
    ci, ann = team.ci(), team.machine("ann")
    ci.compile(*MAIN)
    ci.flush()
    (ann.root / "src/util.h").write_text("#define CONF 8\n")
    ann.age()
    assert ann.compile(*MAIN).answer == "run"
    assert ann.count("remote-cache.other-inputs") == 1
    assert ann.count("hit.signed") == 0


def test_an_equal_file_behind_a_link_may_have_another_name_and_is_compiled(team: Team) -> None:
    """GCC writes a system header's real name if that is shorter."""
    ci, ann = team.ci(), team.machine("ann")
    for machine in (ci, ann):
        (machine.root / "wide/low").mkdir(parents=True)
        (machine.root / "wide/low/conf.h").write_text("#define CONF 9\n")
        (machine.root / "wide/conf.h").write_text('#include "over/conf.h"\n')
        (machine.root / "src/other.c").write_text("#include <conf.h>\nint other = CONF;\n")
    (ci.root / "wide/over").mkdir()
    (ci.root / "wide/over/conf.h").write_text("#define CONF 9\n")
    (ann.root / "wide/over").symlink_to("low")
    for machine in (ci, ann):
        machine.age()
        argv = ("gcc", "-g", "-isystem", f"{machine.root}/wide", "-c", "src/other.c")
        assert machine.compile(*argv).answer == "run"
        ci.flush()
    assert ci.count("remote-cache.uploaded") == 1
    assert (ann.count("remote-cache.found"), ann.count("hit.signed")) == (1, 0)


def test_several_states_of_a_header_are_kept(team: Team) -> None:
    ci, ann, bob = team.ci(), team.machine("ann"), team.machine("bob")
    ci.compile(*MAIN)
    (ci.root / "src/util.h").write_text("#define CONF 8\n")
    ci.age()
    ci.compile(*MAIN)
    ci.flush()
    (bob.root / "src/util.h").write_text("#define CONF 8\n")
    bob.age()
    assert [ann.compile(*MAIN).answer, bob.compile(*MAIN).answer] == ["done", "done"]
    assert ann.read("main.o") != bob.read("main.o")


def test_a_unit_without_modules_is_shared_with_its_list_of_modules(team: Team) -> None:
    """As CMake compiles every C++20 source with GCC 14; the list is a further output."""
    modules = ("-fmodules-ts", "-fmodule-mapper=a.modmap", "-fdeps-format=p1689r5")
    argv = ("g++-14", "-g", "-Isrc", "-MD", *modules, "-x", "c++", "-c", "src/other.c", "-o", "a.o")
    ci, ann = team.ci(), team.machine("ann")
    for machine in (ci, ann):
        (machine.root / "a.modmap").write_text("$root .\n")
        machine.age()
    assert ci.compile(*argv).answer == "run"
    ci.flush()
    assert ann.compile(*argv).answer == "done"
    assert ann.count("hit.signed") == 1
    for name in ("a.o", "a.d", "a.ddi"):
        assert ann.read(name) == ci.read(name)


def test_an_equal_result_is_uploaded_once(team: Team) -> None:
    ci, other = team.ci(), team.ci("ci2")
    for machine in (ci, other):
        machine.compile(*MAIN)
        machine.flush()
    # The second machine found what the first one had uploaded.
    assert other.counted("remote-cache.") == {
        "found": 1,
        "bytes-read": other.count("remote-cache.bytes-read"),
    }
    third = team.ci("ci3", trusted_keys=())
    assert third.compile(*MAIN).answer == "run"
    third.flush()
    assert third.counted("remote-cache.") == {"no-keys": 1, "unchanged": 1}


def test_only_what_this_daemon_compiled_is_signed(team: Team) -> None:
    """A result of an earlier build, or of a colleague, is not CI's word."""
    ci = team.ci(mode="read")
    assert ci.compile(*MAIN).answer == "run"
    ci.restart()
    ci.remote["mode"] = "write"
    assert [ci.compile(*MAIN).answer, ci.compile(*OTHER).answer] == ["done", "run"]
    ci.flush()
    assert ci.counted("remote-cache.")["uploaded"] == 1
    # What a colleague signed is not signed again by who fetched it.
    bob_key = team.directory / "bob.key"
    bob_line = signing_key(bob_key).key.line
    bob = team.machine("bob", **writer(bob_key), trusted_keys=(team.key.key.line, bob_line))
    assert bob.compile(*OTHER).answer == "done"
    bob.flush()
    assert "uploaded" not in bob.counted("remote-cache.")


def test_a_failed_compile_is_not_uploaded(team: Team) -> None:
    ci = team.ci()
    (ci.root / "src/main.c").write_text("#error\n")
    ci.age()
    assert ci.compile(*MAIN).exit_code != 0
    ci.flush()
    assert "uploaded" not in ci.counted("remote-cache.")


def test_without_a_url_there_is_no_remote_cache(team: Team) -> None:
    ann = team.machine("ann", url="")
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.") == {}


def test_a_private_compile_is_neither_asked_nor_uploaded(team: Team) -> None:
    ci = team.ci()
    (ci.root / ".hpcc").unlink()
    assert ci.compile(*MAIN).answer == "run"
    ci.flush()
    assert ci.counted("remote-cache.") == {}


def test_clang_and_gcc_do_not_meet(team: Team) -> None:
    ci, ann = team.ci(), team.machine("ann")
    ci.compile(*MAIN)
    ci.flush()
    command = ("clang", *MAIN[1:])
    assert ann.compile(*command).answer == "run"
    ci.compile(*command)
    ci.flush()
    assert team.machine("bob").compile(*command).answer == "done"


def test_an_outline_of_a_command_has_two_bytes_of_each_flag(team: Team) -> None:
    """More could be tried against values that are easy to guess."""
    ann, bob = team.machine("ann"), team.machine("bob")
    for machine in (ann, bob):
        assert machine.compile(*MAIN, "-DTOKEN=secret", "-O2").answer == "run"
        machine.restart()  # writes the records
    mine, same = (read_records(str(machine.paths.cache))[-1].command for machine in (ann, bob))
    assert mine is not None
    assert mine == same  # also in another checkout
    assert {name for name, _ in mine.flags} >= {b"-D", b"-O", b"-I", b"-o"}
    assert {len(value) for _, value in mine.flags} == {2}


def test_outlines_are_uploaded_once_and_serve_nothing(team: Team, tmp_path: Path) -> None:
    ci = team.ci(outlines=True)
    for command in (MAIN, (*MAIN, "-O1")):
        ci.compile(*command)
    ci.flush()
    files = sorted(p for p in (tmp_path / "shared").rglob("*") if p.is_file())
    outlines = [p for p in files if "outlines" in p.parts]
    # Both commands compile one source, so their outlines share an object.
    assert (len(files), len(outlines)) == (3, 1)
    entry = next(p for p in files if p not in outlines)
    for path in files:
        if path not in outlines:
            path.write_bytes(outlines[0].read_bytes())
    ann = team.machine("ann")
    assert ann.compile(*MAIN).answer == "run"
    assert ann.counted("remote-cache.refused.") == {"malformed": 1}
    assert entry.is_file()
