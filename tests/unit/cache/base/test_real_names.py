"""Real names of many paths are those of `os.path.realpath`, with fewer looks at the disk."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from hpcc.cache.base.real_names import RealNames


def _names(root: Path, seed: int) -> list[bytes]:
    """Make directories, files and links of all kinds; return names below them."""
    chosen = random.Random(seed)
    directories = ["."]
    kinds = ("directory", "directory", "link", "far link", "dangling", "loop", "ring")
    for number in range(12):
        name = f"{chosen.choice(directories)}/d{number}"
        kind = chosen.choice(kinds)
        if kind == "directory":
            (root / name).mkdir(exist_ok=True)
        elif kind == "loop":
            (root / name).symlink_to(f"d{number}")
        elif kind == "ring":
            (root / name).symlink_to(f"d{number}x")
            (root / f"{name}x").symlink_to(f"d{number}")
        else:
            target = chosen.choice(directories) if kind != "dangling" else "nowhere"
            far = kind == "far link"
            start = str(root) if far else os.path.relpath(root, (root / name).resolve().parent)
            (root / name).symlink_to(f"{start}/{target}")
        if (root / name).is_dir():
            directories.append(name)
    pieces = [f"d{number}" for number in range(12)] + ["..", ".", "f.h", "none"]
    made = [
        "/".join(chosen.choice(pieces) for _ in range(chosen.randrange(1, 5))) for _ in range(60)
    ]
    (root / "f.h").write_text("")
    return [os.fsencode(f"{root}/{name}") for name in (*directories, *made)]


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The paths at which is looked whether they are links."""
    paths: list[bytes] = []
    is_link = os.path.islink

    def counted(path: bytes) -> bool:
        paths.append(path)
        return is_link(path)

    monkeypatch.setattr(os.path, "islink", counted)
    return paths


@pytest.mark.parametrize("seed", range(30))
def test_they_are_those_of_realpath(seed: int, tmp_path: Path) -> None:
    names = RealNames()
    for path in _names(tmp_path, seed):
        assert names.of(path) == os.path.realpath(path)
        assert names.of_directory(path) == os.path.realpath(path)
    assert names.of(b"/") == names.of_directory(b"") == b"/"
    assert names.of(b"/tmp") == os.path.realpath(b"/tmp")


def test_a_very_deep_name_has_one(tmp_path: Path) -> None:
    deep = os.fsencode(tmp_path) + b"/x" * 1500
    assert RealNames().of(deep) == os.path.realpath(deep)


def test_each_directory_is_looked_at_once(tmp_path: Path, looked: list[bytes]) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    paths = [os.fsencode(tmp_path / f"a/b/{number}.h") for number in range(20)]
    names = RealNames()
    assert [names.of(path) for path in paths] == paths
    assert len(looked) == len(set(looked)) == len(paths) + len(tmp_path.parts) + 1


def test_the_way_behind_links_of_one_directory_is_looked_at_once(
    tmp_path: Path, looked: list[bytes]
) -> None:
    (tmp_path / "lib/x86/asm").mkdir(parents=True)
    (tmp_path / "include").mkdir()
    paths = [os.fsencode(tmp_path / f"include/{number}.h") for number in range(20)]
    for path in paths:
        real = os.fsencode(tmp_path / "lib/x86/asm") + path[path.rindex(b"/") :]
        Path(os.fsdecode(real)).write_text("")
        os.symlink(b"../lib/x86/asm" + path[path.rindex(b"/") :], path)
    expected = [os.path.realpath(path) for path in paths]
    names = RealNames()
    assert [names.of(path) for path in paths] == expected
    # Each link, each file, `include` and `lib/x86/asm` with what is before them.
    assert len(looked) <= 2 * len(paths) + len(tmp_path.parts) + 4


def test_a_long_chain_of_links_ends_as_for_realpath(tmp_path: Path) -> None:
    (tmp_path / "f0").write_text("")
    for number in range(1, 60):
        (tmp_path / f"f{number}").symlink_to(f"f{number - 1}")
    for number in (1, 19, 20, 21, 39, 40, 41, 59):
        path = os.fsencode(tmp_path / f"f{number}")
        assert RealNames().of(path) == os.path.realpath(path)


@pytest.mark.parametrize("seed", range(10))
def test_a_name_that_must_lead_somewhere_does_as_for_the_kernel(seed: int, tmp_path: Path) -> None:
    names = RealNames()
    for path in _names(tmp_path, seed):
        if os.path.exists(path):
            assert names.of_existing(path) == os.path.realpath(path, strict=True)
        else:
            with pytest.raises(OSError, match=os.fsdecode(path)):
                names.of_existing(path)
