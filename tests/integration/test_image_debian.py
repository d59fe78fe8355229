"""An image of real distribution packages has the same bytes each time. The test needs a mirror."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.images.assembly.debian import DebianRequest, build_debian
from hpcc.images.assembly.host import HostSystem
from hpcc.images.store import ImageStore
from hpcc.ports import SystemClock

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        os.environ.get("HPCC_TEST_DEBIAN") != "1" or shutil.which("mmdebstrap") is None,
        reason="builds two images from packages: set HPCC_TEST_DEBIAN=1, install mmdebstrap",
    ),
]


def quiet(_stage: str, _done: int, _total: int) -> None:
    pass


def extracted(image: Path, root: Path) -> Path:
    argv = ["fsck.erofs", f"--extract={root}", "--no-preserve-owner", str(image)]
    subprocess.run(argv, check=True, capture_output=True)
    return root


def leftovers(layouts: Path) -> list[str]:
    return [path.name for path in layouts.glob("new-*")]


@pytest.mark.nightly
async def test_two_builds_of_the_same_packages_have_one_digest(tmp_path: Path) -> None:
    uid = os.getuid()
    host = HostSystem(uid=uid, user=os.environ.get("USER", "root"), env=dict(os.environ))
    refs = []
    for name in ("one", "two"):
        store = ImageStore(tmp_path / name, SystemClock())
        ref, layout = await build_debian(
            DebianRequest(packages=("gcc",)),
            store.layouts,
            host=host,
            clock=SystemClock(),
            progress=quiet,
        )
        refs.append(ref)
    assert refs[0] == refs[1]
    assert leftovers(store.layouts) == []

    image = await store.prepare(ref, layout, quiet)
    assert "gcc=" in image.label("io.hpcc.toolchain")
    assert "libc6-dev" in image.label("io.hpcc.packages")
    root = extracted(image.path, tmp_path / "root")
    assert (root / "usr/include/stdio.h").exists()
    assert not (root / "etc/resolv.conf").exists()
    assert not any((root / "var/log").iterdir())
    assert json.loads(json.dumps(dict(image.dropped)))["device or fifo"] > 0


@pytest.mark.nightly
async def test_a_package_that_does_not_exist_is_named(tmp_path: Path) -> None:
    host = HostSystem(uid=os.getuid(), user="", env=dict(os.environ))
    with pytest.raises(CallerError, match="no-such-package-at-all"):
        await build_debian(
            DebianRequest(packages=("no-such-package-at-all",)),
            tmp_path,
            host=host,
            clock=SystemClock(),
            progress=quiet,
        )
    assert leftovers(tmp_path) == []
