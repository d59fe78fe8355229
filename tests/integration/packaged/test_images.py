"""The container images are built from the packages, and hpcc runs in them."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc import __version__
from hpcc_testkit.packages.built import ROOT, Builder

# A Debian, and the packages that a worker needs, come from the distribution's mirror.
pytestmark = [
    pytest.mark.nightly,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.geteuid() != 0, reason="building images without root is not tried"),
]

_OWN = ("hpcc", "hpcc-client", "hpcc-farm")


def _limits() -> list[str]:
    """Return options for the limits of this process: who lacks a right cannot raise them."""
    found = []
    for name, number in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        soft, hard = resource.getrlimit(number)
        found += ["--ulimit", f"{name}={soft}:{hard}"]
    return found


class Buildah:
    """buildah with a separate store, as root."""

    def __init__(self, directory: Path) -> None:
        self._store = (
            "--root", str(directory / "root"), "--runroot", str(directory / "run"),
            "--storage-driver", "vfs",
        )  # fmt: skip

    def __call__(self, *argv: str | Path, status: int = 0) -> str:
        done = subprocess.run(
            ["buildah", *self._store, *argv], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=900,
        )  # fmt: skip
        assert done.returncode == status, f"{argv}\n{(done.stdout + done.stderr)[-4000:]}"
        return done.stdout + done.stderr if status else done.stdout


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Buildah:
    if shutil.which("buildah") is None:
        pytest.skip("no buildah: tools/bootstrap.sh packages test")
    return Buildah(tmp_path_factory.mktemp("buildah"))


@pytest.fixture(scope="module")
def packages(builder: Builder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("packages")
    builder.build(place, "deb", _OWN)
    return place


@pytest.fixture(scope="module")
def base(buildah: Buildah, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the name of an image with a small Debian, made without a registry."""
    archive = tmp_path_factory.mktemp("base") / "debian.tar"
    command = ["mmdebstrap", "--quiet", "--variant=minbase", "trixie", str(archive)]
    subprocess.run(command, check=True, capture_output=True, timeout=600)
    container = buildah("from", "scratch").strip()
    buildah("add", "--quiet", container, archive, "/")
    buildah("commit", "--quiet", container, "localhost/base")
    buildah("rm", container)
    return "localhost/base"


@pytest.mark.parametrize("target", ["service", "worker"])
def test_an_image_of_the_packages_runs_hpcc(
    buildah: Buildah, packages: Path, base: str, target: str
) -> None:
    file = ROOT / "deploy/Containerfile"
    buildah(
        "build", "--quiet", *_limits(), "--isolation", "chroot", "--target", target, "--build-arg",
        f"BASE={base}", "-t", f"localhost/{target}", "-f", file, packages,
    )  # fmt: skip
    shown = buildah(
        "inspect", "--type", "image", "--format", "{{.OCIv1.Config}}", f"localhost/{target}"
    )
    assert "/usr/bin/hpcc" in shown
    assert ("64601:64601" in shown) is (target == "service")
    container = buildah("from", "--pull-never", *_limits(), f"localhost/{target}").strip()

    def run(*argv: str, status: int = 0) -> str:
        return buildah("run", "--isolation", "chroot", container, "--", *argv, status=status)

    try:
        assert run("hpcc", "--version") == f"hpcc {__version__}\n"
        # A service gets as far as its settings, as the image's user.
        said = run("hpcc", "gateway", "--config", "/absent.json", status=2)
        assert "cannot read /absent.json" in said
        if target == "worker":
            assert "QEMU emulator" in run("qemu-system-x86_64", "--version")
    finally:
        buildah("rm", container)
