"""Kernel packages as data: vmlinux out of a bzImage, and modules with their dependencies."""

from __future__ import annotations

import gzip
import lzma
import struct
from pathlib import Path

import pytest
import zstandard

from hpcc.core import InfrastructureError
from hpcc.runtime.assets.kernel import (
    collect_modules,
    distribution_id,
    extract_vmlinux,
    packages_for,
)
from hpcc.runtime.host.tools import ToolError

ELF = b"\x7fELF" + bytes(5000)


def bzimage(payload: bytes, size: int) -> bytes:
    head = bytearray(1024)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    body = payload + struct.pack("<I", size)
    struct.pack_into("<II", head, 0x248, 0, len(body))
    return bytes(head) + body


@pytest.mark.parametrize(
    "compress", [zstandard.compress, lambda d: lzma.compress(d, check=lzma.CHECK_CRC32)]
)
def test_the_kernel_comes_out_of_its_wrapping(compress) -> None:  # noqa: ANN001 - two functions of one shape
    assert extract_vmlinux(bzimage(compress(ELF), len(ELF))) == ELF


def test_a_gzip_kernel_has_its_size_in_its_own_trailer() -> None:
    packed = gzip.compress(ELF)
    assert extract_vmlinux(bzimage(packed[:-4], len(ELF))) == ELF


@pytest.mark.parametrize(
    "image",
    [
        b"",
        bytes(2000),
        bzimage(b"????", 10),
        bzimage(zstandard.compress(ELF), 10),
        bzimage(zstandard.compress(b"not a kernel"), 12),
        bzimage(zstandard.compress(ELF)[:-9], len(ELF)),
        bzimage(b"\x28\xb5\x2f\xfdgarbage", 100),
        bzimage(zstandard.compress(ELF), 1 << 31),
        bzimage(zstandard.compress(ELF), len(ELF))[:-20],
    ],
)
def test_a_damaged_image_is_one_clear_error(image: bytes) -> None:
    with pytest.raises(InfrastructureError) as caught:
        extract_vmlinux(image)
    assert caught.value.reason == "bad-kernel"


def tree(tmp_path: Path, modules: dict[str, str], builtin: tuple[str, ...] = ()) -> Path:
    for name, depends in modules.items():
        path = tmp_path / "kernel/drivers" / f"{name}.ko.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(
            lzma.compress(f"ELF {name}\0license=GPL\0depends={depends}\0more\0".encode())
        )
    (tmp_path / "modules.builtin").write_text("".join(f"kernel/drivers/{b}.ko\n" for b in builtin))
    return tmp_path


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    path = tree(tmp_path, {"erofs": "libcrc32c,net-fs", "libcrc32c": "", "net-fs": "libcrc32c"})
    assert [n for n, _ in collect_modules([path], ("erofs",))] == ["libcrc32c", "net_fs", "erofs"]


def test_what_is_built_in_is_not_a_module(tmp_path: Path) -> None:
    path = tree(tmp_path, {"erofs": "crc"}, ("virtio_blk", "crc"))
    assert [n for n, _ in collect_modules([path], ("virtio_blk", "erofs"))] == ["erofs"]


def test_a_module_that_is_nowhere_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="overlay"):
        collect_modules([tree(tmp_path, {})], ("overlay",))


def test_distributions_are_rows() -> None:
    assert distribution_id('NAME="x"\nID=debian\n') == "debian"
    assert distribution_id('ID="ubuntu"') == "ubuntu"
    assert distribution_id("") == ""
    assert packages_for("debian", "amd64").meta == "linux-image-cloud-amd64"
    with pytest.raises(ToolError, match="no guest kernel"):
        packages_for("fedora", "amd64")
