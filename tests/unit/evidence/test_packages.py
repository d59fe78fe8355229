"""A system file counts as a package's only with the bytes that the package shipped."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from hpcc.evidence.packages import packages_of

FILE = Path("/usr/lib/os-release")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    (tmp_path / "info").mkdir()
    (tmp_path / "status").write_text(
        "Package: base-files\nStatus: install ok installed\nArchitecture: amd64\n"
        "Version: 1:13.8+deb13u1\n\nPackage: other\nVersion: 1\nArchitecture: all\n"
    )
    md5 = hashlib.md5(FILE.read_bytes(), usedforsecurity=False).hexdigest()
    (tmp_path / "info/base-files:amd64.md5sums").write_text(f"{md5}  usr/lib/os-release\n")
    (tmp_path / "os-release").write_text('NAME="x"\nID="debian"\n')
    return tmp_path


def named(database: Path, digests: dict[str, str]) -> dict[str, str]:
    found = packages_of(digests, database, database / "os-release")
    return {path: package.url for path, package in found.items()}


def test_a_file_of_a_package_is_named_by_package_and_version(database: Path) -> None:
    found = named(database, {str(FILE): sha256(FILE)})
    url = "pkg:deb/debian/base-files@1%3A13.8%2Bdeb13u1?arch=amd64"
    assert found == {str(FILE): url}
    # The same file under another spelling, as linkers print it.
    other = "/usr/lib/../lib/os-release"
    assert named(database, {other: sha256(FILE)}) == {other: url}


def test_other_bytes_than_the_package_or_the_link_had_are_of_no_package(database: Path) -> None:
    assert named(database, {str(FILE): "0" * 64}) == {}
    (database / "info/base-files:amd64.md5sums").write_text(f"{'0' * 32}  usr/lib/os-release\n")
    assert named(database, {str(FILE): sha256(FILE)}) == {}


def test_a_package_without_checksums_counts_for_what_only_root_can_write(database: Path) -> None:
    (database / "info/base-files:amd64.md5sums").unlink()
    (database / "info/base-files:amd64.list").write_text("/.\n/usr/lib/os-release\n")
    found = packages_of({str(FILE): sha256(FILE)}, database, database / "os-release")
    assert [package.note for package in found.values()] == [
        "the package has no checksums; only root can write the file"
    ]
    assert named(database, {str(FILE): "0" * 64}) == {}


def test_files_elsewhere_and_machines_without_dpkg_have_no_packages(
    database: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.o"
    own.write_bytes(b"own")
    assert named(database, {str(own): sha256(own), "/usr/lib/absent": "0" * 64}) == {}
    assert packages_of({str(FILE): sha256(FILE)}, tmp_path / "none", tmp_path / "none") == {}
