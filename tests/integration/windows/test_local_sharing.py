"""Two checkouts on Windows share results: the native clang-cl under Wine.

What a hit writes is compared with what the compiler itself makes in that checkout with the same
flags. With `/Brepro` no object holds the time.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcc_testkit.windows.agent import drive_c
from hpcc_testkit.windows.client import WindowsClient
from hpcc_testkit.windows.native_clang import PLACES, install_clang_cl, windows_name
from hpcc_testkit.windows.wine import Wine

pytestmark = pytest.mark.timeout(600)
ROOTS = "users/Jürgen/one", "w/the second"
SOURCE = """#include "h.h"
#include <v.h>
struct Own { virtual int f(); };
int Own::f() { return X; }
int made() { Own own; return own.f() + V; }
const char *file() { return __FILE__; }
const char *header() { return HERE; }
"""


@pytest.fixture(scope="module")
def client(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[WindowsClient]:
    clang = install_clang_cl(wine, PLACES[0])
    made = WindowsClient(wine, tmp_path_factory.mktemp("sharing"), clang, "sharing")
    (drive_c(wine) / "VC/include").mkdir(parents=True, exist_ok=True)
    (drive_c(wine) / "VC/include/v.h").write_text("#define V 4\n")
    made.env = {"VCToolsInstallDir": "C:\\VC", "INCLUDE": "C:\\VC\\include"}
    with made.daemon():
        yield made


def checkouts(client: WindowsClient) -> tuple[Path, Path]:
    made = []
    for name in ROOTS:
        root = drive_c(client.wine) / name
        shutil.rmtree(root, ignore_errors=True)
        for part in ("src", "inc", "build"):
            (root / part).mkdir(parents=True)
        (root / ".hpcc").write_text("")
        (root / "src/x.cpp").write_text(SOURCE)
        (root / "inc/h.h").write_text("#define X 3\n#define HERE __FILE__\n")
        made.append(root)
    time.sleep(0.3)
    return made[0], made[1]


def compiled(
    client: WindowsClient, root: Path, *argv: str, runs: int, bare: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Compile in the directory for builds of a checkout."""
    client.cwd, before = root / "build", client.clang.runs
    run = client.bare if bare else client.compile
    done = run("/nologo", "/c", "/EHsc", "/W4", "/Brepro", *argv)
    assert done.returncode == 0, done
    assert bool(client.clang.runs - before) is bool(runs)
    return done


def arguments(client: WindowsClient, root: Path, style: str) -> tuple[str, ...]:
    """Return arguments as CMake writes them for Ninja: whole paths of sources and directories."""
    name = windows_name(client.wine, root).replace("\\", style)
    return "/showIncludes", f"-I{name}{style}inc", "/Fox.obj", f"{name}{style}src{style}x.cpp"


@pytest.mark.parametrize("style", ["\\", "/"])
def test_the_second_checkout_hits_and_has_its_own_object(client: WindowsClient, style: str) -> None:
    one, two = checkouts(client)
    before = client.stats()
    first = compiled(client, one, *arguments(client, one, style), runs=1)
    second = compiled(client, two, *arguments(client, two, style), runs=0)
    after = client.stats()
    assert after["hit.shared"] - before.get("hit.shared", 0) == 1
    assert not [n for n in after if n.startswith("private.") and after[n] != before.get(n, 0)]
    made = (two / "build/x.obj").read_bytes()
    root = windows_name(client.wine, two)
    maps = (f"-clang:-ffile-prefix-map={root}=.", "-clang:-fno-file-reproducible")
    own = compiled(client, two, *maps, *arguments(client, two, style), runs=1, bare=True)
    assert made == (two / "build/x.obj").read_bytes()
    assert (second.stdout, second.stderr) == (own.stdout, own.stderr)
    assert first.stdout != second.stdout
    # The launcher answers alone, in both checkouts; with another marker it asks the daemon.
    for root, asked in ((two, 0), (one, 1), (one, 0)):
        before_hits, expected = client.launcher_hits, (root / "build/x.obj").read_bytes()
        (root / "build/x.obj").unlink()
        compiled(client, root, *arguments(client, root, style), runs=0)
        assert (client.launcher_hits == before_hits + 1) is not bool(asked)
        assert (root / "build/x.obj").read_bytes() == expected
    assert client.stats()["hit.shared"] - before.get("hit.shared", 0) == 2
    # Only the real path of a directory differs.
    (two / "inc").rename(two / "INC")
    for asked in (1, 0):
        before_hits = client.launcher_hits
        compiled(client, two, *arguments(client, two, style), runs=0)
        assert (client.launcher_hits == before_hits + 1) is not bool(asked)
    (two / "INC").rename(two / "inc")
    (two / ".hpcc").unlink()
    before_hits = client.launcher_hits
    unmapped = compiled(client, two, *arguments(client, two, style), runs=1)
    assert (two / "build/x.obj").read_bytes() != made
    assert client.launcher_hits != before_hits + 1
    assert unmapped.stdout == second.stdout
    (two / ".hpcc").write_text("")
    time.sleep(0.3)
    compiled(client, two, *arguments(client, two, style), runs=0)
    assert client.launcher_hits != before_hits + 1
    assert (two / "build/x.obj").read_bytes() == made
    # A change in one checkout is a miss there, and none of the other's business.
    (two / "inc/h.h").write_text("#define X 4\n#define HERE __FILE__\n")
    time.sleep(0.3)
    compiled(client, two, *arguments(client, two, style), runs=1)
    compiled(client, one, *arguments(client, one, style), runs=0)
    assert (one / "build/x.obj").read_bytes() == made
    assert (two / "build/x.obj").read_bytes() != made


def test_what_names_the_checkout_stays_there(client: WindowsClient) -> None:
    one, two = checkouts(client)
    before = client.stats()
    for root in (one, two):
        text = windows_name(client.wine, root).replace("\\", "\\\\")
        (root / "src/x.cpp").write_text(f'const char *where() {{ return "{text}"; }}\n')
    time.sleep(0.3)
    for root in (one, two):
        compiled(client, root, "../src/x.cpp", runs=1)
        compiled(client, root, "../src/x.cpp", runs=0)
    after = client.stats()
    assert after["private.root-in-source"] - before.get("private.root-in-source", 0) == 2
    # clang hashes the source's path for an unnamed namespace, as it is spelled.
    for root in (one, two):
        (root / "src/x.cpp").write_text(
            "namespace { struct S { virtual int f() { return 1; } }; }\nint g() { S s; return s.f(); }\n"
        )
    time.sleep(0.3)
    for root in (one, two):
        compiled(client, root, *arguments(client, root, "/"), runs=1)
    assert client.stats()["private.embeds-path"] == before.get("private.embeds-path", 0) + 2
    compiled(client, one, "../src/x.cpp", runs=1)
    compiled(client, two, "../src/x.cpp", runs=0)
    compiled(client, one, "/Z7", "/showIncludes", "../src/x.cpp", runs=1)
    assert client.stats()["private.flags"] == before.get("private.flags", 0) + 1
