"""One bundle of everything that guests boot from, named by a digest (ADR 71).

The problem: a worker takes the kernel that its distribution offers on the day of its first start,
and builds the agent drive from its own interpreter and libraries. Two workers of one farm can so
run different kernels, and nobody chose either.

A bundle is a directory of five files and a manifest. The manifest lists the digest and size of each
file, and its own SHA-256 is the bundle's name. It travels as one tar file, whose bytes depend on
the content only. A worker whose configuration names a bundle checks every byte of it when it
starts, and never builds or downloads anything instead.

An example: `hpcc assets build b.tar` on one machine prints sha256:77…; `hpcc assets fetch b.tar
--digest sha256:77…` on each worker, and `guest_bundle = "sha256:77…"` in its configuration.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from hpcc.core import CallerError, IntegrityError, NotFoundError
from hpcc.files.whole import Sync, whole_file
from hpcc.runtime.assets.agent_files import own_files
from hpcc.runtime.assets.assets import GuestAssets, find_firmware, prepare_assets
from hpcc.runtime.assets.kernel import Kernel
from hpcc.runtime.host.tools import key_of, sha256_of

MANIFEST: Final = "bundle.json"
_FORMAT: Final = 1
_BZIMAGE: Final = "vmlinuz"
_VMLINUX: Final = "vmlinux"
_PORT: Final = "initramfs-port.cpio"
_VSOCK: Final = "initramfs-vsock.cpio"
_AGENT: Final = "agent.erofs"
FILES: Final = (_BZIMAGE, _VMLINUX, _PORT, _VSOCK, _AGENT)
_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_MAX_MANIFEST_BYTES: Final = 16 << 10
_MAX_FILE_BYTES: Final = 512 << 20
_CHUNK: Final = 1 << 20
# Files of every writer of tar files. Headers with more about the next member are of other types.
_FILE_TYPES: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
# What reading a manifest raises that has another form: JSON nests, and knows an infinite size.
_NO_BUNDLE: Final = (
    OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle whose bytes were checked. `kernel` and `hpcc` are for people."""

    digest: str
    directory: Path
    kernel: str
    hpcc: str
    agent_sources: str
    files: Mapping[str, str]


def check_name(digest: str) -> str:
    """Return the name of a bundle if it has the form `sha256:` and 64 hex digits.

    Raises:
        CallerError: it has another form.
    """
    if not _DIGEST.fullmatch(digest):
        raise CallerError(f"a bundle's name is sha256: and 64 hex digits, not {digest[:80]!r}")
    return digest


def place_of(directory: Path, digest: str) -> Path:
    """Return where a bundle is kept below the directory of guest assets."""
    return directory / "bundles" / check_name(digest).removeprefix("sha256:")


def agent_sources() -> str:
    """Return a key of the agent's modules in this hpcc: a guest's agent must be of the same."""
    return key_of(part for name, path in own_files() for part in (name, path.read_bytes()))


def pack(target: Path, assets: GuestAssets, version: str) -> str:
    """Write prepared assets as one tar file; returns the bundle's name. Blocks.

    Raises:
        OSError: a file cannot be read, or the target cannot be written.
    """
    kernel = Kernel(assets.vmlinux.parent)
    files = {
        _BZIMAGE: kernel.bzimage,
        _VMLINUX: kernel.vmlinux,
        _PORT: assets.initramfs,
        _VSOCK: assets.vsock_initramfs,
        _AGENT: assets.agent_drive,
    }
    table = {
        "format": _FORMAT,
        "hpcc": version,
        "kernel": kernel.directory.name,
        "agent_sources": agent_sources(),
        "files": {n: {"digest": sha256_of(p), "size": p.stat().st_size} for n, p in files.items()},
    }
    manifest = json.dumps(table, sort_keys=True, indent=1).encode() + b"\n"
    with (
        whole_file(target, sync=Sync.NAME, mode=0o644) as file,
        tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        tar.addfile(_member(MANIFEST, len(manifest)), io.BytesIO(manifest))
        for name, path in files.items():
            with path.open("rb") as content:
                tar.addfile(_member(name, path.stat().st_size), content)
    return _name_of(manifest)


def _member(name: str, size: int) -> tarfile.TarInfo:
    """Return a header without a time, owner or anything else of this machine."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o444
    return member


def unpack(source: Path, directory: Path, wanted: str = "") -> Bundle:
    """Check a bundle's tar file and keep it below the directory of guest assets. Blocks.

    The file is hostile: only the manifest and the five files are read, in their order.

    Raises:
        IntegrityError: it is not a bundle, or another one than `wanted`.
        OSError: it cannot be read, or the disk is full.
    """
    kept = directory / "bundles"
    kept.mkdir(parents=True, exist_ok=True, mode=0o755)
    with tempfile.TemporaryDirectory(dir=kept, prefix=".new-") as scratch:
        made = Path(scratch, "bundle")
        made.mkdir()
        try:
            with source.open("rb") as tar:
                for name in (MANIFEST, *FILES):
                    _extract(tar, name, made / name)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise IntegrityError(f"{source} is not a bundle: {error}", reason="bundle") from error
        found = verify(made)
        if wanted and found.digest != wanted:
            raise IntegrityError(f"{source} is {found.digest}, not {wanted}", reason="bundle")
        target = place_of(directory, found.digest)
        made.chmod(0o755)
        if target.exists():
            shutil.rmtree(target)  # it may be damaged, and this one is not
        made.rename(target)
    return verify(target)


def _extract(tar: IO[bytes], name: str, target: Path) -> None:
    """Write the next member to `target`. `tarfile` would read a header of any size into memory."""
    member = tarfile.TarInfo.frombuf(tar.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")
    most = _MAX_MANIFEST_BYTES if name == MANIFEST else _MAX_FILE_BYTES
    if member.name != name or member.type not in _FILE_TYPES or not 0 <= member.size <= most:
        raise IntegrityError(f"a bundle has {name} in this place", reason="bundle")
    left = member.size
    with target.open("xb") as file:
        while data := tar.read(min(left, _CHUNK)):
            file.write(data)
            left -= len(data)
        os.fsync(file.fileno())
    if left:
        raise IntegrityError(f"{name} is cut off", reason="bundle")
    tar.read(-member.size % tarfile.BLOCKSIZE)
    target.chmod(0o444)


def verify(directory: Path) -> Bundle:
    """Read a bundle's directory and compare every byte with the manifest. Blocks.

    Raises:
        IntegrityError: something is missing, changed or not described.
    """
    try:
        manifest = _manifest(directory / MANIFEST)
        table = json.loads(manifest)
        files = {n: (str(f["digest"]), int(f["size"])) for n, f in table["files"].items()}
        bundle = Bundle(
            digest=_name_of(manifest),
            directory=directory,
            kernel=str(table["kernel"]),
            hpcc=str(table["hpcc"]),
            agent_sources=str(table["agent_sources"]),
            files={name: digest for name, (digest, _) in files.items()},
        )
        if table["format"] != _FORMAT or set(files) != set(FILES):
            raise IntegrityError(f"{directory}: a bundle of another form", reason="bundle")
        for name, (digest, size) in files.items():
            path = directory / name
            if path.is_symlink() or path.stat().st_size != size or sha256_of(path) != digest:
                raise IntegrityError(f"{path} is not the file of its bundle", reason="bundle")
    except _NO_BUNDLE as error:
        raise IntegrityError(f"{directory} is not a bundle: {error}", reason="bundle") from error
    return bundle


def verify_kept(place: Path) -> Bundle:
    """Check a bundle in its place, as `verify` does, and that the place has its name. Blocks.

    Raises:
        IntegrityError: it is damaged, or another bundle.
    """
    bundle = verify(place)
    if bundle.digest.removeprefix("sha256:") != place.name:
        raise IntegrityError(f"{place} is bundle {bundle.digest}", reason="bundle")
    return bundle


def _manifest(path: Path) -> bytes:
    with path.open("rb") as file:
        return _limited(file)


def _limited(file: IO[bytes]) -> bytes:
    data = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(data) > _MAX_MANIFEST_BYTES:
        raise ValueError("an overlong manifest")
    return data


def _name_of(manifest: bytes) -> str:
    return f"sha256:{hashlib.sha256(manifest).hexdigest()}"


async def open_assets(directory: Path, digest: str, progress: Callable[[str], None]) -> GuestAssets:
    """Return the assets of the bundle `digest`; with "" those of this machine, prepared if need be.

    Raises:
        NotFoundError, IntegrityError: see `pinned_assets`.
        ToolError: see `prepare_assets`.
    """
    if not digest:
        return await prepare_assets(directory, progress)
    progress("checking the bundle of kernel and agent")
    return await asyncio.to_thread(pinned_assets, directory, digest)


def pinned_assets(directory: Path, digest: str) -> GuestAssets:
    """Return the assets of the bundle that a configuration names, after a check of every byte.

    Raises:
        NotFoundError: it is not on this machine.
        IntegrityError: it is damaged, another one, or its agent is of another hpcc.
    """
    place = place_of(directory, digest)
    if not place.is_dir():
        raise NotFoundError(
            f"bundle {digest} is not in {place.parent}: `hpcc assets fetch FILE --digest {digest}`",
            reason="no-bundle",
        )
    bundle = verify_kept(place)
    if bundle.agent_sources != agent_sources():
        raise IntegrityError(
            f"the agent of bundle {digest} is of another hpcc ({bundle.hpcc}): build a bundle"
            " with this one",
            reason="bundle",
        )
    firmware = find_firmware()
    image = _VMLINUX if firmware else _BZIMAGE
    return GuestAssets(
        kernel=place / image,
        kernel_digest=bundle.files[image],
        initramfs=place / _PORT,
        initramfs_digest=bundle.files[_PORT],
        vmlinux=place / _VMLINUX,
        vmlinux_digest=bundle.files[_VMLINUX],
        vsock_initramfs=place / _VSOCK,
        agent_drive=place / _AGENT,
        agent_digest=bundle.files[_AGENT],
        firmware=firmware,
    )


def kept_bundles(directory: Path) -> list[Path]:
    """Return the directories of the bundles on this machine, sorted by name."""
    return sorted(p for p in (directory / "bundles").glob("*") if not p.name.startswith("."))
