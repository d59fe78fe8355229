#!/usr/bin/env python3
"""The demo's independent check: the audited commands, run by the image's own compiler in a chroot.

Nothing of hpcc's daemon, worker, guest or cache takes part: the image's file system is extracted
with `fsck.erofs`, the project is copied to /src in it, and each command of the rows is run there.

usage: demo_proof.py injected ROWS
       demo_proof.py prove --hpcc PROGRAM --rows ROWS --project DIR --objects DIR --scratch DIR
Standard library only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

GUEST_ENV = ["PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C"]


def executed_rows(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
    return [row for row in rows if row["cache_status"] == "executed" and row["exit_code"] == 0]


def injected(path: Path) -> str:
    flags = {flag for row in executed_rows(path) for flag in row["injected_flags"]}
    return " ".join(sorted(flags)) or "nothing"


def image_file(hpcc: str, digest: str) -> Path:
    done = subprocess.run(
        [hpcc, "image", "inspect", digest], capture_output=True, check=True, text=True
    )
    return Path(json.loads(done.stdout)["path"])


def prove(args: argparse.Namespace) -> int:
    rows = executed_rows(args.rows)
    if not rows:
        print("   no executed row in the audit trail", file=sys.stderr)
        return 1
    root = args.scratch / "root"
    args.scratch.mkdir(parents=True)
    image = image_file(args.hpcc, rows[0]["image_digest"])
    subprocess.run(["fsck.erofs", f"--extract={root}", str(image)], check=True, capture_output=True)
    shutil.rmtree(root / "src", ignore_errors=True)
    shutil.copytree(args.project, root / "src", ignore=shutil.ignore_patterns("*.o"))
    (root / "tmp").mkdir(exist_ok=True)
    in_root = (
        ["chroot", str(root)] if os.geteuid() == 0 else ["unshare", "-Ur", "chroot", str(root)]
    )
    same = 0
    for row in rows:
        command = " ".join(f"'{word}'" for word in row["argv"])
        script = f"cd '/src/{row['working_directory']}' && exec {command}"
        subprocess.run(
            [*in_root, "/usr/bin/env", "-i", *GUEST_ENV, "/bin/sh", "-c", script], check=True
        )
        for path, _digest in row["outputs"]:
            if not path.endswith(".o"):
                continue
            made = (root / "src" / path).read_bytes()
            if made != (args.objects / Path(path).name).read_bytes():
                print(f"   {path} differs", file=sys.stderr)
                return 1
            same += 1
    print(f"   for example: {' '.join(rows[0]['argv'])}")
    print(f"   {same} objects, made again in a chroot of the image, are byte-identical")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("injected").add_argument("rows", type=Path)
    proof = commands.add_parser("prove")
    proof.add_argument("--hpcc", required=True)
    for name in ("rows", "project", "objects", "scratch"):
        proof.add_argument(f"--{name}", type=Path, required=True)
    args = parser.parse_args()
    if args.command == "injected":
        print(injected(args.rows))
        return 0
    return prove(args)


if __name__ == "__main__":
    raise SystemExit(main())
