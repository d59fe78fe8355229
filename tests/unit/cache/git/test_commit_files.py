"""The files of a commit, as git itself has them; a hostile repository can only lack some."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from hpcc.cache.git.commit_files import (
    MAX_FILE_BYTES,
    CommitFiles,
    MissingObjectError,
    NoFile,
    repository_around,
)
from hpcc.cache.git.reading import GitError

_ENV: Final = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{who}_NAME": "a" for who in ("AUTHOR", "COMMITTER")},
    **{f"GIT_{who}_EMAIL": "a@example.com" for who in ("AUTHOR", "COMMITTER")},
}
LONG: Final = b"".join(b"line %d of a long file\n" % n for n in range(4000))
FILES: Final = {
    "a.h": b"int a;\n", "src/main.c": b"int main;\n", "src/deep/er/b.h": LONG, "empty": b"",
    "with space/\xe4.h": b"x\n",
}  # fmt: skip


def git(directory: Path, *args: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *args], env=_ENV, check=True, capture_output=True
    )
    return done.stdout.decode().strip()


def commit(directory: Path, message: str = "one") -> str:
    git(directory, "add", "-A")
    git(directory, "commit", "-q", "-m", message)
    return git(directory, "rev-parse", "HEAD")


def make(directory: Path, form: str = "sha1") -> str:
    """Make a repository with two commits; return the first one's id."""
    directory.mkdir()
    git(directory, "init", "-q", "-b", "main", f"--object-format={form}")
    for name, data in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    (directory / "link.h").symlink_to("src/deep/er/b.h")
    (directory / "inc").symlink_to("src/deep")
    (directory / "src/up").symlink_to("../a.h")
    first = commit(directory)
    git(directory, "tag", "-a", "v1", "-m", "text")
    (directory / "a.h").write_bytes(b"int changed;\n")
    (directory / "src/deep/er/b.h").write_bytes(LONG + b"and more\n")
    commit(directory, "two")
    return first


def opened(directory: Path, revision: str = "v1") -> CommitFiles:
    repository, below = repository_around(str(directory))
    return CommitFiles(repository, revision, below)


def read(directory: Path, path: str, revision: str = "v1") -> bytes | NoFile:
    with opened(directory, revision) as files:
        return files.content(path)


def packed(clone: Path) -> Path:
    git(clone, "gc", "-q", "--aggressive", "--prune=now")
    assert not list(clone.glob(".git/objects/??"))
    return clone


def bare(clone: Path) -> Path:
    git(clone, "clone", "-q", "--bare", ".", "../bare.git")
    return clone.parent / "bare.git"


def worktree(clone: Path) -> Path:
    git(clone, "worktree", "add", "-q", "../tree", "HEAD")
    return clone.parent / "tree"


def borrowing(clone: Path) -> Path:
    git(clone, "clone", "-q", "--shared", ".", "../borrowing")
    return clone.parent / "borrowing"


def dot_git(clone: Path) -> Path:
    return clone / ".git"


@pytest.mark.parametrize("form", ["sha1", "sha256"])
@pytest.mark.parametrize("kept", [Path, packed, bare, worktree, borrowing, dot_git])
def test_each_file_is_the_one_of_the_commit(
    tmp_path: Path, form: str, kept: Callable[[Path], Path]
) -> None:
    first = make(tmp_path / "clone", form)
    with opened(kept(tmp_path / "clone")) as files:
        assert files.commit == first
        for name, data in FILES.items():
            assert files.content(name) == data
        assert files.content("link.h") == files.content("inc/er/b.h") == LONG
        assert files.content("src/up") == FILES["a.h"]
        for name in ("b.h", "src", "a.h/b", "", "/", "../a.h", "src/../../a.h", "src/deep/er/c"):
            assert files.content(name) is NoFile.ABSENT


def test_a_commit_is_found_by_id_tag_branch_and_head(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    first = make(clone)
    second = git(clone, "rev-parse", "HEAD")
    git(clone, "update-ref", "refs/remotes/origin/main", first)
    names = {
        first: first, "v1": first, "refs/tags/v1": first, "main": second, "HEAD": second,
        "refs/heads/main": second, "origin/main": first,
    }  # fmt: skip
    for _ in range(2):
        for name, wanted in names.items():
            with opened(clone, name) as files:
                assert files.commit == wanted
        git(clone, "pack-refs", "--all")


def test_a_name_that_is_none_or_two_is_refused(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    first = make(clone)
    git(clone, "branch", "v1")
    for name, why in {
        "v1": "ambiguous: write refs/tags/v1 or refs/heads/v1", "v2": "no tag or branch 'v2'",
        first[:12]: "an id needs all of its digits", "HEAD~1": "see `git rev-parse`",
        "../HEAD": "see `git rev-parse`", "-x y": "see `git rev-parse`", "": "see `git rev-parse`",
        git(clone, "rev-parse", "HEAD^{tree}"): "is not a commit", "0" * 40: "not in this",
    }.items():  # fmt: skip
        with pytest.raises(GitError, match=why):
            opened(clone, name)
    with pytest.raises(GitError, match="in no git repository"):
        repository_around(str(tmp_path))


def test_a_directory_below_the_top_is_the_projects_root(tmp_path: Path) -> None:
    make(tmp_path / "clone")
    assert read(tmp_path / "clone/src", "main.c") == FILES["src/main.c"]
    # A link may lead above the project's root, and not above the commit's.
    assert read(tmp_path / "clone/src", "up") == FILES["a.h"]


def test_filters_attributes_and_replacements_change_nothing(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    make(clone)
    (clone / ".gitattributes").write_text("*.h filter=evil eol=crlf\n")
    git(clone, "config", "filter.evil.smudge", f"touch {tmp_path}/ran; cat")
    git(clone, "config", "core.fsmonitor", f"touch {tmp_path}/ran")
    blob = git(clone, "hash-object", "-w", "src/main.c")
    git(clone, "replace", git(clone, "rev-parse", "v1:a.h"), blob)
    assert read(clone, "a.h") == FILES["a.h"]
    assert not (tmp_path / "ran").exists()


def test_a_submodule_is_named(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    first = make(clone)
    git(clone, "update-index", "--add", "--cacheinfo", f"160000,{first},third_party/zlib")
    git(clone, "commit", "-q", "-m", "three")
    assert read(clone, "third_party/zlib/zlib.h", "HEAD") is NoFile.SUBMODULE


def test_what_a_shallow_or_partial_clone_lacks_is_missing(tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    first = make(clone)
    name = git(clone, "rev-parse", "v1:a.h")
    (clone / ".git/objects" / name[:2] / name[2:]).unlink()
    assert read(clone, "a.h") is NoFile.UNREADABLE
    tree = git(clone, "rev-parse", "v1:src")
    (clone / ".git/objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(MissingObjectError, match=f"{tree} is not in this repository"):
        read(clone, "src/main.c")
    shutil.rmtree(clone / ".git/objects" / first[:2])
    with pytest.raises(MissingObjectError):
        opened(clone)


@pytest.mark.parametrize("form", [packed, dot_git])
def test_a_file_over_the_limit_is_unreadable_and_the_others_are_read(
    tmp_path: Path, form: Callable[[Path], Path]
) -> None:
    make(tmp_path / "clone")
    (tmp_path / "clone/huge.bin").write_bytes(bytes(MAX_FILE_BYTES + 1))
    (tmp_path / "clone/large.bin").write_bytes(bytes(MAX_FILE_BYTES))
    commit(tmp_path / "clone", "three")
    with opened(form(tmp_path / "clone"), "main") as files:
        assert files.content("huge.bin") is NoFile.UNREADABLE
        assert files.content("large.bin") == bytes(MAX_FILE_BYTES)
        assert files.content("empty") == b""


class Hostile:
    """A repository whose objects are written by hand, by content or by a lie."""

    def __init__(self, directory: Path) -> None:
        for name in ("refs/heads", "objects/pack"):
            (directory / ".git" / name).mkdir(parents=True)
        (directory / ".git/HEAD").write_text("ref: refs/heads/main\n")
        self.directory = directory

    def put(self, kind: str, data: bytes, name: str = "") -> str:
        raw = b"%b %d\0" % (kind.encode(), len(data)) + data
        name = name or hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        path = self.directory / ".git/objects" / name[:2] / name[2:]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(zlib.compress(raw))
        return name

    def tree(self, *entries: tuple[str, str, str]) -> str:
        lines = (f"{m} {n}\0".encode() + bytes.fromhex(i) for m, n, i in entries)
        return self.put("tree", b"".join(lines))

    def commit(self, tree: str) -> None:
        name = self.put("commit", f"tree {tree}\n\n".encode())
        (self.directory / ".git/refs/heads/main").write_text(name)

    def read(self, path: str) -> bytes | NoFile:
        return read(self.directory, path, "HEAD")


@pytest.fixture
def hostile(tmp_path: Path) -> Hostile:
    return Hostile(tmp_path / "hostile")


@pytest.mark.parametrize("kind", ["blob", "tree", "commit"])
def test_an_object_of_another_content_than_its_name_is_refused(hostile: Hostile, kind: str) -> None:
    blob = hostile.put("blob", b"true\n")
    tree = hostile.tree(("100644", "a.h", blob))
    hostile.commit(tree)
    assert hostile.read("a.h") == b"true\n"
    other = hostile.put("blob", b"false\n")
    head = (hostile.directory / ".git/refs/heads/main").read_text()
    lies = {
        "blob": (b"false\n", blob), "tree": (b"100644 a.h\0" + bytes.fromhex(other), tree),
        "commit": (f"tree {hostile.tree(('100644', 'a.h', other))}\n\n".encode(), head),
    }  # fmt: skip
    hostile.put(kind, *lies[kind])
    with pytest.raises(GitError, match="has another content than its name says"):
        hostile.read("a.h")


def test_links_that_leave_the_commit_or_go_round_are_absent(hostile: Hostile) -> None:
    (hostile.directory / "secret").write_bytes(b"secret")
    targets = {"out": "../secret", "abs": "/here", "round": "round", "on": "a/" * 2000 + "x"}
    targets["long"] = "x" * 5000
    entries = [("120000", name, hostile.put("blob", t.encode())) for name, t in targets.items()]
    entries.append(("120000", "a", hostile.put("blob", b".")))
    entries.append(("100644", "here", hostile.put("blob", b"here")))
    hostile.commit(hostile.tree(*entries))
    for name in (*targets, "out/x", "a/" * 3000 + "out"):
        assert hostile.read(name) is NoFile.ABSENT


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"100644 a.h\0" + bytes(19), "another form"),
        (b"100644 a.h", "another form"),
        (b"100644", "another form"),
        (b"1006440 a.h\0" + bytes(20), "another form"),
        (b"-00644 a.h\0" + bytes(20), "another form"),
        (b" a.h\0" + bytes(20), "another form"),
        (b"070000 a.h\0" + bytes(20), "no known kind"),
        (2 * (b"100644 a.h\0" + bytes(20)), "two entries of one name"),
        (b"40000 a.h\0" + b"\x11" * 20, "not in this repository"),
        (bytes(9 << 20), "too large"),
    ],
)
def test_a_tree_of_another_form_is_refused(hostile: Hostile, data: bytes, why: str) -> None:
    hostile.commit(hostile.put("tree", data))
    with pytest.raises(GitError, match=why):
        hostile.read("a.h/b")


def test_objects_of_another_kind_than_their_place_are_refused(hostile: Hostile) -> None:
    blob = hostile.put("blob", b"x")
    hostile.commit(hostile.tree(("40000", "a", blob), ("100644", "b", hostile.tree())))
    for name in ("a/x", "b"):
        with pytest.raises(GitError, match="is of another kind"):
            hostile.read(name)
    tag = hostile.put("tag", f"object {blob}\n".encode())
    (hostile.directory / ".git/refs/heads/main").write_text(tag)
    with pytest.raises(GitError, match="is not a commit"):
        hostile.read("a")


def test_tags_that_lead_on_and_on_are_refused(hostile: Hostile) -> None:
    hostile.commit(hostile.tree())
    name = (hostile.directory / ".git/refs/heads/main").read_text()
    for _ in range(9):
        name = hostile.put("tag", f"object {name}\n".encode())
    (hostile.directory / ".git/refs/heads/main").write_text(name)
    with pytest.raises(GitError, match="is not a commit"):
        hostile.read("a")


def test_a_bomb_takes_little_memory(hostile: Hostile) -> None:
    """A file of a few hundred kilobytes that inflates to 300 MiB."""
    maker = zlib.compressobj(9)
    parts = [maker.compress(b"blob 314572800\0")]
    parts += [maker.compress(bytes(1 << 20)) for _ in range(300)]
    name = "ab" * 20
    path = hostile.directory / ".git/objects/ab" / name[2:]
    path.parent.mkdir()
    path.write_bytes(b"".join([*parts, maker.flush()]))
    hostile.commit(hostile.tree(("100644", "a.h", name)))
    tracemalloc.start()
    try:
        assert hostile.read("a.h") is NoFile.UNREADABLE
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()
