"""Bundles of guest assets: the same bytes everywhere, checked before use, and never replaced."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from hpcc.cli.main import main
from hpcc.core import CallerError, IntegrityError, NotFoundError
from hpcc.runtime.assets import assets as assets_module
from hpcc.runtime.assets import bundle
from hpcc.runtime.assets.assets import GuestAssets
from hpcc.runtime.assets.bundle import (
    FILES,
    MANIFEST,
    open_assets,
    pack,
    pinned_assets,
    place_of,
    unpack,
    verify,
)
from hpcc.runtime.host.tools import sha256_of


def prepared(directory: Path, kernel: bytes = b"a kernel") -> GuestAssets:
    """Return assets as `prepare_assets` leaves them, with little in them."""
    place = directory / "kernel-2-linux-image-6.1"
    place.mkdir(parents=True)
    content = {
        place / "vmlinuz": b"compressed", place / "vmlinux": kernel,
        directory / "port": b"port", directory / "vsock": b"vsock", directory / "agent": b"agent",
    }  # fmt: skip
    for path, data in content.items():
        path.write_bytes(data)
    return GuestAssets(
        kernel=place / "vmlinux", kernel_digest=sha256_of(place / "vmlinux"),
        initramfs=directory / "port", initramfs_digest=sha256_of(directory / "port"),
        vmlinux=place / "vmlinux", vmlinux_digest=sha256_of(place / "vmlinux"),
        vsock_initramfs=directory / "vsock", agent_drive=directory / "agent",
        agent_digest=sha256_of(directory / "agent"), firmware=None,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    pack(tmp_path / "b.tar", prepared(tmp_path / "made"), "1.0")
    return tmp_path / "b.tar"


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "guest"


def test_the_same_content_gives_the_same_bytes_whatever_the_machine(tmp_path: Path) -> None:
    names = []
    for number in (1, 2):
        made = prepared(tmp_path / str(number))
        os.utime(made.vmlinux, (number, number))
        made.agent_drive.chmod(0o600 + number)
        names.append(pack(tmp_path / f"{number}.tar", made, "1.0"))
    assert names[0] == names[1]
    assert (tmp_path / "1.tar").read_bytes() == (tmp_path / "2.tar").read_bytes()
    other = pack(tmp_path / "3.tar", prepared(tmp_path / "3", b"another kernel"), "1.0")
    assert other != names[0]


@pytest.mark.parametrize("firmware", [None, Path("/qboot.rom")])
def test_a_worker_boots_from_the_files_of_its_bundle(
    monkeypatch: pytest.MonkeyPatch, file: Path, store: Path, firmware: Path | None
) -> None:
    monkeypatch.setattr(bundle, "find_firmware", lambda: firmware)
    kept = unpack(file, store)
    assets = pinned_assets(store, kept.digest)
    assert assets.kernel.read_bytes() == (b"a kernel" if firmware else b"compressed")
    assert [assets.initramfs.read_bytes(), assets.vsock_initramfs.read_bytes()] == [
        b"port", b"vsock",
    ]  # fmt: skip
    for path, digest in (
        (assets.kernel, assets.kernel_digest),
        (assets.vmlinux, assets.vmlinux_digest),
        (assets.initramfs, assets.initramfs_digest),
        (assets.agent_drive, assets.agent_digest),
    ):
        assert sha256_of(path) == digest
        assert path.is_relative_to(place_of(store, kept.digest))


def test_another_bundle_than_the_wanted_one_is_not_kept(file: Path, store: Path) -> None:
    with pytest.raises(IntegrityError, match="not sha256:0000"):
        unpack(file, store, "sha256:" + "0" * 64)
    assert list((store / "bundles").iterdir()) == []


@pytest.mark.parametrize("name", [MANIFEST, *FILES])
@pytest.mark.parametrize("how", ["changed", "longer", "gone", "link"])
def test_a_bundle_that_was_damaged_starts_no_guest(
    file: Path, store: Path, name: str, how: str
) -> None:
    kept = unpack(file, store)
    path = kept.directory / name
    data = path.read_bytes()
    path.unlink()
    if how == "changed":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif how == "longer":
        path.write_bytes(data + b"\n")
    elif how == "link":
        (store / "elsewhere").write_bytes(data + b" ")
        path.symlink_to(store / "elsewhere")
    with pytest.raises(IntegrityError):
        pinned_assets(store, kept.digest)
    # The file repairs it.
    assert pinned_assets(store, unpack(file, store).digest).agent_drive.read_bytes() == b"agent"


@pytest.mark.parametrize("name", FILES)
def test_a_link_to_the_same_bytes_is_refused(file: Path, store: Path, name: str) -> None:
    kept = unpack(file, store)
    path = (kept.directory / name).rename(store / "elsewhere")
    (kept.directory / name).symlink_to(path)
    with pytest.raises(IntegrityError, match="is not the file of its bundle"):
        pinned_assets(store, kept.digest)


def test_a_bundle_in_the_place_of_another_is_refused(
    tmp_path: Path, file: Path, store: Path
) -> None:
    one = unpack(file, store)
    pack(tmp_path / "o.tar", prepared(tmp_path / "o", b"other"), "1.0")
    other = unpack(tmp_path / "o.tar", store)
    one.directory.rename(store / "aside")
    other.directory.rename(one.directory)
    with pytest.raises(IntegrityError, match="is bundle"):
        pinned_assets(store, one.digest)


def test_an_agent_of_another_hpcc_is_refused(
    monkeypatch: pytest.MonkeyPatch, file: Path, store: Path
) -> None:
    kept = unpack(file, store)
    monkeypatch.setattr(bundle, "agent_sources", lambda: "another")
    with pytest.raises(IntegrityError, match="of another hpcc"):
        pinned_assets(store, kept.digest)


async def test_a_worker_never_prepares_something_else_than_its_bundle(
    monkeypatch: pytest.MonkeyPatch, file: Path, store: Path
) -> None:
    async def prepare(*_: object) -> GuestAssets:
        raise AssertionError("a kernel of the distribution")

    monkeypatch.setattr(bundle, "prepare_assets", prepare)
    name = "sha256:" + "1" * 64
    with pytest.raises(NotFoundError, match=f"hpcc assets fetch FILE --digest {name}"):
        await open_assets(store, name, lambda _: None)
    kept = unpack(file, store)
    assert (
        await open_assets(store, kept.digest, lambda _: None)
    ).vmlinux.read_bytes() == b"a kernel"
    with pytest.raises(AssertionError):
        await open_assets(store, "", lambda _: None)


@pytest.mark.parametrize("name", ["sha256:", "sha256:" + "G" * 64, "../x", "sha256:../" + "0" * 61])
def test_a_name_is_no_path(store: Path, name: str) -> None:
    with pytest.raises(CallerError):
        pinned_assets(store, name)


def remade(file: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]) -> None:
    with tarfile.open(file, "r:") as tar:
        members = [(m, got.read()) for m in tar if (got := tar.extractfile(m)) is not None]
    change(members)
    with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data))


def renamed(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1][0].name = "../vmlinuz"


def linked(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1][0].type, members[1][0].linkname, members[1][0].size = tarfile.SYMTYPE, "/x", 0


def swapped(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[1], members[2] = members[2], members[1]


def shortened(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    del members[-1]


def described_at_length(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[0][0].size = 16385
    members[0] = (members[0][0], b"{" + b" " * 16384)


def of_another_form(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    data = members[0][1].replace(b'"format": 1', b'"format": 2')
    members[0] = (members[0][0], data)


def without_a_table(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    members[0][0].size = 2
    members[0] = (members[0][0], b"[]")


def without_a_digest(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    table = json.loads(members[0][1])
    del table["files"][FILES[-1]]
    data = json.dumps(table).encode()
    members[0][0].size = len(data)
    members[0] = (members[0][0], data)


@pytest.mark.parametrize(
    "change",
    [
        renamed, linked, swapped, shortened, described_at_length, of_another_form, without_a_table,
        without_a_digest,
    ],
)  # fmt: skip
def test_a_hostile_file_leaves_nothing(
    file: Path, store: Path, change: Callable[[list[tuple[tarfile.TarInfo, bytes]]], None]
) -> None:
    remade(file, change)
    with pytest.raises(IntegrityError):
        unpack(file, store)
    assert list((store / "bundles").iterdir()) == []


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_header_of_any_size_is_not_read_into_memory(file: Path, store: Path, kind: bytes) -> None:
    header = tarfile.TarInfo("h")
    header.type, header.size = kind, 1 << 62
    file.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + file.read_bytes())
    with pytest.raises(IntegrityError, match="in this place"):
        unpack(file, store)
    assert list((store / "bundles").iterdir()) == []


def test_a_file_over_the_limit_is_not_copied(
    file: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_MAX_FILE_BYTES", 3)
    with pytest.raises(IntegrityError, match="a bundle has vmlinuz in this place"):
        unpack(file, store)


@pytest.mark.parametrize("cut", [0, 100, 1024, -6144, -11000])
def test_a_file_that_is_cut_off_leaves_nothing(file: Path, store: Path, cut: int) -> None:
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(IntegrityError):
        unpack(file, store)
    assert list((store / "bundles").iterdir()) == []


def test_the_commands_keep_and_check_a_bundle(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    file: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def prepare(directory: Path, _: object) -> GuestAssets:
        return prepared(directory / "again")

    monkeypatch.setattr(assets_module, "prepare_assets", prepare)
    where = ["--directory", str(tmp_path / "w")]
    assert main(["assets", "build", str(tmp_path / "n.tar"), *where]) == 0
    name = capsys.readouterr().out.strip()
    assert main(["assets", "fetch", str(tmp_path / "n.tar"), "--digest", name, *where]) == 0
    assert capsys.readouterr().out == f'guest_bundle = "{name}"\n'
    assert main(["assets", "fetch", str(file), "--digest", "sha256:" + "0" * 64, *where]) == 1
    capsys.readouterr()
    assert main(["assets", "verify", *where]) == 0
    assert capsys.readouterr().out.startswith(f"ok       {name}  kernel-2-linux-image-6.1")
    drive = pinned_assets(tmp_path / "w", name).agent_drive
    drive.chmod(0o600)
    drive.write_bytes(b"agend")
    assert main(["assets", "verify", *where]) == 1
    assert capsys.readouterr().out.startswith(f"damaged  {name}")
    with pytest.raises(IntegrityError):
        verify(drive.parent)
