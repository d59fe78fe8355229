"""GCC writes the real name of a system's header if it is shorter: lengths differ between places."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cache.cache import Cache, open_cache
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc_testkit.cache.compiles import FakeLauncher, FakeRemote, PlacedRemote, run_bare

ENV = {"LC_ALL": "C.UTF-8"}
SYSTEM = "#pragma GCC system_header\n"
CASES = {
    "dots-behind-the-pragma": ("-Iinc", SYSTEM + '#include "../lib/b.h"\n'),
    "no-way-up": ("-Iinc", SYSTEM + '#include "./././b.h"\n'),
    "two-slashes": ("-Iinc", SYSTEM + '#include "..//lib/b.h"\n'),
    "a-long-isystem": ("-isystem ././././inc", '#include "b.h"\n'),
    "one-with-a-slash": ("-isystem ././././inc/", '#include "b.h"\n'),
    "one-with-a-dot": ("-isystem inc/./././.", '#include "b.h"\n'),
    "dots-below-isystem": ("-isystem inc", '#include "../lib/b.h"\n'),
    "dots-below-idirafter": ("-idirafter inc", '#include "../lib/b.h"\n'),
    "an-isystem-behind-dots": ("-isystem lib/../inc", '#include "b.h"\n'),
    "absolute": ("-isystem ROOT/./inc", '#include "../lib/b.h"\n'),
    "nothing-to-shorten": ("-isystem inc", '#include "b.h"\n'),
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may have a real /src")


@pytest.fixture
def remote() -> FakeRemote:
    return PlacedRemote()


def _project(root: Path, header: str) -> Path:
    own = "static const char *const name = __FILE__;\nstatic int first(void) { return name[0]; }\n"
    for name, text in {
        "main.c": "#include <a.h>\nint main(void) { return first(); }\n",
        "inc/a.h": header,
        "inc/b.h": own,
        "lib/b.h": own,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["git", "init", "-q", root], check=True)
    _age(root)
    return root


def _age(root: Path) -> None:
    old = time.time() - 3600
    for path in root.rglob("*"):
        os.utime(path, (old, old), follow_symlinks=False)


def _argv(compiler: str, flags: str, root: Path) -> list[str]:
    words = flags.replace("ROOT", str(root)).split()
    return [compiler, *words, "-MD", "-c", "main.c", "-o", "main.o"]


def _outputs(root: Path) -> tuple[bytes, list[bytes]]:
    """Return the object and the depfile's words, and remove both."""
    found = (root / "main.o").read_bytes(), (root / "main.d").read_bytes().split()
    (root / "main.o").unlink()
    (root / "main.d").unlink()
    return found[0], [word for word in found[1] if word != b"\\"]


def _bare(argv: list[str], root: Path) -> tuple[bytes, list[bytes]]:
    assert run_bare(argv, cwd=root, env=ENV)[0] == 0
    return _outputs(root)


@needs_root
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("debug", ["", "-g "])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_a_guest_gives_the_names_that_the_compiler_writes_here(
    compiler: str,
    debug: str,
    case: str,
    make_cache: Callable[..., Cache],
    remote: FakeRemote,
    tmp_path: Path,
) -> None:
    flags, header = CASES[case]
    root = _project(tmp_path / "proj", header)
    launcher = FakeLauncher(handler=make_cache(remote), cwd=root, env=ENV)
    argv = _argv(compiler, debug + flags, root)
    wanted = _bare(argv, root)
    ended = launcher.compile(*argv)
    assert (ended.exit_code, ended.answer, len(remote.requests)) == (0, "done", 1)
    assert _outputs(root) == wanted


@needs_root
@pytest.mark.parametrize("flags", ["-isystem inc -Ilib", "-Iinc -isystem lib", "-Iinc -Ilib"])
def test_a_system_header_behind_a_link_stays_here(
    flags: str, make_cache: Callable[..., Cache], remote: FakeRemote, tmp_path: Path
) -> None:
    root = _project(tmp_path / "proj", '#include "b.h"\n')
    is_system = flags.startswith("-isystem inc")
    (root / "inc").rename(root / "i")
    (root / "inc").symlink_to("i")
    _age(root)
    cache = make_cache(remote)
    launcher = FakeLauncher(handler=cache, cwd=root, env=ENV)
    argv = _argv("gcc", flags, root)
    wanted = _bare(argv, root)
    assert launcher.compile(*argv).exit_code == 0
    assert _outputs(root) == wanted
    assert bool(remote.requests) is not is_system
    assert cache.counters().get("fallback.respelled-header", 0) == int(is_system)


def _copies(tmp_path: Path, header: str) -> tuple[Path, Path]:
    """Make a project twice; names with 60 characters of dots are longer than one root only."""
    root = _project(tmp_path / "one", header)
    other = tmp_path / ("o" * 120)
    shutil.copytree(root, other)
    _age(other)
    return root, other


def _dots(tmp_path: Path) -> str:
    return "./" * ((len(str(tmp_path)) + 60) // 2)


@pytest.mark.parametrize("is_long_first", [False, True])
@pytest.mark.parametrize("is_marked", [False, True])
@pytest.mark.parametrize("way", ["pragma", "isystem", "isystem-in-text", "slash"])
def test_another_place_gives_the_names_that_the_compiler_writes_there(
    way: str, is_marked: bool, is_long_first: bool, tmp_path: Path, paths: Paths
) -> None:
    dots = _dots(tmp_path)
    flags, header = {
        "pragma": ("-Iinc", f'{SYSTEM}#include "{dots}../lib/b.h"\n'),
        "isystem": (f"-isystem {dots}inc", '#include "b.h"\n'),
        "isystem-in-text": ("-isystem inc", f'#include "{dots}b.h"\n'),
        "slash": (f"-isystem {dots}inc/", '#include "b.h"\n'),
    }[way]
    roots = _copies(tmp_path, header)
    if is_marked:
        for root in roots:
            (root / ".hpcc").touch()
            _age(root)
    time.sleep(0.08)
    first, second = reversed(roots) if is_long_first else roots
    for root in (first, second):
        cache = open_cache(paths, Settings(), None)
        argv = _argv("gcc", flags, root)
        assert FakeLauncher(handler=cache, cwd=root, env=ENV).compile(*argv).exit_code == 0
        cache.close()
        made = _outputs(root)
        # A directory with a slash at its end keeps a compile private, so it gets no maps.
        is_shared = is_marked and way != "slash"
        maps = ["-ffile-prefix-map=" + str(root) + "=."] if is_shared else []
        assert made == _bare([*argv, *maps], root)
