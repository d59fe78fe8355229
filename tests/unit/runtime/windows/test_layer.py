"""The agent's layer for Windows: bytes by the specification, reproducible, read by other tools."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from hpcc.core import CallerError
from hpcc.runtime.windows.layers.layer import (
    DIRECTORY_SDDL,
    FILE_SDDL,
    build_windows_layer,
    read_python_zip,
    security_descriptor,
)

FILES = {
    "hpcc-agent.exe": b"MZ stub",
    "app.pyz": b"PK",
    "python/python.exe": b"MZ python",
    "python/python313._pth": b".\r\n",
}


def decode(data: bytes) -> tuple[int, str, str, list[tuple[int, int, int, str]]]:
    """Read a self-relative descriptor back, by [MS-DTYP] 2.4.6 and without the encoder's help."""
    revision, zero, control, owner, group, sacl, dacl = struct.unpack_from("<BBHIIII", data)
    assert (revision, zero, sacl) == (1, 0, 0)

    def sid(at: int) -> tuple[str, int]:
        count = data[at + 1]
        authority = int.from_bytes(data[at + 2 : at + 8], "big")
        parts = struct.unpack_from(f"<{count}I", data, at + 8)
        return "-".join(map(str, ("S", data[at], authority, *parts))), 8 + 4 * count

    acl_revision, _, size, count, _ = struct.unpack_from("<BBHHH", data, dacl)
    assert acl_revision == 2
    assert dacl + size == len(data)
    at, aces = dacl + 8, []
    for _ in range(count):
        kind, flags, length, mask = struct.unpack_from("<BBHI", data, at)
        who, sid_bytes = sid(at + 8)
        assert length == 8 + sid_bytes
        aces.append((kind, flags, mask, who))
        at += length
    assert at == len(data)
    return control, sid(owner)[0], sid(group)[0], aces


@pytest.mark.parametrize(("sddl", "flags"), [(DIRECTORY_SDDL, 3), (FILE_SDDL, 0)])
def test_a_descriptor_says_who_may_what(sddl: str, flags: int) -> None:
    control, owner, group, aces = decode(security_descriptor(sddl))
    assert control == 0x8004
    assert (owner, group) == ("S-1-5-32-544", "S-1-5-18")
    assert aces == [
        (0, flags, 0x1F01FF, "S-1-5-32-544"),
        (0, flags, 0x1F01FF, "S-1-5-18"),
        (0, flags, 0x1200A9, "S-1-5-32-545"),
    ]


@pytest.mark.parametrize(
    "sddl",
    ["", "O:BA", "O:BAG:SYD:(D;;FA;;;BA)", "O:WDG:SYD:(A;;FA;;;BA)", "O:BAG:SYD:(A;XX;FA;;;BA)"],
)
def test_another_descriptor_is_refused(sddl: str) -> None:
    with pytest.raises(CallerError):
        security_descriptor(sddl)


def test_a_layer_is_the_same_bytes_whatever_the_order() -> None:
    one = build_windows_layer(FILES)
    assert build_windows_layer(dict(reversed(FILES.items()))) == one
    assert one.diff_id == "sha256:" + hashlib.sha256(one.tar).hexdigest()


def test_entries_are_in_the_order_and_with_the_records_that_windows_wants() -> None:
    with tarfile.open(fileobj=io.BytesIO(build_windows_layer(FILES).tar)) as archive:
        members = archive.getmembers()
        assert [m.name for m in members] == [
            "Hives", "Files", "Files/.hpcc", "Files/.hpcc/app.pyz", "Files/.hpcc/hpcc-agent.exe",
            "Files/.hpcc/python", "Files/.hpcc/python/python.exe",
            "Files/.hpcc/python/python313._pth",
        ]  # fmt: skip
        for member in members:
            assert member.isdir() or member.isreg()
            assert member.pax_headers["MSWINDOWS.fileattr"] == ("16" if member.isdir() else "32")
            raw = base64.b64decode(member.pax_headers["MSWINDOWS.rawsd"], validate=True)
            assert raw == security_descriptor(DIRECTORY_SDDL if member.isdir() else FILE_SDDL)
            if member.isreg():
                content = archive.extractfile(member)
                assert content is not None
                assert content.read() == FILES[member.name.removeprefix("Files/.hpcc/")]


def test_gnu_tar_reads_the_same(tmp_path: Path) -> None:
    """GNU tar is a second reader, which ignores Windows' records."""
    (tmp_path / "layer.tar").write_bytes(build_windows_layer(FILES).tar)
    subprocess.run(
        ["tar", "--warning=no-unknown-keyword", "-xf", "layer.tar"], cwd=tmp_path, check=True
    )
    found = {
        str(p.relative_to(tmp_path / "Files/.hpcc")): p.read_bytes()
        for p in (tmp_path / "Files/.hpcc").rglob("*")
        if p.is_file()
    }
    assert found == FILES
    assert (tmp_path / "Hives").is_dir()


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"../x": b""}, "relative-path"), ({"a/nul": b""}, "reserved-name"), ({"/x": b""}, "relative-path"),
        ({"A": b"1", "a": b"1"}, "case-conflict"), ({"A": b"1", "a": b"2"}, "case-conflict"),
        ({"A": b"1", "a/b": b"2"}, "case-conflict"), ({"x:y": b""}, "stream"),
    ],
)  # fmt: skip
def test_a_path_that_windows_cannot_have_is_refused(files: dict[str, bytes], reason: str) -> None:
    with pytest.raises(CallerError) as caught:
        build_windows_layer(files)
    assert caught.value.reason == reason


def package(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def test_a_python_package_is_read_by_its_digest() -> None:
    data = package({"python.exe": b"MZ", "python313._pth": b".", "python313.zip": b"PK"})
    files = read_python_zip(data, hashlib.sha256(data).hexdigest())
    assert set(files) == {"python/python.exe", "python/python313._pth", "python/python313.zip"}
    with pytest.raises(CallerError, match="not the one"):
        read_python_zip(data, "0" * 64)


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04junk", package({"python.exe": b""}), package({"a._pth": b""}),
     package({"python.exe": b"", "a._pth": b"", "bomb": bytes(300 << 20)})],
)  # fmt: skip
def test_what_is_no_python_package_is_refused(data: bytes) -> None:
    with pytest.raises(CallerError):
        read_python_zip(data, hashlib.sha256(data).hexdigest())


def test_a_package_that_climbs_out_makes_no_layer() -> None:
    data = package({"python.exe": b"MZ", "a._pth": b".", "../../evil": b"x"})
    files = read_python_zip(data, hashlib.sha256(data).hexdigest())
    with pytest.raises(CallerError):
        build_windows_layer(files)
