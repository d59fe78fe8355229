"""`hpcc clean`: deletes what the private cache holds."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from typing import Final

from hpcc.cli.base.terminal import emit
from hpcc.cli.cache.stats import human, private_store
from hpcc.config.extras import missing_modules
from hpcc.config.paths import PACKS_NAME, Paths
from hpcc.config.settings import load_settings
from hpcc.ports import SystemClock

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([KMGT]?)(?:i?B)?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_DAYS: Final = re.compile(r"\d{1,6}(?:\.\d{1,6})?")
_DAY_SECONDS: Final = 86_400


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `hpcc clean`."""
    clean = subparsers.add_parser("clean", help="delete cached results", description=_clean.__doc__)
    clean.add_argument(
        "--max-size",
        metavar="SIZE",
        type=_parse_size,
        help="keep the most recently used results up to this size: 500M, 2G, 1.5GiB (binary units)",
    )
    clean.add_argument(
        "--max-age",
        metavar="DAYS",
        type=_parse_days,
        help="keep results that were used within this many days",
    )
    clean.set_defaults(handler=_clean)


def _parse_size(text: str) -> int:
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise argparse.ArgumentTypeError(f"not a size: {text[:40]!r}; write for example 500M or 2G")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _parse_days(text: str) -> float:
    if not _DAYS.fullmatch(text):
        raise argparse.ArgumentTypeError(
            f"not a number of days: {text[:40]!r}; write for example 30"
        )
    return float(text)


def _clean(args: argparse.Namespace) -> int:
    """Delete this user's cached results, also while a daemon runs. Images are kept."""
    paths = Paths.from_env(os.environ)
    store = private_store(paths)
    freed = 0
    if args.max_age is not None:
        freed += store.trim_unused(SystemClock().now() - args.max_age * _DAY_SECONDS)
    if args.max_size is not None or args.max_age is None:
        freed += store.trim(args.max_size or 0)
        freed += _clear_packs(paths)
    store.bump_epoch()
    if sys.platform == "win32":
        from hpcc.cache.windows.kept_hits import HITS_NAME, clear_hits  # late: only there

        clear_hits(paths.run / HITS_NAME)
    emit(f"{human(freed)} freed, {human(store.size_bytes)} kept")
    return 0


def _clear_packs(paths: Paths) -> int:
    """Delete all build packs; return the bytes that this freed."""
    directory = paths.cache / PACKS_NAME
    if sys.platform == "win32" or not directory.is_dir():
        return 0
    if missing_modules("client"):
        # Nothing here can read a pack, and no pull runs.
        freed = sum(path.lstat().st_size for path in directory.rglob("*") if path.is_file())
        shutil.rmtree(directory)
        return freed
    from hpcc.cache.packs.opening import local_packs

    return local_packs(paths, load_settings(paths.config_file)).clear()
