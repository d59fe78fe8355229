"""HEAD and ancestors, as git itself sees them, in all forms in which git stores them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

import pytest

from hpcc.cache.git.ancestors import MAX_ANCESTORS, ancestors_of, head_of
from hpcc.cache.git.objects import Commits
from hpcc.cache.git.reading import GitError
from hpcc.cache.git.refs import Repository, find_repository, read_head

_ENV: Final = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "a" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "a@example.com" for who in ("AUTHOR", "COMMITTER")},
}
# Long and nearly equal, so that a repack makes deltas of the commits.
_TEXT: Final = "\n".join(f"line {n} of a long message" for n in range(60))


def git(directory: Path, *args: str, text: str = "") -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *args], env=_ENV, input=text.encode(), check=True,
        capture_output=True,
    )  # fmt: skip
    return done.stdout.decode().strip()


def make(directory: Path, commits: int = 12, form: str = "sha1") -> Path:
    """Make a repository with a merge in its history, without a working tree's files."""
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main", f"--object-format={form}")
    stream = []
    for n in range(commits):
        text = f"{_TEXT}\n{n}\n"
        stream += ["commit refs/heads/main", f"mark :{n + 1}", f"committer a <a@b> {n} +0000"]
        stream += [f"data {len(text)}", text]
        stream += [f"from :{n}"] if n else []
        stream += ["merge :1"] if n == commits - 2 else []
    # Loose objects, unless a test packs them.
    unpack = ("-c", "fastimport.unpackLimit=1000")
    git(directory, *unpack, "fast-import", "--quiet", text="\n".join(stream) + "\n")
    return directory


def expected(directory: Path, limit: int = MAX_ANCESTORS) -> set[str]:
    return set(git(directory, "rev-list", "HEAD").split()[:limit])


def found(directory: Path, limit: int = MAX_ANCESTORS) -> tuple[str, ...]:
    root = os.fsencode(directory)
    return ancestors_of(root, b"/", head_of(root, b"/"), limit)


@pytest.mark.parametrize("form", ["sha1", "sha256"])
@pytest.mark.parametrize("stored", ["loose", "packed", "deltas"])
def test_ancestors_are_those_of_git(tmp_path: Path, form: str, stored: str) -> None:
    repository = make(tmp_path / "r", form=form)
    if stored != "loose":
        git(repository, "pack-refs", "--all")
        depth = "50" if stored == "deltas" else "0"
        git(repository, "repack", "-adfq", f"--depth={depth}", "--window=50")
    if stored == "deltas":
        (pack,) = (repository / ".git/objects/pack").glob("*.idx")
        text = git(repository, "verify-pack", "-v", str(pack))
        assert any(len(line.split()) == 7 for line in text.splitlines() if " commit " in line)
    names = found(repository)
    assert len(names) == 12
    assert set(names) == expected(repository)
    assert names[0] == git(repository, "rev-parse", "HEAD")
    assert names[1] == git(repository, "rev-parse", "HEAD^")


def test_the_search_ends_at_the_limit(tmp_path: Path) -> None:
    repository = make(tmp_path / "r")
    names = found(repository, 5)
    assert len(names) == 5
    assert names[:3] == tuple(git(repository, "rev-list", "HEAD", "-n", "3").split())


def test_a_worktree_has_its_own_head_and_the_common_objects(tmp_path: Path) -> None:
    repository = make(tmp_path / "r")
    old = git(repository, "rev-parse", "HEAD~3")
    git(repository, "worktree", "add", "-q", "-b", "other", str(tmp_path / "w"), old)
    git(repository, "pack-refs", "--all")
    assert found(tmp_path / "w")[0] == old
    git(tmp_path / "w", "checkout", "-q", "--detach")
    assert set(found(tmp_path / "w")) == expected(tmp_path / "w")


def test_a_submodule_and_a_directory_below_are_found(tmp_path: Path) -> None:
    inner, outer = make(tmp_path / "inner"), make(tmp_path / "outer")
    allow = ("-c", "protocol.file.allow=always")
    git(outer, *allow, "submodule", "--quiet", "add", str(inner), "sub")
    (outer / "sub/deep/er").mkdir(parents=True)
    assert found(outer / "sub/deep/er") == found(inner)


def test_alternates_are_looked_into(tmp_path: Path) -> None:
    repository = make(tmp_path / "r")
    git(tmp_path, "clone", "-q", "--shared", str(repository), "c")
    assert found(tmp_path / "c") == found(repository)


def test_a_shallow_clone_ends_early(tmp_path: Path) -> None:
    repository = make(tmp_path / "r")
    git(tmp_path, "clone", "-q", "--depth=3", f"file://{repository}", "c")
    names = found(tmp_path / "c")
    assert names[:3] == found(repository)[:3]


def test_an_unborn_branch_has_no_commit(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    with pytest.raises(GitError, match="names no commit"):
        head_of(os.fsencode(tmp_path), b"/")


def test_without_a_repository_there_is_no_head(tmp_path: Path) -> None:
    assert find_repository(os.fsencode(tmp_path)) is None
    assert ancestors_of(os.fsencode(tmp_path), os.fsencode(tmp_path), "a" * 40) == ("a" * 40,)


def test_an_offset_beyond_31_bits_is_read_from_the_second_table(tmp_path: Path) -> None:
    """`git index-pack --index-version=2,0` writes every offset there."""
    repository = make(tmp_path / "r")
    names = expected(repository)
    git(repository, "repack", "-adq")
    directory = repository / ".git/objects/pack"
    (pack,) = directory.glob("*.pack")
    pack.with_suffix(".idx").unlink()
    git(repository, "index-pack", "--index-version=2,0x1", str(pack))
    assert set(found(repository)) == names


def test_a_commit_that_is_absent_has_no_parents(tmp_path: Path) -> None:
    repository = find_repository(os.fsencode(make(tmp_path / "r")))
    assert repository is not None
    with Commits(repository) as commits:
        assert commits.parents(b"0" * 40) == ()


def test_refs_may_point_to_refs(tmp_path: Path) -> None:
    repository = make(tmp_path / "r")
    (repository / ".git/refs/heads/alias").write_text("ref: refs/heads/main\n")
    (repository / ".git/HEAD").write_text("ref: refs/heads/alias\n")
    where = Repository(*[os.fsencode(repository / ".git")] * 2)
    assert read_head(where).decode() == git(repository, "rev-parse", "main")
