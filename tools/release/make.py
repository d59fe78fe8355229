"""Makes the directory of a release from HEAD."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from release import bom, build, dsse, licences, statements
from release.dsse import RefusedError
from release.lock import read_lock

SUMS: Final = "SHA256SUMS"
SUMS_SIGNATURE: Final = "SHA256SUMS.sig"
TRIAL_KEY: Final = "trial-key.pub.pem"
TRIAL: Final = "trial"
ROWS: Final = "tools/release/licences.tsv"


def names(version: str) -> dict[str, str]:
    """Return the names of the files that describe the release."""
    stem = f"hpcc-{version}"
    return {
        "bom": f"{stem}.cdx.json",
        "provenance": f"{stem}.provenance.intoto.jsonl",
        "contents": f"{stem}.sbom.intoto.jsonl",
        "provenance-unsigned": f"{stem}.provenance.unsigned.json",
        "contents-unsigned": f"{stem}.sbom.unsigned.json",
    }


def sums(files: Sequence[Path]) -> bytes:
    """Return the lines that `sha256sum --check` reads."""
    return b"".join(
        f"{statements.digest(file.read_bytes())['sha256']}  {file.name}\n".encode()
        for file in sorted(files, key=lambda file: file.name)
    )


def build_twice(origin: build.Source, out: Path) -> list[Path]:
    """Build the commit in two places, compare, and copy the files to `out`."""
    with tempfile.TemporaryDirectory(prefix="hpcc-release-") as scratch:
        both = [
            build.build(origin, Path(scratch, place), env, mask)
            for place, env, mask in build.SURROUNDINGS
        ]
        build.compare(*both)
        return [Path(shutil.copyfile(file, out / file.name)) for file in both[0]]


def describe(origin: build.Source, out: Path, built: Sequence[Path]) -> dict[str, dict[str, Any]]:
    """Write the bill of materials; return the two statements."""
    locks = {name: origin.read(name) for name in statements.LOCKS}
    product, dev = (read_lock(locks[name].decode()) for name in statements.LOCKS)
    rows = licences.read_rows(origin.read(ROWS).decode())
    content = bom.document(origin.version, product, rows, origin.epoch, bom.linked())
    file = out / names(origin.version)["bom"]
    file.write_bytes(content)
    made = statements.provenance([*built, file], origin.commit, origin.version, locks, dev)
    return {"provenance": made, "contents": statements.contents(built, json.loads(content))}


def write(
    out: Path, version: str, made: dict[str, dict[str, Any]], key: Ed25519PrivateKey | None
) -> None:
    """Write the statements, in envelopes if there is a key, and the checksums of all files."""
    called = names(version)
    for kind, statement in made.items():
        if key:
            (out / called[kind]).write_bytes(dsse.seal(statement, key))
        else:
            text = json.dumps(statement, indent=2, sort_keys=True) + "\n"
            (out / called[f"{kind}-unsigned"]).write_text(text)
    listed = sums(list(out.iterdir()))
    (out / SUMS).write_bytes(listed)
    if key:
        (out / SUMS_SIGNATURE).write_bytes(key.sign(listed))


def _key(name: str) -> Ed25519PrivateKey | None:
    if name == TRIAL:
        return Ed25519PrivateKey.generate()
    return dsse.load_private(Path(name)) if name else None


def main(root: Path, out: Path, *, version: str, key: str) -> int:
    """Make the release, or leave nothing at `out`."""
    signer = _key(key)
    if changed := build.git(root, "status", "--porcelain", "--untracked-files=no"):
        raise RefusedError(f"commit or discard first:\n{changed.decode(errors='replace').rstrip()}")
    origin = build.source(root, "HEAD")
    if version not in {"", origin.version}:
        raise RefusedError(f"HEAD is version {origin.version}, not {version}")
    if out.exists():
        raise RefusedError(f"{out} exists")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".release-", dir=out.parent) as scratch:
        made = Path(scratch, "made")
        made.mkdir()
        built = build_twice(origin, made)
        stated = describe(origin, made, built)
        if key == TRIAL and signer:
            (made / TRIAL_KEY).write_bytes(dsse.public_pem(signer.public_key()))
        write(made, origin.version, stated, signer)
        made.rename(out)
    print((out / SUMS).read_text(), end="")
    print(f"release: hpcc {origin.version} of commit {origin.commit} in {out}")
    if key == TRIAL:
        print(f"release: FOR A TRIAL: the key is new and lost now; {TRIAL_KEY} shows nothing")
    elif signer:
        print(f"release: signed by key {dsse.key_id(signer.public_key())}")
    else:
        print("release: UNSIGNED: nothing shows who made it (make release RELEASE_KEY=FILE)")
    return 0
