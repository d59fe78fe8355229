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
    for number in range(12):
        name = f"{chosen.choice(directories)}/d{number}"
        kind = chosen.choice(("directory", "directory", "link", "far link", "dangling", "loop"))
        if kind == "directory":
            (root / name).mkdir(exist_ok=True)
        elif kind == "loop":
            (root / name).symlink_to(f"d{number}")
        else:
            target = chosen.choice(directories) if kind != "dangling" else "nowhere"
            far = kind == "far link"
            start = str(root) if far else os.path.relpath(root, (root / name).parent)
            (root / name).symlink_to(f"{start}/{target}")
        if (root / name).is_dir():
            directories.append(name)
    pieces = [f"d{number}" for number in range(12)] + ["..", ".", "f.h", "none"]
    made = [
        "/".join(chosen.choice(pieces) for _ in range(chosen.randrange(1, 5))) for _ in range(60)
    ]
    (root / "f.h").write_text("")
    return [os.fsencode(f"{root}/{name}") for name in (*directories, *made)]


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


def test_each_directory_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    paths = [os.fsencode(tmp_path / f"a/b/{number}.h") for number in range(20)]
    looked: list[bytes] = []
    is_link = os.path.islink

    def counted(path: bytes) -> bool:
        looked.append(path)
        return is_link(path)

    monkeypatch.setattr(os.path, "islink", counted)
    names = RealNames()
    assert [names.of(path) for path in paths] == paths
    assert len(looked) == len(set(looked)) == len(paths) + len(tmp_path.parts) + 1


@pytest.mark.parametrize("seed", range(10))
def test_a_name_that_must_lead_somewhere_does_as_for_the_kernel(seed: int, tmp_path: Path) -> None:
    names = RealNames()
    for path in _names(tmp_path, seed):
        if os.path.exists(path):
            assert names.of_existing(path) == os.path.realpath(path, strict=True)
        else:
            with pytest.raises(OSError, match=os.fsdecode(path)):
                names.of_existing(path)
