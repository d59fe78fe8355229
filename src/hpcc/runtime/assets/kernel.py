"""The guest's kernel and its modules, from the distribution's package, which is not installed."""

from __future__ import annotations

import asyncio
import gzip
import json
import lzma
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import zstandard

from hpcc.core import InfrastructureError
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.host.tools import ToolError, made_once, run_tool

# How the host reaches a guest's agent: a virtio-serial port under QEMU, vsock under Firecracker.
GuestLinkKind = Literal["port", "vsock"]
# What a guest needs that may be a module. Their dependencies are read from the modules.
_MODULES: Final = ("virtio_mmio", "virtio_blk", "erofs", "overlay")
# By channel: a guest has only drivers for devices that its VMM has.
WANTED_MODULES: Final[Mapping[GuestLinkKind, tuple[str, ...]]] = {
    "port": (*_MODULES, "virtio_console"),
    "vsock": (*_MODULES, "vmw_vsock_virtio_transport"),
}
MAX_KERNEL_BYTES: Final = 256 << 20
_MODULE_NAME: Final = re.compile(r"([A-Za-z0-9_-]+)\.ko(?:\.(xz|zst|gz))?")
_DEPENDS: Final = re.compile(rb"\0depends=([A-Za-z0-9_,-]*)\0")
_PACKAGE_NAME: Final = re.compile(r"linux-[a-z]+-[a-zA-Z0-9.+~-]+")
_FORMAT: Final = "2"


@dataclass(frozen=True, slots=True)
class KernelPackages:
    """How a distribution names its kernel for guests.

    `meta` depends on the package with the image. `modules` are further packages; `{release}` in
    them stands for what follows `linux-image-` in that package's name.
    """

    meta: str
    modules: tuple[str, ...] = ()


# By (ID of os-release, dpkg architecture). Ubuntu's row has not been run yet.
KERNELS: Final[Mapping[tuple[str, str], KernelPackages]] = {
    ("debian", "amd64"): KernelPackages("linux-image-cloud-amd64"),
    ("ubuntu", "amd64"): KernelPackages("linux-image-virtual", ("linux-modules-{release}",)),
}


@dataclass(frozen=True, slots=True)
class Kernel:
    """A prepared kernel: compressed and plain image, and the modules."""

    directory: Path

    @property
    def bzimage(self) -> Path:
        """The compressed image."""
        return self.directory / "vmlinuz"

    @property
    def vmlinux(self) -> Path:
        """The plain ELF image."""
        return self.directory / "vmlinux"

    def modules(self, link: GuestLinkKind) -> list[tuple[str, bytes]]:
        """Return (name, content) of the modules for this link, in load order."""
        order = json.loads((self.directory / "modules.json").read_text())[link]
        return [(n, (self.directory / "modules" / f"{n}.ko").read_bytes()) for n in order]


def packages_for(distribution: str, architecture: str) -> KernelPackages:
    """Return the packages of this distribution's guest kernel.

    Raises:
        ToolError: no kernel is listed for it.
    """
    found = KERNELS.get((distribution, architecture))
    if found is None:
        known = ", ".join(sorted({d for d, _ in KERNELS}))
        raise ToolError(
            f"no guest kernel is known for {distribution or 'this system'} on {architecture}"
            f" (known: {known}); use one of those, or a worker on another machine",
            reason="no-guest-kernel",
        )
    return found


def distribution_id(os_release: str) -> str:
    """Return the ID in an os-release file's text; "" if it has none."""
    for line in os_release.splitlines():
        name, _, value = line.partition("=")
        if name == "ID":
            return value.strip().strip('"')
    return ""


async def kernel_package_name(packages: KernelPackages) -> str:
    """Return the image package that the meta package depends on now, as apt reports it.

    Raises:
        ToolError: apt does not list it.
    """
    remedy = "apt-get update"
    text = await run_tool("apt-cache", "depends", packages.meta, remedy=remedy)
    for line in text.splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith("linux-image-") and _PACKAGE_NAME.fullmatch(name):
            return name
    raise ToolError(f"apt knows no package behind {packages.meta}; try: {remedy}")


async def prepare_kernel(directory: Path, progress: Callable[[str], None]) -> Kernel:
    """Return the distribution's current guest kernel, downloaded if need be.

    Without a package index (offline), a kernel that was prepared earlier is used.

    Raises:
        ToolError: no kernel is prepared, and none can be downloaded.
    """
    os_release = await asyncio.to_thread(_read_os_release)
    architecture = (await run_tool("dpkg", "--print-architecture")).strip()
    packages = packages_for(distribution_id(os_release), architecture)
    try:
        name = await kernel_package_name(packages)
    except ToolError:
        prepared = _matching(directory, f"kernel-{_FORMAT}-*")
        if not prepared:
            raise
        return Kernel(prepared[-1])

    async def make(target: Path) -> None:
        progress(f"fetching the guest kernel ({name})")
        await _download(target.parent, name, packages)
        await in_thread(lambda: _unpack_kernel(target.parent / "root", target))

    return Kernel(await made_once(directory / f"kernel-{_FORMAT}-{name}", make))


def _read_os_release() -> str:
    try:
        return Path("/etc/os-release").read_text()
    except OSError:
        return ""


async def _download(directory: Path, name: str, packages: KernelPackages) -> None:
    release = name.removeprefix("linux-image-")
    names = [name, *(m.format(release=release) for m in packages.modules)]
    # apt transfers as its own user, which must be able to write here.
    await asyncio.to_thread(directory.chmod, 0o755)
    await run_tool(
        "apt-get", "download", "-qq", *names,
        cwd=directory, timeout_seconds=600, remedy="apt-get update",
    )  # fmt: skip
    for package in _matching(directory, "*.deb"):
        await run_tool("dpkg-deb", "-x", str(package), str(directory / "root"))


def _matching(directory: Path, pattern: str) -> list[Path]:
    return sorted(directory.glob(pattern))


def _unpack_kernel(root: Path, target: Path) -> None:
    images = sorted(root.glob("boot/vmlinuz-*"))
    trees = [*root.glob("usr/lib/modules/*"), *root.glob("lib/modules/*")]
    if len(images) != 1 or not trees:
        raise ToolError("the kernel package has no single boot/vmlinuz-* with modules")
    target.mkdir()
    bzimage = images[0].read_bytes()
    (target / "vmlinuz").write_bytes(bzimage)
    (target / "vmlinux").write_bytes(extract_vmlinux(bzimage))
    (target / "modules").mkdir()
    order: dict[str, list[str]] = {}
    for link, wanted in WANTED_MODULES.items():
        modules = collect_modules(trees, wanted)
        for name, data in modules:
            (target / "modules" / f"{name}.ko").write_bytes(data)
        order[link] = [n for n, _ in modules]
    (target / "modules.json").write_text(json.dumps(order))
    for path in [target, *target.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def extract_vmlinux(bzimage: bytes) -> bytes:
    """Return the plain ELF kernel inside a bzImage (kernel: Documentation/arch/x86/boot.rst).

    Raises:
        InfrastructureError: it is not a bzImage, or its compression is not supported.
    """
    if bzimage[0x202:0x206] != b"HdrS":
        raise InfrastructureError("not a bzImage", reason="bad-kernel")
    offset, length = struct.unpack_from("<II", bzimage, 0x248)
    start = ((bzimage[0x1F1] or 4) + 1) * 512 + offset
    payload = bzimage[start : start + length]
    size = int.from_bytes(payload[-4:], "little")  # appended by the kernel's build
    if len(payload) != length or not 0 < size <= MAX_KERNEL_BYTES:
        raise InfrastructureError("truncated bzImage", reason="bad-kernel")
    try:
        kernel = _decompress(payload, size)
    except (zstandard.ZstdError, lzma.LZMAError, OSError, EOFError) as error:
        raise InfrastructureError(f"damaged bzImage: {error}", reason="bad-kernel") from error
    if len(kernel) != size or kernel[:4] != b"\x7fELF":
        raise InfrastructureError("no ELF kernel in the bzImage", reason="bad-kernel")
    return kernel


def _decompress(payload: bytes, size: int) -> bytes:
    if payload.startswith(b"\x28\xb5\x2f\xfd"):
        return zstandard.ZstdDecompressor().decompressobj().decompress(payload[:-4])
    if payload.startswith(b"\x1f\x8b"):
        return gzip.decompress(payload)
    if payload.startswith(b"\xfd7zXZ"):
        return lzma.LZMADecompressor().decompress(payload[:-4], size)
    raise InfrastructureError(
        f"the kernel is compressed in an unknown way ({payload[:4].hex()})", reason="bad-kernel"
    )


def collect_modules(trees: list[Path], wanted: tuple[str, ...]) -> list[tuple[str, bytes]]:
    """Return (name, content) of the wanted modules and their dependencies, decompressed.

    Each module comes after its dependencies.

    Raises:
        ToolError: one is neither a module nor built in.
    """
    files: dict[str, Path] = {}
    built_in: set[str] = set()
    for tree in trees:
        for path in sorted(tree.glob("kernel/**/*.ko*")):
            match = _MODULE_NAME.fullmatch(path.name)
            if match:
                files[match[1].replace("-", "_")] = path
        for line in _lines(tree / "modules.builtin"):
            built_in.add(Path(line).name.removesuffix(".ko").replace("-", "_"))
    found: dict[str, bytes] = {}
    for name in wanted:
        _collect(name, files, built_in, found)
    return list(found.items())


def _collect(
    name: str, files: Mapping[str, Path], built_in: set[str], found: dict[str, bytes]
) -> None:
    if name in found or name in built_in:
        return
    if name not in files:
        raise ToolError(f"the kernel has no module {name}", reason="no-guest-kernel")
    data = _read_module(files[name])
    needs = _DEPENDS.search(b"\0" + data)
    for need in needs[1].decode().split(",") if needs else []:
        if need:
            _collect(need.replace("-", "_"), files, built_in, found)
    found[name] = data


def _read_module(path: Path) -> bytes:
    data = path.read_bytes()
    match path.suffix:
        case ".xz":
            return lzma.decompress(data)
        case ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)
        case ".gz":
            return gzip.decompress(data)
        case _:
            return data


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
