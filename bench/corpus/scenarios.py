"""The trees of each scenario: what changes between the build that fills a cache and the next."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from corpus.recording import Command, headers_of, rebased

NAMES: Final = (
    "same-directory",
    "new-build-directory",
    "second-clone",
    "moved-tree",
    "second-target",
    "comment-edited",
    "branch-and-back",
)
# Files that are younger than this may change once more within a tick of the clock.
_SETTLE_SECONDS: Final = 2.5


@dataclass
class Place:
    """A prepared tree: the commands to run there. `between` runs once each tool was run there.

    After `between` each tool runs again, and that run counts.
    """

    commands: Sequence[Command]
    undo: Callable[[], None] = lambda: None
    between: Callable[[], None] | None = None
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Tree:
    """A built package: `root` holds src and, unless the build is in the tree, build."""

    root: Path
    commands: Sequence[Command]

    @property
    def build(self) -> Path:
        return self.root / "build"


def prepare(name: str, tree: Tree) -> Place | None:
    """Make the tree of a scenario; None if the package has no such scenario."""
    place = _MAKERS[name](tree)
    if place is not None:
        time.sleep(_SETTLE_SECONDS)
    return place


def _same(tree: Tree) -> Place:
    return Place(tree.commands)


def _new_build(tree: Tree) -> Place | None:
    if not tree.build.is_dir():
        return None
    new = tree.root / "build-2"
    shutil.copytree(tree.build, new, symlinks=True)
    moved = [command.moved(str(tree.build), str(new)) for command in tree.commands]
    return Place(moved, lambda: shutil.rmtree(new))


def _clone(tree: Tree) -> Place:
    new = tree.root.parent / "clone"
    # A checkout gives files new times.
    shutil.copytree(tree.root, new, symlinks=True, copy_function=_copy_anew)
    configure_anew(new, tree.root)
    moved = [command.moved(str(tree.root), str(new)) for command in tree.commands]
    return Place(moved, lambda: shutil.rmtree(new))


def _copy_anew(source: str, target: str) -> str:
    shutil.copyfile(source, target)
    shutil.copymode(source, target)
    return target


def _moved(tree: Tree) -> Place:
    new = tree.root.parent / "elsewhere"
    tree.root.rename(new)
    configure_anew(new, tree.root)
    moved = [command.moved(str(tree.root), str(new)) for command in tree.commands]
    return Place(moved, lambda: _move_back(new, tree.root))


def _move_back(new: Path, old: Path) -> None:
    new.rename(old)
    configure_anew(old, new)


def configure_anew(root: Path, old: Path) -> None:
    """Write the tree's new path into CMake's cache, as CMake does when it configures there."""
    path = root / "build/CMakeCache.txt"
    if path.is_file():
        text = path.read_text(errors="surrogateescape")
        path.write_text(rebased(text, str(old), str(root)), errors="surrogateescape")


def _second_target(tree: Tree) -> Place:
    return Place([command.retargeted() for command in tree.commands])


def _comment(tree: Tree) -> Place:
    files = [*_sources(tree), *_shared_headers(tree)]
    old = {path: path.read_bytes() for path in files}
    for path, data in old.items():
        path.write_bytes(edited_comment(data))
    return Place(tree.commands, lambda: _restore(old))


def _branch(tree: Tree) -> Place:
    files = [*_shared_headers(tree), *_sources(tree)[:1]]
    old = {path: path.read_bytes() for path in files}
    for path, data in old.items():
        path.write_bytes(data + b"\nextern int corpus_branch;\n")

    def back() -> None:
        _restore(old)
        time.sleep(_SETTLE_SECONDS)

    return Place(tree.commands, lambda: _restore(old), back)


def _restore(files: dict[Path, bytes]) -> None:
    for path, data in files.items():
        path.write_bytes(data)


def _sources(tree: Tree) -> list[Path]:
    """Return the sources in C and its relatives; assembler has other comments."""
    names = {
        os.path.normpath(os.path.join(c.cwd, c.source))
        for c in tree.commands
        if not c.is_assembler and not c.source.endswith((".i", ".ii"))
    }
    return [Path(name) for name in sorted(names) if _is_own(tree, name)]


def _is_own(tree: Tree, name: str) -> bool:
    """Tell whether a file is in the tree; a link may lead to sources that the machine has."""
    return name.startswith(f"{tree.root}/") and Path(name).resolve().is_relative_to(
        tree.root.resolve()
    )


def _shared_headers(tree: Tree) -> list[Path]:
    """Return the header of the project that most of the commands read; empty without depfiles."""
    texts = []
    for command in tree.commands:
        path = os.path.join(command.cwd, command.depfile)
        if command.depfile and os.path.isfile(path):
            words = Path(path).read_text(errors="replace").split()
            texts.append(" ".join(os.path.join(command.cwd, word) for word in words))
    names = headers_of(texts, str(tree.root))
    return [Path(name) for name in names if Path(name).is_file() and _is_own(tree, name)][:1]


def edited_comment(data: bytes) -> bytes:
    """Return a source with a word more in its first comment, or with a comment at its end.

    No line is added before the end, so that no line number changes.
    """
    at = 0
    for line in data.splitlines(keepends=True):
        text = line.lstrip()
        if text.startswith((b"/*", b"//")):
            start = at + len(line) - len(text) + 2
            return data[:start] + b" edited " + data[start:]
        at += len(line)
    return data + (b"" if data.endswith(b"\n") else b"\n") + b"/* edited */\n"


_MAKERS: Final[dict[str, Callable[[Tree], Place | None]]] = {
    "same-directory": _same,
    "new-build-directory": _new_build,
    "second-clone": _clone,
    "moved-tree": _moved,
    "second-target": _second_target,
    "comment-edited": _comment,
    "branch-and-back": _branch,
}
