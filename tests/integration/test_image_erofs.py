"""Image layers go through the real mkfs.erofs, and its own tools check the result."""

import asyncio
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from hpcc.core import CallerError, ImageDigest, InfrastructureError, IntegrityError
from hpcc.images.assembly import builder, erofs
from hpcc.images.assembly.erofs import ErofsImage, build_erofs
from hpcc.images.assembly.tree import MOUNT_POINTS
from hpcc_testkit.guests.images import CHR, DIR, HARD, SYM, Item, layer_files, tar_bytes
from hpcc_testkit.suite.pipes import gone

pytestmark = pytest.mark.skipif(shutil.which("mkfs.erofs") is None, reason="no erofs-utils")

IDENTITY = ImageDigest("sha256:" + "5" * 64)
LAYER = [
    Item("bin/tool", text="#!/bin/sh\n" * 2000, mode=0o4755),
    Item("bin/same", HARD, "bin/tool"),
    Item("bin/link", SYM, "/bin/tool"),
    Item("dev/null", CHR),
    Item("empty", text=""),
    Item("é\n odd", text="odd"),
    Item("/".join(["deep" * 30] * 6), text="long"),
    Item("private", DIR, mode=0o700),
]


def quiet(_done: int, _total: int) -> None:
    pass


async def build(tmp_path: Path, items: list[Item], name: str = "out.erofs") -> ErofsImage:
    blobs = tmp_path / "blobs"
    blobs.mkdir(exist_ok=True)
    files = layer_files(blobs, [tar_bytes(items)])
    return await build_erofs(files, tmp_path / name, identity=IDENTITY, progress=quiet)


def names_in(directory: Path) -> list[str]:
    return [path.name for path in directory.iterdir()]


def extracted(image: Path, target: Path) -> Path:
    argv = ["fsck.erofs", f"--extract={target}", "--no-preserve-owner", str(image)]
    subprocess.run(argv, check=True, capture_output=True)
    return target


async def test_the_image_holds_what_the_layer_had(tmp_path: Path) -> None:
    image = await build(tmp_path, LAYER)
    assert image.size_bytes == image.path.stat().st_size
    assert image.size_bytes % 4096 == 0
    root = extracted(image.path, tmp_path / "x")
    assert (root / "bin/tool").read_text() == "#!/bin/sh\n" * 2000
    assert (root / "bin/tool").stat().st_mode & 0o7777 == 0o755
    assert (root / "bin/same").read_text() == (root / "bin/tool").read_text()
    assert (root / "bin/link").readlink() == Path("/bin/tool")
    assert (root / "é\n odd").read_text() == "odd"
    assert (root / "/".join(["deep" * 30] * 6)).read_text() == "long"
    assert (root / "empty").read_bytes() == b""
    assert not (root / "dev/null").exists()
    assert {path for path, _ in MOUNT_POINTS} <= {
        str(p.relative_to(root)) for p in root.rglob("*") if p.is_dir()
    }
    assert dict(image.dropped) == {"device or fifo": 1, "setuid or setgid bit": 1}


async def test_names_that_are_no_text_arrive_byte_for_byte(tmp_path: Path) -> None:
    image = await build(tmp_path, [Item("\udcff\udcfe", text="raw")])
    root = extracted(image.path, tmp_path / "x")
    assert (root / "\udcff\udcfe").read_text() == "raw"


async def test_equal_input_gives_equal_bytes(tmp_path: Path) -> None:
    one = await build(tmp_path, LAYER, "one")
    two = await build(tmp_path, LAYER, "two")
    assert one.sha256 == two.sha256
    assert one.path.read_bytes() == two.path.read_bytes()


async def test_a_hostile_layer_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"\.\."):
        await build(tmp_path, [Item("a", text="1" * 10_000), Item("../x", text="2")])
    assert names_in(tmp_path) == ["blobs"]


async def test_a_cancel_ends_the_builder_and_leaves_nothing_behind(tmp_path: Path) -> None:
    items = [Item(f"f{i}", text=str(i) * 2000) for i in range(20_000)]
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    files = layer_files(blobs, [tar_bytes(items)])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.7):
            await build_erofs(files, tmp_path / "out", identity=IDENTITY, progress=quiet)
    assert names_in(tmp_path) == ["blobs"]
    await asyncio.sleep(0.2)
    assert names_in(tmp_path) == ["blobs"]


async def test_a_parent_that_dies_takes_the_builder_along(tmp_path: Path) -> None:
    items = [Item(f"f{i}", text=str(i) * 2000) for i in range(20_000)]
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    files = layer_files(blobs, [tar_bytes(items)])
    request = builder.BuildRequest(
        layers=tuple(files),
        output=tmp_path / "out.partial",
        uuid="00000000-0000-0000-0000-000000000000",
        mkfs=erofs.find_mkfs(),
        limits=builder.FlattenLimits(),
    )
    process = await asyncio.create_subprocess_exec(
        *erofs.BUILDER_ARGV,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdin is not None
    process.stdin.write(request.to_json().encode() + b"\n")
    async with asyncio.timeout(30):
        while not request.output.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)
        process.stdin.close()
        assert await gone(process) == -9
    assert not request.output.exists()


async def test_a_tool_that_fails_is_reported_with_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "mkfs.erofs"
    tool.write_text(
        "#!/bin/sh\ncase $1 in --help) echo ' --tar=X'; exit 0;; esac\n"
        "echo 'No space left on device' >&2; exit 1\n"
    )
    tool.chmod(0o755)
    monkeypatch.setattr(erofs, "find_mkfs", lambda: str(tool))
    with pytest.raises(InfrastructureError, match="No space left on device"):
        await build(tmp_path, [Item("a", text="1" * 1_000_000)])
    assert not (tmp_path / "out.erofs").exists()


def test_a_full_disk_is_refused_before_it_can_make_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    request = builder.BuildRequest(
        layers=tuple(layer_files(blobs, [tar_bytes([Item("a", text="1" * 1_000_000)])])),
        output=tmp_path / "out.partial",
        uuid="00000000-0000-0000-0000-000000000000",
        mkfs=erofs.find_mkfs(),
        limits=builder.FlattenLimits(),
    )
    real = os.statvfs(tmp_path)
    full = os.statvfs_result((1, 1, *(65 << 20,) * 6, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    with pytest.raises(InfrastructureError) as caught:
        builder.build(request, quiet)
    assert caught.value.reason == "disk-full"
    assert "hpcc image rm" in str(caught.value)
    assert not request.output.exists()
    monkeypatch.setattr(os, "statvfs", lambda _path: real)
    assert builder.build(request, quiet)["size_bytes"]


async def test_a_tool_without_tar_input_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "mkfs.erofs"
    tool.write_text("#!/bin/sh\necho usage\n")
    tool.chmod(0o755)
    monkeypatch.setattr(erofs, "find_mkfs", lambda: str(tool))
    with pytest.raises(CallerError, match="apt-get install erofs-utils"):
        await build(tmp_path, LAYER)


def test_no_tool_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_a, **_k: None)
    with pytest.raises(CallerError, match="apt-get install erofs-utils"):
        erofs.find_mkfs()
