"""What `hpcc explain` says of the nearest result that the team's remote cache has.

It sends one request for each file that it explains, at most three. It prints paths that the compile
here reads and spellings of flags; outlines hold nothing else (`hpcc.cache.signed.outline`).
"""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import TYPE_CHECKING, Final

from hpcc.config.extras import why_missing
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import HpccError, NotFoundError
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.cache.results.records_read import CompileRecord
    from hpcc.cache.signed.outline import OutlineDifference
    from hpcc.config.remote_cache import RemoteCacheSettings, RemotePlace

MAX_ASKED: Final = 3
_MAX_SHOWN: Final = 8
_LABEL: Final = "  nearest       "
_INDENT: Final = " " * len(_LABEL)


def nearest_lines(record: CompileRecord, paths: Paths) -> list[str]:
    """Compare a miss with the nearest outline in the remote cache; empty if there is none."""
    from hpcc.config.remote_cache import place_of

    # A compile that failed has no list of inputs to compare.
    if record.command is None or not record.checkout or not record.files:
        return []
    try:
        remote = load_settings(paths.config_file).cache.remote
        place = place_of(remote)
        if place is not None and (trouble := why_missing("client", "the remote cache")):
            return [f"{_LABEL}unknown: {trouble}"]
        found = None if place is None else _nearest(record, paths, remote, place)
    except NotFoundError:
        return [f"{_LABEL}no other result of this source and compiler in the remote cache"]
    except ValueError:  # the record is damaged
        return []
    except (HpccError, TimeoutError, OSError) as error:
        why = error.reason if isinstance(error, HpccError) else type(error).__name__
        return [f"{_LABEL}unknown: the remote cache did not answer ({why})"]
    return [] if found is None else difference_lines(found)


def _nearest(
    record: CompileRecord, paths: Paths, remote: RemoteCacheSettings, place: RemotePlace
) -> OutlineDifference | None:
    from hpcc.cache.key.marker import MarkerError, read_marker
    from hpcc.cache.signed.opening import open_objects
    from hpcc.cache.signed.outline import MAX_OUTLINES_BYTES, Here, nearest, open_outlines
    from hpcc.cache.signed.trust import TrustBook
    from hpcc.compilers.invocation.share import ROOT_MARK, under_root

    command, root = record.command, os.fsencode(record.checkout)
    assert command is not None
    try:
        revoked = read_marker(root).revoked_keys
    except (MarkerError, OSError):
        return None
    book = TrustBook(paths.cache_trust_file, remote, SystemClock().now)
    if not book.keys(root, revoked):
        return None

    async def get() -> bytes:
        async with asyncio.timeout(remote.timeout_seconds), open_objects(remote, place) as objects:
            return await objects.get(command.object_name(remote.namespace), MAX_OUTLINES_BYTES)

    data = asyncio.run(get())
    judge = partial(book.judge, root, revoked)
    files = {}
    for name, digest in record.files.items():
        path = os.fsencode(name)
        inside = under_root(path, root)
        files[path if inside is None else ROOT_MARK + inside] = bytes.fromhex(digest)
    here = Here(command, bytes.fromhex(record.identity), files)
    return nearest(here, open_outlines(data, command.name, remote.namespace, judge))


def difference_lines(found: OutlineDifference, whose: str = "", more_paths: int = 0) -> list[str]:
    """Say how the nearest result differs from the compile here.

    `whose` says what vouches for it; without it the key does. `more_paths` are not in `found`.
    """
    whose = whose or f", signed by key {found.kid[:16]}"
    others = [
        word
        for is_other, word in (
            (found.is_other_compiler, "compiler"),
            (found.is_other_directory, "directory"),
            (found.is_other_environment, "environment or terminal"),
        )
        if is_other
    ]
    if found.flags:
        others.append(f"flags {', '.join(found.flags)}")
    elif found.is_reordered:
        others.append("order of flags")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.at))
    same = f"another {', another '.join(others)}" if others else "the same command"
    lines = [f"{_LABEL}a result of {when}{whose}: {same}"]
    shown = [path.removeprefix("\0/") for path in found.paths[:_MAX_SHOWN]]
    count = len(found.paths) + more_paths
    if more := count - len(shown):
        shown.append(f"and {more} others")
    if shown:
        verb = "differs" if count == 1 else "differ"
        lines.append(f"{_INDENT}{', '.join(shown)} {verb}")
    counts = [f"{found.equal} {'other ' if shown else ''}inputs are equal"]
    if found.only_here:
        counts.append(f"{found.only_here} are read here only")
    if found.only_there:
        counts.append(f"{found.only_there} are read there only")
    return [*lines, f"{_INDENT}{', '.join(counts)}"]
