"""Checks the directory of a release against a public key and this repository.

Each check raises `RefusedError` with one sentence. The order matters: signatures first, so that no
text of an unknown party is parsed, then what the statements say, then a build of their commit.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from release import bom, build, dsse, licences, make, statements
from release.dsse import RefusedError
from release.lock import read_lock

_LINE: Final = re.compile(r"([0-9a-f]{64})  ([0-9A-Za-z][0-9A-Za-z._+-]*)")
_MOST_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the caller expects of the release; "" expects nothing."""

    key: Path | None
    allow_unsigned: bool = False
    builder: str = ""
    commit: str = ""
    rebuild: bool = True


@dataclass(frozen=True, slots=True)
class Release:
    """The directory, and the statements in it."""

    directory: Path
    files: dict[str, Path]
    provenance: dict[str, Any]
    contents: dict[str, Any]


def check_sums(directory: Path) -> dict[str, Path]:
    """Return the files by name: exactly those that SHA256SUMS lists, with its digests."""
    listed: dict[str, str] = {}
    for line in _read(directory / make.SUMS).decode(errors="replace").splitlines():
        match = _LINE.fullmatch(line)
        if not match or match[2] in listed:
            raise RefusedError(f"{make.SUMS} has a line that is not understood: {line[:80]!r}")
        listed[match[2]] = match[1]
    present = {file.name for file in directory.iterdir()} - {make.SUMS, make.SUMS_SIGNATURE}
    if extra := present ^ listed.keys():
        raise RefusedError(f"{make.SUMS} and the directory differ in {', '.join(sorted(extra))}")
    for name, digest in listed.items():
        if statements.digest(_read(directory / name))["sha256"] != digest:
            raise RefusedError(f"{name} is not the file that {make.SUMS} lists")
    return {name: directory / name for name in listed}


def _read(file: Path) -> bytes:
    if file.is_symlink() or not file.is_file():
        raise RefusedError(f"{file.name} is missing, or is no plain file")
    if file.stat().st_size > _MOST_BYTES:
        raise RefusedError(f"{file.name} is larger than {_MOST_BYTES} bytes")
    return file.read_bytes()


def _key(directory: Path, wanted: Wanted) -> Ed25519PublicKey | None:
    """Return the key to check with, None for a release that may be and is unsigned."""
    is_signed = (directory / make.SUMS_SIGNATURE).exists()
    if not is_signed and wanted.allow_unsigned and wanted.key is None:
        return None
    if not is_signed:
        raise RefusedError("the release is unsigned: nothing shows who made it")
    if wanted.key is None:
        raise RefusedError("name the public key that you trust: make release-verify DIR=… KEY=FILE")
    return dsse.load_public(wanted.key)


def read(directory: Path, wanted: Wanted) -> Release:
    """Return the release, of which each file is the one that was signed."""
    key = _key(directory, wanted)
    listed = _read(directory / make.SUMS)
    if key and not dsse.is_signed(listed, _read(directory / make.SUMS_SIGNATURE), key):
        raise RefusedError(f"{make.SUMS_SIGNATURE} is not this key's signature of {make.SUMS}")
    files = check_sums(directory)
    found = {}
    form = "intoto.jsonl" if key else "unsigned.json"
    for kind, named in (("provenance", "provenance"), ("contents", "sbom")):
        ending = f".{named}.{form}"
        content = _read(_only(files, ending))
        found[kind] = dsse.unseal(content, key) if key else _object(content, ending)
    return Release(directory, files, **found)


def _only(files: dict[str, Path], ending: str) -> Path:
    named = [file for name, file in files.items() if name.endswith(ending)]
    if len(named) != 1:
        raise RefusedError(f"the release has {len(named)} files *{ending}, not one")
    return named[0]


def _object(content: bytes, name: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"*{name} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RefusedError(f"*{name} is not an object")
    return found


def check_statement(statement: dict[str, Any], kind: str, files: list[Path]) -> object:
    """Return the predicate of a statement of this kind over exactly these files."""
    if (statement.get("_type"), statement.get("predicateType")) != (statements.TYPE, kind):
        raise RefusedError(f"a statement is not an in-toto statement of {kind}")
    if statement.get("subject") != statements.subjects(files):
        raise RefusedError(f"the statement of {kind} is about other files")
    return statement.get("predicate")


def check_provenance(predicate: object, root: Path, wanted: Wanted) -> build.Source:
    """Return the commit that the provenance names, which is here and has the same lock files."""
    said: Any = predicate
    try:
        definition = said["buildDefinition"]
        asked = definition["externalParameters"]
        kind, used = definition["buildType"], definition["resolvedDependencies"]
        commit, version = asked["commit"], asked["version"]
        builder = said["runDetails"]["builder"]["id"]
    except (KeyError, TypeError) as error:
        raise RefusedError(f"the provenance lacks {error}") from error
    if kind != statements.BUILD_TYPE:
        raise RefusedError(f"the build is of type {kind!r}, not {statements.BUILD_TYPE}")
    if wanted.builder not in {"", builder}:
        raise RefusedError(f"the builder is {builder!r}, not {wanted.builder}")
    if not isinstance(commit, str) or not re.fullmatch(r"[0-9a-f]{40}([0-9a-f]{24})?", commit):
        raise RefusedError(f"the provenance names no commit: {commit!r}")
    if wanted.commit not in {"", commit}:
        raise RefusedError(f"the release is of commit {commit}, not {wanted.commit}")
    origin = build.source(root, commit)
    if version != origin.version:
        raise RefusedError(f"commit {commit} is version {origin.version}, not {version!r}")
    locks = {name: origin.read(name) for name in statements.LOCKS}
    pins = read_lock(locks["requirements-dev.lock"].decode())
    if used != statements.materials(commit, locks, pins):
        raise RefusedError("the provenance lists other materials than the commit has")
    return origin


def check_bom(release: Release, origin: build.Source, *, whole: bool) -> None:
    """Compare the bill of materials with the commit: each pin, or with `whole` each byte."""
    content = _read(_only(release.files, ".cdx.json"))
    bom.validate(content.decode(errors="replace"))
    found = json.loads(content)
    packages = read_lock(origin.read("requirements.lock").decode())
    rows = licences.read_rows(origin.read(make.ROWS).decode())
    expected = bom.document(origin.version, packages, rows, origin.epoch, bom.linked())
    if content == expected:
        return
    pins = [
        [c for c in one.get("components", []) if str(c.get("purl")).startswith("pkg:pypi/")]
        for one in (found, json.loads(expected))
    ]
    if whole or pins[0] != pins[1]:
        raise RefusedError("the bill of materials is not that of the commit")


def rebuild(release: Release, origin: build.Source, built: list[Path]) -> None:
    """Build the commit once more and compare."""
    with tempfile.TemporaryDirectory(prefix="hpcc-verify-") as scratch:
        place, env, mask = build.SURROUNDINGS[1]
        again = build.build(origin, Path(scratch, place), env, mask)
        try:
            build.compare(built, again)
        except RefusedError as error:
            definition = release.provenance["predicate"]["buildDefinition"]
            theirs = definition.get("internalParameters")
            ours = {"toolchain": statements.toolchain()}
            tools = "" if theirs == ours else f"\nbuilt with {theirs}\nhere are   {ours}"
            raise RefusedError(f"{error}{tools}") from error


def main(root: Path, directory: Path, wanted: Wanted) -> int:
    """Check everything; print one line per check."""
    if not directory.is_dir():
        raise RefusedError(f"{directory} is no directory")
    release = read(directory, wanted)
    signed = (directory / make.SUMS_SIGNATURE).exists()
    print("verify: checksums: each file is as listed, and no other is there")
    print("verify: signatures: of the key that was given" if signed else "verify: UNSIGNED")
    built = sorted(f for n, f in release.files.items() if n.endswith(build.ENDINGS))
    described = [*built, _only(release.files, ".cdx.json")]
    predicate = check_statement(release.provenance, statements.PROVENANCE, described)
    origin = check_provenance(predicate, root, wanted)
    print(f"verify: provenance: commit {origin.commit}, version {origin.version}")
    listed = check_statement(release.contents, bom.PREDICATE, built)
    if listed != json.loads(_read(_only(release.files, ".cdx.json"))):
        raise RefusedError("the statement of contents has another bill of materials")
    if wanted.rebuild:
        rebuild(release, origin, built)
        print("verify: rebuilt here: wheel, source archive and packages have the same bytes")
    else:
        print("verify: NOT REBUILT: only the signature ties the wheel to its commit")
    check_bom(release, origin, whole=wanted.rebuild)
    print("verify: bill of materials: valid CycloneDX 1.6, and that of the commit's lock file")
    if release.files.get(make.TRIAL_KEY):
        print("verify: MADE FOR A TRIAL: its key shows nothing")
    return 0
