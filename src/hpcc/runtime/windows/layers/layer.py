"""The Windows agent as one more layer of a container's image: a tar that Windows imports.

It is built on any machine from inputs with known digests; equal inputs give equal bytes. Sources:
hcsshim pkg/ociwclayer/import.go and go-winio backuptar for the format; [MS-DTYP] 2.4 for security
descriptors. Independent readers read it back in the tests. The import is not yet run on Windows.
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hpcc.core import CallerError, WindowsPathError, check_windows_relative, windows_keys
from hpcc.core import Digest as BlobDigest
from hpcc.runtime.host.guest_programs import guest_program

AGENT_STUB_SOURCE: Final = guest_program("hpcc_agent.c")
AGENT_DIRECTORY: Final = ".hpcc"
MAX_LAYER_BYTES: Final = 256 << 20
MAX_FILES: Final = 5000
# Administrators and the system may change files, users may read and run them. "D:" without "P", as
# in a base layer.
DIRECTORY_SDDL: Final = "O:BAG:SYD:(A;OICI;FA;;;BA)(A;OICI;FA;;;SY)(A;OICI;0x1200a9;;;BU)"
FILE_SDDL: Final = "O:BAG:SYD:(A;;FA;;;BA)(A;;FA;;;SY)(A;;0x1200a9;;;BU)"
_SIDS: Final = {"BA": (5, 32, 544), "BU": (5, 32, 545), "SY": (5, 18)}
_FLAGS: Final = {"OI": 1, "CI": 2}
_FULL_ACCESS: Final = 0x1F01FF
_SELF_RELATIVE, _DACL_PRESENT, _DACL_PROTECTED = 0x8000, 0x0004, 0x1000
_DIRECTORY_ATTRIBUTE, _FILE_ATTRIBUTE = "16", "32"
# 2024-01-01. Any time works that both zip and NTFS can store.
_MTIME: Final = 1_704_067_200


@dataclass(frozen=True, slots=True)
class WindowsLayer:
    """An uncompressed layer. `diff_id` is `sha256:…` of `tar`."""

    tar: bytes
    diff_id: str


def security_descriptor(sddl: str) -> bytes:
    """Encode owner, group and allow entries of an SDDL string, in self-relative form.

    Raises:
        CallerError: it is not in the subset `O:SID G:SID D:[P](A;FLAGS;RIGHTS;;;SID)…`.
    """
    try:
        owner, rest = sddl.removeprefix("O:").split("G:", 1)
        group, acl = rest.split("D:", 1)
        is_protected = acl.startswith("P")
        entries = acl.removeprefix("P").removeprefix("(").removesuffix(")").split(")(")
        aces = b"".join(map(_ace, entries))
        owner_sid, group_sid = _sid(owner), _sid(group)
    except (KeyError, ValueError) as error:
        raise CallerError(f"not a supported SDDL string: {sddl[:80]!r}", reason="sddl") from error
    dacl = struct.pack("<BBHHH", 2, 0, 8 + len(aces), len(entries), 0) + aces
    control = _SELF_RELATIVE | _DACL_PRESENT | (_DACL_PROTECTED if is_protected else 0)
    at_owner = 20
    at_group = at_owner + len(owner_sid)
    at_dacl = at_group + len(group_sid)
    head = struct.pack("<BBHIIII", 1, 0, control, at_owner, at_group, 0, at_dacl)
    return head + owner_sid + group_sid + dacl


def _sid(name: str) -> bytes:
    authority, *parts = _SIDS[name]
    return struct.pack(">BBHI", 1, len(parts), 0, authority) + struct.pack(
        f"<{len(parts)}I", *parts
    )


def _ace(text: str) -> bytes:
    kind, flags, rights, _, _, who = text.split(";")
    if kind != "A":
        raise ValueError(kind)
    bits = sum(_FLAGS[flags[i : i + 2]] for i in range(0, len(flags), 2))
    mask = _FULL_ACCESS if rights == "FA" else int(rights, 16)
    sid = _sid(who)
    return struct.pack("<BBHI", 0, bits, 8 + len(sid), mask) + sid


def read_python_zip(data: bytes, sha256: str) -> Mapping[str, bytes]:
    """Return the files of CPython's embeddable package by path below `python/`.

    Raises:
        CallerError: the SHA-256 differs, it is too large, or it is not such a package.
    """
    if hashlib.sha256(data).hexdigest() != sha256:
        raise CallerError("the Python package is not the one that was asked for", reason="digest")
    files: dict[str, bytes] = {}
    budget = MAX_LAYER_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for member in archive.infolist()[: MAX_FILES + 1]:
                budget -= member.file_size
                if budget < 0 or len(files) >= MAX_FILES:
                    raise CallerError("the Python package is too large", reason="too-large")
                if not member.is_dir():
                    files[f"python/{member.filename}"] = archive.read(member)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise CallerError("the Python package is not a zip file", reason="zip") from error
    names = {name.lower() for name in files}
    # Without its ._pth the interpreter would search the image for modules.
    if "python/python.exe" not in names or not any(n.endswith("._pth") for n in names):
        raise CallerError("the Python package lacks python.exe or its ._pth", reason="zip")
    return files


def read_windows_layer(path: Path) -> WindowsLayer:
    """Read an agent's layer that was built on another machine. Blocks.

    Raises:
        CallerError: it does not exist, is too large, or has no agent in it.
    """
    agent = f"Files/{AGENT_DIRECTORY}/hpcc-agent.exe"
    try:
        if path.stat().st_size > MAX_LAYER_BYTES:
            raise CallerError(f"{path} is larger than an agent's layer", reason="too-large")
        tar = path.read_bytes()
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            is_agent = any(member.name == agent for member in archive)
    except (OSError, tarfile.TarError, ValueError, EOFError) as error:
        raise CallerError(
            f"the agent's layer cannot be read from {path}: {error}", reason="no-agent-layer"
        ) from error
    if not is_agent:
        raise CallerError(f"{path} has no {agent} in it", reason="no-agent-layer")
    return WindowsLayer(tar, f"sha256:{hashlib.sha256(tar).hexdigest()}")


def build_windows_layer(files: Mapping[str, bytes]) -> WindowsLayer:
    r"""Return a layer with these files in `C:\.hpcc`; keys are relative paths with `/`.

    Raises:
        CallerError: a path is not possible on Windows, two paths are one file, or it is too large.
    """
    _check(files)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        root = f"Files/{AGENT_DIRECTORY}"
        for name in ("Hives", "Files", root):
            archive.addfile(_entry(name, None))
        for path, data in _with_directories(files):
            archive.addfile(_entry(f"{root}/{path}", data), io.BytesIO(data or b""))
    tar = out.getvalue()
    return WindowsLayer(tar, f"sha256:{hashlib.sha256(tar).hexdigest()}")


def _check(files: Mapping[str, bytes]) -> None:
    if len(files) > MAX_FILES or sum(map(len, files.values())) > MAX_LAYER_BYTES:
        raise CallerError("the agent's layer is too large", reason="too-large")
    digests = {check_windows_relative(p): BlobDigest.of(d) for p, d in files.items()}
    keys = windows_keys(digests)
    if len(keys) != len(files):
        raise WindowsPathError("two paths of the layer are one on Windows", reason="case-conflict")
    for key in keys:
        parts = key.split("/")
        if any("/".join(parts[:n]) in keys for n in range(1, len(parts))):
            raise WindowsPathError(f"{key[:80]!r} is below a file", reason="case-conflict")


def _with_directories(files: Mapping[str, bytes]) -> list[tuple[str, bytes | None]]:
    """Return files and the directories above them, each directory before what is in it."""
    entries: dict[str, bytes | None] = {}
    for path in sorted(files):
        parts = path.split("/")
        for depth in range(1, len(parts)):
            entries.setdefault("/".join(parts[:depth]), None)
        entries[path] = files[path]
    return list(entries.items())


def _entry(name: str, data: bytes | None) -> tarfile.TarInfo:
    is_directory = data is None
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if is_directory else tarfile.REGTYPE
    info.size, info.mtime = len(data or b""), _MTIME
    info.mode = 0o755 if is_directory else 0o644
    sddl = DIRECTORY_SDDL if is_directory else FILE_SDDL
    info.pax_headers = {
        "MSWINDOWS.fileattr": _DIRECTORY_ATTRIBUTE if is_directory else _FILE_ATTRIBUTE,
        "MSWINDOWS.rawsd": base64.b64encode(security_descriptor(sddl)).decode(),
    }
    return info
