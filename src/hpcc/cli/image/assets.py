"""`hpcc assets`: kernel, initramfs and agent of guests as one bundle, named by its digest."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

from hpcc import __version__
from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import IntegrityError
from hpcc.obs.text import plain

_EXIT_DAMAGED = 1


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `assets` and its commands."""
    assets = subparsers.add_parser(
        "assets", help="build, fetch and verify the bundle that guests boot from"
    )
    commands = assets.add_subparsers(title="commands", metavar="COMMAND", required=True)
    build = commands.add_parser(
        "build",
        help="write kernel, initramfs and agent as one file and print its name (last line)",
        description="Write the guest's kernel, initramfs and agent drive as one file. The same"
        " packages and the same hpcc give the same bytes.",
    )
    build.add_argument("file", type=Path, help="the file to write")
    build.set_defaults(handler=_build)
    fetch = commands.add_parser(
        "fetch", help="check a bundle's file and keep it on this worker; needs no network"
    )
    fetch.add_argument("file", type=Path, help="a file that `hpcc assets build` wrote")
    fetch.add_argument(
        "--digest", default="", metavar="DIGEST", help="refuse any other bundle: sha256:…"
    )
    fetch.set_defaults(handler=_fetch)
    verify = commands.add_parser("verify", help="check every byte of the bundles that are kept")
    verify.set_defaults(handler=_verify)
    for command in (build, fetch, verify):
        command.add_argument(
            "--directory", type=Path, help="the worker's guest_assets (default: of `hpcc up`)"
        )


def _directory(args: argparse.Namespace) -> Path:
    directory: Path | None = args.directory
    return directory or Paths.from_env(os.environ).guest_assets


def _build(args: argparse.Namespace) -> int:
    from hpcc.runtime.assets.assets import prepare_assets
    from hpcc.runtime.assets.bundle import pack

    assets = asyncio.run(prepare_assets(_directory(args), _progress))
    emit(pack(args.file, assets, __version__))
    return 0


def _progress(line: str) -> None:
    emit(f"hpcc: {line}", file=sys.stderr)


def _fetch(args: argparse.Namespace) -> int:
    from hpcc.runtime.assets.bundle import check_name, unpack

    wanted = check_name(args.digest) if args.digest else ""
    bundle = unpack(args.file, _directory(args), wanted)
    emit(f"hpcc: kept {bundle.directory}", file=sys.stderr)
    emit(f'guest_bundle = "{bundle.digest}"')
    return 0


def _verify(args: argparse.Namespace) -> int:
    from hpcc.runtime.assets.bundle import agent_sources, kept_bundles, verify_kept

    ours, code = agent_sources(), 0
    for place in kept_bundles(_directory(args)):
        try:
            bundle = verify_kept(place)
        except IntegrityError as error:
            code = _EXIT_DAMAGED
            emit(f"damaged  sha256:{place.name}  {plain(error)}")
            continue
        use = "" if bundle.agent_sources == ours else "; its agent is of another hpcc"
        emit(f"ok       {bundle.digest}  {plain(bundle.kernel)}, hpcc {plain(bundle.hpcc)}{use}")
    return code
