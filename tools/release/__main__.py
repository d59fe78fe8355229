"""The commands of tools/release; `make help` lists the targets that run them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from release.dsse import RefusedError

ROOT = Path(__file__).resolve().parents[2]


def _make(arguments: argparse.Namespace) -> int:
    from release import make

    return make.main(ROOT, arguments.out, version=arguments.version, key=arguments.key)


def _verify(arguments: argparse.Namespace) -> int:
    from release import verify

    wanted = verify.Wanted(
        key=arguments.key,
        allow_unsigned=arguments.allow_unsigned,
        builder=arguments.builder,
        commit=arguments.commit,
        rebuild=not arguments.no_rebuild,
    )
    return verify.main(ROOT, arguments.directory, wanted)


def _licences(arguments: argparse.Namespace) -> int:
    from release import licences

    return licences.main(ROOT, update=arguments.update)


def _audit(arguments: argparse.Namespace) -> int:
    from release import audit

    return audit.main(ROOT, osv=arguments.osv_url, required=arguments.required)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the commands."""
    top = argparse.ArgumentParser(prog="release", description=__doc__)
    commands = top.add_subparsers(required=True)
    made = commands.add_parser("make", help="build HEAD twice, compare, describe, sign")
    made.add_argument("--out", type=Path, required=True, help="the directory to make")
    made.add_argument("--version", default="", help="refuse if HEAD has another version")
    made.add_argument("--key", default="", help="an Ed25519 key in PEM, or `trial` for a new one")
    made.set_defaults(run=_make)
    checked = commands.add_parser("verify", help="check a release and build it again")
    checked.add_argument("directory", type=Path)
    checked.add_argument("--key", type=Path, help="the public key in PEM that you trust")
    checked.add_argument("--allow-unsigned", action="store_true", help="check all but signatures")
    checked.add_argument("--builder", default="", help="refuse another builder than this")
    checked.add_argument("--commit", default="", help="refuse another commit than this")
    checked.add_argument("--no-rebuild", action="store_true", help="do not build it again")
    checked.set_defaults(run=_verify)
    licences = commands.add_parser("licences", help="check the licences of what is locked")
    licences.add_argument("--update", action="store_true", help="write the rows anew first")
    licences.set_defaults(run=_licences)
    audit = commands.add_parser("audit", help="look for known vulnerabilities of what is locked")
    audit.add_argument("--osv-url", default="", help="ask this OSV service only")
    audit.add_argument("--required", action="store_true", help="fail if nothing could be asked")
    audit.set_defaults(run=_audit)
    return top


def main() -> int:
    """Run one command."""
    arguments = parser().parse_args()
    try:
        return int(arguments.run(arguments))
    except RefusedError as error:
        print(f"release: refused: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
