"""`hpcc pack …`: the results of a whole build as one download from the team's remote cache."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.cli.cache.checkout import checkout_marker, home_directory
from hpcc.cli.cache.stats import human, private_store
from hpcc.config.paths import Paths
from hpcc.config.remote_cache import place_of
from hpcc.config.settings import Settings, load_settings
from hpcc.core import CallerError, InfrastructureError, NotFoundError
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.cache.key.marker import Marker
    from hpcc.cache.packs.local import LocalPacks
    from hpcc.cache.packs.opening import PackPlace

_PUSH_SECONDS: Final = 600.0
_POLL_SECONDS: Final = 0.1
# The quarter of the default `max_size_bytes`.
_USUAL_LIMIT: Final = 5 << 28


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    pack = subparsers.add_parser(
        "pack", help="share the results of a whole build: one download, then all is local"
    )
    actions = pack.add_subparsers(title="actions", metavar="ACTION", required=True)
    push = actions.add_parser(
        "push", help="sign and upload what this daemon compiled here", description=_push.__doc__
    )
    push.add_argument(
        "--all", action="store_true", help="also upload parts that are there, to renew their age"
    )
    push.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=_PUSH_SECONDS,
        help=f"give up after so long (default: {_PUSH_SECONDS:.0f})",
    )  # fmt: skip
    push.set_defaults(handler=_push)
    pull = actions.add_parser(
        "pull", help="fetch the pack of the nearest ancestor that has one",
        description=_pull.__doc__,
    )  # fmt: skip
    pull.set_defaults(handler=_pull)
    for parser in (push, pull):
        parser.add_argument(
            "--commit", metavar="SHA", default="", help="a whole commit id (default: HEAD)"
        )
    status = actions.add_parser(
        "status", help="show the packs that are here", description=_status.__doc__
    )
    status.set_defaults(handler=_status)
    listing = actions.add_parser(
        "list", help="show which commits up to HEAD have a pack", description=_list.__doc__
    )
    listing.set_defaults(handler=_list)


def _settings(paths: Paths) -> Settings:
    settings = load_settings(paths.config_file)
    if place_of(settings.cache.remote) is None:
        raise CallerError(
            f"there is no remote cache: set url in [cache.remote] of {paths.config_file}",
            reason="no-remote-cache",
        )
    return settings


def _commit(marker: Marker, given: str) -> str:
    """Return the commit of an option, or that of HEAD."""
    from hpcc.cache.git.ancestors import head_of
    from hpcc.cache.git.reading import GitError
    from hpcc.cache.packs.index import COMMIT

    if given:
        if not COMMIT.fullmatch(given):
            raise CallerError("--commit needs all 40 or 64 digits of the id", reason="pack-commit")
        return given
    try:
        return head_of(marker.root, home_directory())
    except GitError as error:
        raise CallerError(f"{error}: give --commit SHA", reason="pack-commit") from error


def _push(args: argparse.Namespace) -> int:
    """Sign and upload what this daemon compiled in this checkout since it started.

    Also what it took from packs, with the signatures that it came with. Run it in CI after the
    build. The exit code is 1 if a result was lost, which costs a later compile only.
    """
    from hpcc.daemon.client import query

    paths, clock, marker = Paths.from_env(os.environ), SystemClock(), checkout_marker()
    _settings(paths)
    commit = _commit(marker, args.commit)
    mode = "all" if args.all else "missing"
    _answer(query(paths, "\0".join(("pack", "push", os.fsdecode(marker.root), commit, mode))))
    deadline, pause = clock.monotonic() + args.timeout, threading.Event()
    while (state := _answer(query(paths, "pack\0push-state"))).get("is_running"):
        if clock.monotonic() >= deadline:
            raise InfrastructureError("the push has not ended yet", reason="pack-push")
        pause.wait(_POLL_SECONDS)
    n = {name: value for name, value in state.items() if isinstance(value, int)}
    emit(
        f"pack of {commit[:12]}: {n['entries']} results, {human(n['raw_bytes'])}; "
        f"{n['sent_chunks']} of {n['chunks']} parts sent ({human(n['sent_bytes'])})"
    )
    if n["raw_bytes"] > _USUAL_LIMIT:
        emit("it is larger than a quarter of a cache of the default size", file=sys.stderr)
    if n["lost"]:
        emit(f"{n['lost']} results were evicted before the push, and lost", file=sys.stderr)
    return 1 if n["lost"] else 0


def _answer(answer: dict[str, object]) -> dict[str, object]:
    if "refusal" in answer:
        raise CallerError(str(answer["refusal"]), reason="pack-push")
    if "error" in answer:
        raise InfrastructureError(f"nothing was pushed: {answer['error']}", reason="pack-push")
    return answer


def _pull(args: argparse.Namespace) -> int:
    """Fetch the pack of HEAD, or of its nearest ancestor that has one.

    Compiles of this checkout then find it without a request. A daemon also does this by itself
    when it meets a new HEAD, unless `pull_packs` is false.
    """
    from hpcc.cache.git.ancestors import ancestors_of

    paths, clock, marker = Paths.from_env(os.environ), SystemClock(), checkout_marker()
    settings = _settings(paths)
    local, place = _opened(paths, settings, marker)
    if not place.has_keys:
        raise CallerError(
            "no key counts for this checkout: run `hpcc cache trust`", reason="cache-trust"
        )
    commit = _commit(marker, args.commit)
    commits = ancestors_of(marker.root, home_directory(), commit)

    def make_room(need: int) -> None:
        store = private_store(paths)
        goal = settings.cache.max_size_bytes - local.size_bytes - need
        if store.size_bytes > goal and store.trim(max(0, goal)):
            store.bump_epoch()

    started = clock.monotonic()
    report = asyncio.run(place.pull(local, commits, make_room))
    behind = commits.index(report.commit)
    where = f"{_commits(behind)} before {commit[:12]}" if behind else "this commit"
    emit(
        f"pack of {report.commit[:12]} ({where}): {report.entries} results, "
        f"{human(report.raw_bytes)}; {report.moved_chunks} of {report.chunks} parts fetched "
        f"({human(report.moved_bytes)}) in {clock.monotonic() - started:.1f} s"
    )
    for refusal in report.refused:
        emit(f"a nearer pack was refused: {refusal.text}", file=sys.stderr)
    if report.absent:
        emit(
            f"{report.absent} parts are no longer there: `hpcc pack push --all` renews them",
            file=sys.stderr,
        )
    return 0


def _opened(paths: Paths, settings: Settings, marker: Marker) -> tuple[LocalPacks, PackPlace]:
    from hpcc.cache.packs.opening import PackPlace, local_packs

    place = PackPlace(paths, settings, marker.root, marker.revoked_keys)
    return local_packs(paths, settings), place


def _status(_args: argparse.Namespace) -> int:
    """Show the packs of this checkout that are here, and whether the daemon pulls by itself."""
    from hpcc.cache.git.ancestors import ancestors_of

    paths, marker = Paths.from_env(os.environ), checkout_marker()
    settings = _settings(paths)
    local, place = _opened(paths, settings, marker)
    try:
        commits = ancestors_of(marker.root, home_directory(), _commit(marker, ""))
    except CallerError:
        commits = ()
    emit(f"{'checkout':<10} {os.fsdecode(marker.root)}")
    emit(f"{'HEAD':<10} {commits[0] if commits else 'unknown'}")
    is_on = settings.cache.remote.pull_packs
    emit(f"{'automatic':<10} {'yes, once for each commit' if is_on else 'no (pull_packs)'}")
    emit(f"{'disk':<10} {human(local.size_bytes)} of {human(local.max_bytes)}, for all checkouts")
    for pack in local.packs(place.root):
        used = datetime.fromtimestamp(pack.used_at, UTC)
        index = pack.index
        emit(
            f"{'pack':<10} {index.commit[:12]}{_distance(commits, index.commit)}: {index.entries} "
            f"results, {human(index.raw_bytes)}, used {used:%Y-%m-%d %H:%M} UTC"
        )
    return 0


def _list(_args: argparse.Namespace) -> int:
    """Ask the remote cache which of the last 64 commits up to HEAD have a pack."""
    from hpcc.cache.git.ancestors import ancestors_of

    paths, marker = Paths.from_env(os.environ), checkout_marker()
    _, place = _opened(paths, _settings(paths), marker)
    commits = ancestors_of(marker.root, home_directory(), _commit(marker, ""))
    found = asyncio.run(place.commits(commits))
    for commit in found:
        emit(f"{commit}{_distance(commits, commit)}")
    if not found:
        raise NotFoundError(f"none of the last {len(commits)} commits has a pack", reason="no-pack")
    return 0


def _distance(commits: tuple[str, ...], commit: str) -> str:
    if commit not in commits:
        return " (no ancestor of HEAD)"
    behind = commits.index(commit)
    return f" ({_commits(behind)} before HEAD)" if behind else " (HEAD)"


def _commits(count: int) -> str:
    return "1 commit" if count == 1 else f"{count} commits"
