"""Links that could show what hpcc added, or record what was not linked. Without a daemon."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc.cache.base.api import Exec
from hpcc.cache.cache import Cache, open_cache
from hpcc.cache.recorder.link_record import LinkRecord
from hpcc.cache.recorder.reading import recorded_links
from hpcc.config.paths import Paths
from hpcc.config.settings import CacheSettings, Settings
from hpcc_testkit.cache.compiles import FakeLauncher, run_bare

LINK = ("gcc", "main.o", "net.o", "-o", "app")


class Links:
    """A tree, and a cache in this process that records its links."""

    def __init__(self, base: Path) -> None:
        self.tree = base / "tree"
        self.tree.mkdir()
        self.paths = Paths.from_env({"HPCC_DIR": str(base / "hpcc")})
        self.cache: Cache = open_cache(self.paths, Settings(cache=CacheSettings(links=True)), None)
        self.launcher = FakeLauncher(handler=self.cache, cwd=self.tree)
        (self.tree / "main.c").write_text("int net(void);\nint main(void) { return net(); }\n")
        (self.tree / "net.c").write_text("int net(void) { return 0; }\n")
        subprocess.run(["gcc", "-c", "main.c", "net.c"], cwd=self.tree, check=True)
        time.sleep(0.1)  # what was made so is older than each link

    def recorded(self) -> list[LinkRecord]:
        self.cache.counters()
        return [link.record for link in recorded_links(os.fspath(self.paths.cache)).links]


@pytest.fixture
def links(tmp_path: Path) -> Iterator[Links]:
    found = Links(tmp_path)
    yield found
    found.cache.close()


def test_a_last_word_without_its_value_takes_the_word_that_it_took(links: Links) -> None:
    app = links.tree / "app"
    for word in ("-Wl,-rpath", "-Wl,-z", "-Wl,-e"):
        bare = (*run_bare((*LINK, word), cwd=links.tree), app.read_bytes())
        ours = links.launcher.compile(*LINK, word)
        assert (ours.exit_code, ours.stdout, ours.stderr, app.read_bytes()) == bare, word
        assert ours.answer == "run"
    assert len(links.recorded()) == 3


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang here")
def test_a_variable_that_edits_the_command_keeps_it(links: Links) -> None:
    links.launcher.env = {"CCC_OVERRIDE_OPTIONS": "+-v"}
    answer = links.launcher.compile("clang", *LINK[1:])
    assert (answer.answer, answer.exit_code) == ("exec", 0)
    assert b"main.o" in answer.stderr
    assert b"--dependency-file" not in answer.stderr


def test_a_pipe_is_read_once(links: Links) -> None:
    os.mkfifo(links.tree / "list.pipe")
    # A link that fails runs again, and would wait for a second writer.
    words = ("gcc", "main.o", "-o", "app", "-Wl,--dynamic-list=list.pipe")
    answer = links.cache.begin(links.launcher.request(words), lambda: False)
    assert isinstance(answer, Exec)


def test_an_output_that_a_script_names_is_not_recorded_as_another(links: Links) -> None:
    script = "SECTIONS { .x : { *(.x) } } INSERT AFTER .text;\nOUTPUT(named)\n"
    (links.tree / "named.ld").write_text(script)
    (links.tree / "a.out").write_text("old")
    time.sleep(0.1)
    answer = links.launcher.compile("gcc", "main.o", "net.o", "-T", "named.ld")
    assert (answer.answer, answer.exit_code) == ("run", 0)
    assert (links.tree / "named").exists()
    assert (links.tree / "a.out").read_text() == "old"
    assert links.recorded() == []


def test_a_name_that_led_elsewhere_has_no_digest(links: Links) -> None:
    tree = links.tree
    for place in ("before", "after"):
        (tree / place).mkdir()
        shutil.copy(tree / "net.o", tree / place / "n.o")
    (tree / "way").symlink_to("before")
    time.sleep(0.1)

    def lead_elsewhere(_run: object) -> None:
        (tree / "way").unlink()
        (tree / "way").symlink_to("after")

    links.launcher.after_run = lead_elsewhere
    assert links.launcher.compile("gcc", "main.o", "way/n.o", "-o", "app").exit_code == 0
    (record,) = links.recorded()
    known = {os.path.relpath(path, tree): found for path, found in record.inputs}
    assert known["way/n.o"] == "changed"
    assert known["main.o"] == hashlib.sha256((tree / "main.o").read_bytes()).hexdigest()
