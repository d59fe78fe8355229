"""Links of real linkers through the launcher: outputs as without hpcc, and what the record says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.recorder.link_record import LinkRecord
from hpcc.cache.recorder.reading import recorded_links
from hpcc.config.paths import Paths
from hpcc.daemon.client import query
from hpcc_testkit.cache.launcher import build_launcher, launcher_environment, stop_daemon

SOURCES = {
    "main.c": "int net(void);\nint main(void) { return net(); }\n",
    "net.c": "int net(void) { return 0; }\n",
    "tmp.c": "#include <stdio.h>\nint net(void) { return tmpnam(0) != 0; }\n",
}


class Links:
    """One tree, linked by the driver alone and through the launcher."""

    def __init__(self, tree: Path, launcher: Path, home: Path) -> None:
        self.tree, self.launcher = tree, launcher
        self.env = launcher_environment(home)
        self.paths = Paths.from_env(self.env)
        (home / "config").mkdir(parents=True, exist_ok=True)
        (home / "config/hpcc.toml").write_text("[cache]\nlinks = true\n")

    def run(self, *argv: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            argv, cwd=self.tree, env=self.env, check=False, capture_output=True, timeout=60
        )

    def hpcc(self, *words: str) -> str:
        done = self.run(sys.executable, "-m", "hpcc.cli", *words)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def same(self, output: str, *argv: str) -> bytes:
        """Run a link twice; outcome, messages and the output are the same. Returns the output."""
        seen = []
        for before in ((), (str(self.launcher),)):
            (self.tree / output).unlink(missing_ok=True)
            done = self.run(*before, *argv)
            path = self.tree / output
            content = path.read_bytes() if path.exists() else b""
            mode = path.stat().st_mode if path.exists() else 0
            seen.append((done.returncode, done.stdout, done.stderr, content, mode))
        assert seen[0] == seen[1]
        return seen[0][3]

    def recorded(self) -> list[LinkRecord]:
        query(self.paths, "stats")  # the daemon writes what it has in memory
        return [link.record for link in recorded_links(os.fspath(self.paths.cache)).links]

    def count(self) -> int:
        return len(self.recorded())

    def last(self) -> LinkRecord:
        return self.recorded()[-1]


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Links]:
    base = tmp_path_factory.mktemp("links")
    tree = base / "tree"
    tree.mkdir()
    found = Links(tree, build_launcher(base / "bin"), base / "hpcc")
    found.env["HPCC_BUILD"] = "links"
    for name, text in SOURCES.items():
        (tree / name).write_text(text)
        assert found.run("gcc", "-c", name).returncode == 0
    shutil.copy(tree / "main.o", tree / "a b.o")
    assert found.run("ar", "rc", "libnet.a", "net.o").returncode == 0
    try:
        found.hpcc("start")
        yield found
    finally:
        stop_daemon(found.env)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_link_is_recorded_with_each_file_that_the_linker_read(links: Links) -> None:
    before = links.count()
    made = links.same("app", "gcc", "main.o", "-L.", "-lnet", "-o", "app", "-Wl,-Map=app.map")
    assert links.count() == before + 1  # the driver alone leaves none
    link = links.last()
    assert link.output == (str(links.tree / "app"), hashlib.sha256(made).hexdigest())
    assert link.is_complete, link
    assert " ".join(link.command) == "gcc main.o -L. -lnet -o app -Wl,-Map=app.map"
    files = {os.path.realpath(path): known for path, known in link.inputs}
    for name in ("main.o", "libnet.a"):
        assert files[str(links.tree / name)] == digest(links.tree / name)
    assert any(path.endswith("crtn.o") for path in files)
    assert all(known == digest(Path(path)) for path, known in files.items())
    said = links.hpcc("explain", "app")
    assert link.output.digest in said
    assert link.inputs_digest in said
    report = json.loads(links.hpcc("report", "--json"))
    assert report["links"][-1]["inputs"] == [list(file) for file in link.inputs]
    assert "complete" in links.hpcc("report")
    assert json.loads(links.hpcc("builds", "--json"))["builds"][-1]["links"] == before + 1


def test_a_name_with_a_space_is_one_file(links: Links) -> None:
    before = links.count()
    links.same("spaced", "gcc", "a b.o", "net.o", "-o", "spaced")
    assert links.count() == before + 1
    assert (str(links.tree / "a b.o"), digest(links.tree / "a b.o")) in links.last().inputs


def test_a_warning_and_a_failure_are_those_of_the_command(links: Links) -> None:
    before = links.count()
    links.same("warned", "gcc", "main.o", "tmp.o", "-o", "warned")
    links.same("failed", "gcc", "main.o", "-o", "failed")
    assert links.run(str(links.launcher), "gcc", "main.o", "-o", "failed").returncode == 1
    assert links.count() == before + 1  # of the one that ended well


@pytest.mark.parametrize(
    "words",
    [
        ["-Wl,--dependency-file=own.d"],
        ["-Xlinker", "--dependency-f", "-Xlinker", "own.d"],
        ["-v"],
        ["-Wl,--verbose"],
        ["-o", "/dev/null"],
        ["-Wl,-o,plain"],
        ["-Wl,-Map=/dev/stderr"],
    ],
    ids=["own-list", "own-list-short", "shown", "linker-shows", "special", "output", "process"],
)
def test_a_command_that_could_show_the_word_gets_none(links: Links, words: list[str]) -> None:
    before = links.count()
    done = links.run(str(links.launcher), "gcc", "main.o", "net.o", "-o", "plain", *words)
    assert done.returncode == 0
    assert b"hpcc" not in done.stdout + done.stderr
    assert links.count() == before
    if "own" in str(words):
        assert b"net.o" in (links.tree / "own.d").read_bytes()


def test_what_a_terminal_shows_comes_from_the_linker_itself(links: Links) -> None:
    before = links.count()
    ours, theirs = os.openpty()
    try:
        done = subprocess.run(
            [links.launcher, "gcc", "main.o", "net.o", "-o", "plain"], cwd=links.tree,
            env=links.env, check=False, stderr=theirs, timeout=60,
        )  # fmt: skip
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0
    assert links.count() == before


def test_temporary_objects_of_optimisation_make_a_record_incomplete(links: Links) -> None:
    assert links.run("gcc", "-flto", "-c", "main.c", "-o", "lto.o").returncode == 0
    before = links.count()
    links.same("app", "gcc", "-flto", "lto.o", "net.o", "-o", "app")
    assert links.count() == before + 1
    link = links.last()
    known = dict(link.inputs)
    assert known[str(links.tree / "lto.o")] == digest(links.tree / "lto.o")
    assert link.is_complete == ("gone" not in known.values())


def test_an_output_that_changes_after_its_link_has_no_digest(links: Links) -> None:
    before = links.count()
    shown = 'hpcc="$0"; "$hpcc" gcc main.o net.o -o cut && strip cut'
    assert links.run("sh", "-c", shown, str(links.launcher)).returncode == 0
    assert links.count() == before + 1
    link = links.last()
    assert link.output.digest in {"changed", digest(links.tree / "cut")}
    assert link.is_complete == (link.output.digest != "changed")


@pytest.mark.parametrize("linker", ["gold", "lld"])
def test_each_linker_that_has_the_word_gives_the_same_output(links: Links, linker: str) -> None:
    places = [*map(Path, os.get_exec_path()), *sorted(Path("/usr/lib").glob("llvm-*/bin"))]
    place = next((path for path in places if (path / f"ld.{linker}").exists()), None)
    if place is None:
        pytest.skip(f"no ld.{linker} here")
    before = links.count()
    chosen = f"-fuse-ld={linker}", f"-B{place}/"
    links.same("app", "gcc", *chosen, "a b.o", "libnet.a", "-o", "app")
    assert links.count() == before + 1
    link = links.last()
    assert link.is_complete, link
    assert (str(links.tree / "a b.o"), digest(links.tree / "a b.o")) in link.inputs


def test_a_linker_without_the_word_links_as_before(links: Links, tmp_path: Path) -> None:
    old = tmp_path / "ld"
    real = shutil.which("ld")
    old.write_text(
        f'#!/bin/sh\ncase "$*" in *dependency-file*) echo unknown >&2; exit 1;; *--help*) exit 0;;'
        f' esac\nexec {real} "$@"\n'
    )
    old.chmod(0o755)
    before = links.count()
    links.same("app", "gcc", f"-B{tmp_path}/", "main.o", "net.o", "-o", "app")
    assert links.count() == before
    # Another word, so it is asked again. It says that it has the word, and fails with it: the user's own command decides.
    old.write_text(old.read_text().replace("*--help*) exit 0", "*--help*) echo --dependency-file"))
    links.same("app", "gcc", f"-B{tmp_path}/.", "main.o", "net.o", "-o", "app")
    assert links.count() == before
