"""git decides which files of a root without a marker may be sent."""

from __future__ import annotations

import os
import random
import subprocess
from pathlib import Path

import pytest

from hpcc.cache.root.git_patterns import match_name, parse_patterns
from hpcc.cache.root.ignored import MAX_BYTES, Outgoing, build_directory
from hpcc.core.reasons.fallback import FallbackReason
from hpcc_testkit.suite.examples import examples

NAMES = ("a", "b", "ab", "a.h", "b.h", "x.h", "build", "foo", "*", "a b", "[x]")
GLOBS = (
    "a", "b", "*", "*.h", "?", "a*", "*b", "[ab]", "[!a]", "**", "x.h", "build", "foo", "\\*",
    "a b", "[a-c]*", ".h", "a.h", "a**b", "**a",
)  # fmt: skip


def withheld(root: Path, name: str, cwd: str = "build", outgoing: Outgoing | None = None) -> str:
    outgoing = outgoing or Outgoing(b"/nonexistent")
    found = outgoing.first_withheld(
        [os.fsencode(root / name)], os.fsencode(root / cwd), os.fsencode(root)
    )
    return "" if found is None else found.reason


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("build", "src/deep", ".git/info"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "build/CMakeCache.txt").touch()
    return tmp_path


def _random_patterns(source: random.Random) -> str:
    lines = []
    for _ in range(source.randint(1, 5)):
        line = "/".join(source.choice(GLOBS) for _ in range(source.randint(1, 3)))
        line = (
            ("/" if source.random() < 0.3 else "") + line + ("/" if source.random() < 0.3 else "")
        )
        lines.append(("!" if source.random() < 0.25 else "") + line)
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("seed", range(examples(12)))
def test_git_ignores_the_same_files(seed: int, tmp_path: Path) -> None:
    source = random.Random(seed)
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text(_random_patterns(source))
    (tmp_path / "a").mkdir()
    (tmp_path / "a/.gitignore").write_text(_random_patterns(source))
    names = set()
    for _ in range(60):
        name = "/".join(source.choice(NAMES) for _ in range(source.randint(1, 4)))
        try:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        except OSError:
            continue  # a file stands where a directory is needed
        if (tmp_path / name).is_file():
            names.add(name)
    asked = subprocess.run(
        ["git", "-C", tmp_path, "check-ignore", "-z", "--stdin", "--no-index"],
        input="\0".join(sorted(names)),
        text=True,
        capture_output=True,
        check=False,
        env={**os.environ, "HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"},
    )
    ignored = {n for n in names if withheld(tmp_path, n, cwd="no-build") == "ignored-input"}
    assert ignored == set(asked.stdout.split("\0")) - {""}


@pytest.mark.parametrize("name", [".git/config", ".env", "src/.ssh/id.h", "build/.x/y.h"])
def test_hidden_files_stay(root: Path, name: str) -> None:
    assert withheld(root, name) == FallbackReason.HIDDEN_INPUT


def test_ignored_files_stay_unless_they_are_in_the_build_directory(root: Path) -> None:
    (root / ".gitignore").write_text("build/\nsecret.h\n")
    assert withheld(root, "src/secret.h") == FallbackReason.IGNORED_INPUT
    assert withheld(root, "src/other.h") == ""
    assert withheld(root, "build/gen.h") == ""
    assert withheld(root, "build/gen.h", cwd="src") == FallbackReason.IGNORED_INPUT


def test_an_edit_of_the_patterns_counts_at_once(root: Path) -> None:
    outgoing = Outgoing(b"/nonexistent")
    assert withheld(root, "src/a.h", outgoing=outgoing) == ""
    (root / "src/.gitignore").write_text("a.h\n")
    assert withheld(root, "src/a.h", outgoing=outgoing) == "ignored-input"
    (root / "src/.gitignore").write_text("b.h\n")
    assert withheld(root, "src/a.h", outgoing=outgoing) == ""


@pytest.mark.parametrize("name", [".gitignore", "src/.gitignore", ".git/info/exclude"])
def test_each_pattern_file_counts(root: Path, name: str) -> None:
    (root / name).write_text("deep\n")
    assert withheld(root, "src/deep/a.h") == "ignored-input"


def test_the_users_own_pattern_file_counts(root: Path, tmp_path: Path) -> None:
    home = tmp_path / "build/home"
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*.key.h\n")
    outgoing = Outgoing(os.fsencode(home))
    assert withheld(root, "src/a.key.h", outgoing=outgoing) == "ignored-input"


@pytest.mark.parametrize("attack", ["size", "link", "pipe", "directory"])
def test_a_pattern_file_that_cannot_be_read_ignores_everything(root: Path, attack: str) -> None:
    path = root / "src/.gitignore"
    match attack:
        case "size":
            path.write_bytes(b"#" * (MAX_BYTES + 1))
        case "link":
            path.symlink_to("/dev/null")
        case "pipe":
            os.mkfifo(path)
        case _:
            path.mkdir()
    assert withheld(root, "src/a.h") == "ignored-input"
    assert withheld(root, "top.h") == ""


def test_a_pattern_of_many_stars_takes_linear_time() -> None:
    name, glob = b"a" * 255, b"*a" * 100 + b"*b"
    assert not match_name(glob, name)
    (pattern,) = parse_patterns(b"/".join([b"**", b"a*"] * 60) + b"/x")
    assert not pattern.matches((b"aa",) * 120, is_directory=False)


def test_the_build_directory_is_the_nearest_with_a_build_systems_file(root: Path) -> None:
    place = os.fsencode(root)
    (root / "build/sub").mkdir()
    assert build_directory(place + b"/build/sub", place) == place + b"/build"
    assert build_directory(place + b"/src", place) == place + b"/src"
    (root / "config.status").touch()
    assert build_directory(place + b"/src", place) == place
