"""The licence check of tools/release."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

# Behind PYTHONPATH, where a mutation row puts another copy.
sys.path.append(str(Path(__file__).resolve().parents[3] / "tools"))

from release import licences

ROOT = Path(__file__).resolve().parents[3]

POLICY: dict[str, Any] = {
    "accepted": {"product": ["MIT", "Apache-2.0"], "tools": ["MIT", "MPL-2.0"]},
    "exceptions": {"certifi": {"licence": "MPL-2.0", "reason": "data"}},
}


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("MIT", True),
        ("GPL-3.0-only", False),
        ("GPL-3.0-only OR MIT", True),
        ("GPL-3.0-only AND MIT", False),
        ("Apache-2.0 AND (MIT OR LGPL-2.1-only)", True),
    ],
)
def test_an_expression_is_accepted_if_accepted_licences_satisfy_it(
    expression: str, answer: bool
) -> None:
    assert licences.is_allowed(expression, ["MIT", "Apache-2.0"]) is answer


@pytest.mark.parametrize("expression", ["BSD", "", "MIT OR", "my own words"])
def test_what_is_no_spdx_expression_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match="SPDX"):
        licences.parse(expression)


MIT = "License :: OSI Approved :: MIT License"
BSD = "License :: OSI Approved :: BSD License"


@pytest.mark.parametrize(
    ("metadata", "classifiers", "found"),
    [
        ({"License-Expression": "MIT-0", "License": "GPL"}, [], "MIT-0"),
        ({"License": "3-Clause BSD License"}, [], "BSD-3-Clause"),
        ({"License": "MPL-2.0"}, [], "MPL-2.0"),
        ({"License": "UNKNOWN"}, [MIT], "MIT"),
        ({"License": "The MIT License (MIT)\n\nCopyright"}, [MIT], "MIT"),
        # These name no licence: BSD has two and more, and one classifier contradicts another.
        ({"License": "BSD"}, [BSD], None),
        ({}, [MIT, BSD], None),
        ({}, [], None),
    ],
)
def test_a_licence_is_read_from_metadata_only_where_it_is_plain(
    metadata: dict[str, str], classifiers: list[str], found: str | None
) -> None:
    assert licences.from_metadata(metadata, classifiers) == found


@pytest.fixture
def root(tmp_path: Path) -> Path:
    pin = f"rich==15 \\\n    --hash=sha256:{'a' * 64}\n"
    for name in licences.LOCKS.values():
        (tmp_path / name).write_text(pin)
    return tmp_path


def ask(root: Path, monkeypatch: pytest.MonkeyPatch, row: str, version: str, found: object) -> str:
    monkeypatch.setattr(licences, "_ask", lambda package: (version, found))
    return "\n".join(licences.check(root, licences.read_rows(row), POLICY))


def test_a_row_that_agrees_with_the_package_is_good(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ask(root, monkeypatch, "rich\t15\tMIT\tmetadata", "15", "MIT") == ""
    assert ask(root, monkeypatch, "rich\t15\tMIT\tfile", "15", None) == ""


@pytest.mark.parametrize(
    ("row", "version", "found", "problem"),
    [
        ("rich\t14\tMIT\tmetadata", "15", "MIT", "no row for this version"),
        ("", "15", "MIT", "no row for this version"),
        ("rich\t15\tMIT\tmetadata", "15", "GPL-3.0-only", "GPL-3.0-only in its metadata"),
        ("rich\t15\tMIT\tmetadata", "14", "MIT", "installed in version 14"),
        ("rich\t15\tMIT\tmetadata", "", None, "not installed"),
        ("rich\t15\tMIT\tmetadata", "15", None, "read its licence file"),
        ("rich\t15\tGPL-3.0-only\tfile", "15", None, "not accepted"),
        ("rich\t15\tMPL-2.0\tfile", "15", None, "requirements.lock: rich has MPL-2.0"),
        ("rich\t15\tBSD\tfile", "15", None, "no SPDX expression"),
        ("rich\t15\tMIT\tfile\nold\t1\tMIT\tfile", "15", None, "old is in no lock file"),
    ],
)
def test_what_is_wrong_is_named(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    row: str,
    version: str,
    found: str | None,
    problem: str,
) -> None:
    assert problem in ask(root, monkeypatch, row, version, found)


def test_each_exception_has_a_reason_and_each_locked_package_an_accepted_licence() -> None:
    policy = tomllib.loads(licences.POLICY.read_text())
    assert all(entry["reason"] for entry in policy["exceptions"].values())
    assert licences.check(ROOT, licences.read_rows(licences.ROWS.read_text()), policy) == []
