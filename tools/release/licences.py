"""Checks the licence of each locked package against the list of those that hpcc accepts.

`licences.tsv` has a row for each pin of the lock files: name, version, SPDX expression, and where
it is written: `metadata` (the installed package's, compared in each run) or `file` (a person read
the licence file of this version, because the metadata says too little). `licences.toml` is the
policy.
Nothing here needs a network.
"""

from __future__ import annotations

import importlib.metadata as installed
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from license_expression import ExpressionError, LicenseExpression, get_spdx_licensing

from release.lock import Package, read_lock

_HERE: Final = Path(__file__).parent
ROWS: Final = _HERE / "licences.tsv"
POLICY: Final = _HERE / "licences.toml"
LOCKS: Final = {"product": "requirements.lock", "tools": "requirements-dev.lock"}

# Texts that older metadata has where SPDX wants an identifier. "BSD" alone names no licence.
_TEXTS: Final = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "BSD 2-Clause License": "BSD-2-Clause",
    "MIT License": "MIT",
    "MIT license": "MIT",
    "PSFL": "PSF-2.0",
}
_CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
_SPDX: Final = get_spdx_licensing()


@dataclass(frozen=True, slots=True)
class Row:
    """What is written about one package."""

    name: str
    version: str
    expression: str
    basis: str


def read_rows(text: str) -> dict[str, Row]:
    """Return the rows by package name."""
    rows = [Row(*line.split("\t")) for line in text.splitlines() if not line.startswith("#")]
    return {row.name: row for row in rows}


def parse(expression: str) -> LicenseExpression:
    """Return the parsed SPDX expression.

    Raises:
        ValueError: it is not one, or it names a licence that SPDX does not list.
    """
    try:
        parsed = _SPDX.parse(expression, validate=True)
    except ExpressionError:
        parsed = None
    if parsed is None:
        raise ValueError(f"{expression!r} is no SPDX expression")
    return parsed


def is_allowed(expression: str, accepted: Iterable[str]) -> bool:
    """Return whether the accepted licences satisfy the expression."""
    symbols = {_SPDX.parse(name): _SPDX.TRUE for name in accepted}
    parsed = parse(expression)
    others = {symbol: _SPDX.FALSE for symbol in parsed.symbols if symbol not in symbols}
    return bool(parsed.subs(symbols | others).simplify() == _SPDX.TRUE)


def from_metadata(metadata: Mapping[str, Any], classifiers: Iterable[str]) -> str | None:
    """Return the SPDX expression that a package's metadata gives, or None where it gives none."""
    if expression := metadata.get("License-Expression"):
        return str(expression)
    text = str(metadata.get("License") or "").strip()
    if text in _TEXTS:
        return _TEXTS[text]
    if re.fullmatch(r"[A-Za-z0-9.+-]+( (OR|AND) [A-Za-z0-9.+-]+)*", text) and text != "UNKNOWN":
        try:
            return str(parse(text))
        except ValueError:
            pass
    named = {c.split(" :: ")[-1] for c in classifiers if c.startswith("License :: ")}
    known = {_CLASSIFIERS[name] for name in named - {"DFSG approved"} if name in _CLASSIFIERS}
    return known.pop() if len(known) == 1 and len(named - {"DFSG approved"}) == 1 else None


def _ask(package: Package) -> tuple[str, str | None]:
    """Return the installed version, "" if there is none, and the licence in its metadata."""
    try:
        metadata = installed.metadata(package.name)
    except installed.PackageNotFoundError:
        return "", None
    fields: Any = metadata
    return fields["Version"], from_metadata(fields, fields.get_all("Classifier") or [])


def _problem(package: Package, row: Row | None) -> str | None:
    """Return what is wrong with the row of a package, apart from the policy."""
    if row is None or row.version != package.version:
        return "has no row for this version"
    try:
        parse(row.expression)
    except ValueError as error:
        return str(error)
    version, found = _ask(package)
    if version and version != package.version:
        return f"is installed in version {version}: run make dev"
    if version and found is not None and found != row.expression:
        return f"has {found} in its metadata and {row.expression} in its row"
    if row.basis == "metadata" and not version and not package.marker:
        return "is not installed: run make dev"
    if row.basis == "metadata" and version and found is None:
        return "gives no licence in its metadata: read its licence file, write `file` in its row"
    return None


def check(root: Path, rows: Mapping[str, Row], policy: Mapping[str, Any]) -> list[str]:
    """Return one line for each thing that is wrong."""
    wrong, seen = [], set()
    for use, name in LOCKS.items():
        for package in read_lock((root / name).read_text()):
            seen.add(package.name)
            row = rows.get(package.name)
            if problem := _problem(package, row):
                wrong.append(f"{name}: {package.name} {package.version} {problem}")
            elif row and not _is_accepted(row, use, policy):
                wrong.append(f"{name}: {package.name} has {row.expression}, which is not accepted")
    wrong += [f"licences.tsv: {name} is in no lock file" for name in sorted(rows.keys() - seen)]
    return list(dict.fromkeys(wrong))


def _is_accepted(row: Row, use: str, policy: Mapping[str, Any]) -> bool:
    excepted = policy["exceptions"].get(row.name, {})
    accepted = [*policy["accepted"][use], *([excepted["licence"]] if excepted else [])]
    return is_allowed(row.expression, accepted)


def renewed(root: Path, rows: Mapping[str, Row]) -> dict[str, Row]:
    """Return the rows of what is locked now; what metadata does not answer keeps its old row."""
    new: dict[str, Row] = {}
    for name in LOCKS.values():
        for package in read_lock((root / name).read_text()):
            version, found = _ask(package)
            if version == package.version and found is not None:
                new[package.name] = Row(package.name, package.version, found, "metadata")
            elif old := rows.get(package.name):
                new[package.name] = old
    return new


def main(root: Path, *, update: bool) -> int:
    """Check, or write the rows anew and check."""
    rows = read_rows(ROWS.read_text())
    if update:
        rows = renewed(root, rows)
        lines = [f"{r.name}\t{r.version}\t{r.expression}\t{r.basis}" for r in rows.values()]
        ROWS.write_text(_HEAD + "\n".join(sorted(lines)) + "\n")
    wrong = check(root, rows, tomllib.loads(POLICY.read_text()))
    for line in wrong:
        print(line)
    if wrong:
        print("after `make lock` and `make dev`: tools/release.sh licences --update")
    print(f"licences of {len(rows)} packages: {len(wrong)} findings")
    return 1 if wrong else 0


_HEAD: Final = "# name\tversion\tSPDX expression\twhere it is written\n"
