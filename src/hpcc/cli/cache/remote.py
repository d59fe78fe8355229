"""`hpcc cache …`: a team's remote cache, its keys, and whose signatures count here."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.base.terminal import emit
from hpcc.cli.cache.checkout import checkout_marker
from hpcc.config.paths import Paths
from hpcc.config.remote_cache import RemoteCacheSettings, place_of
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, HpccError, InfrastructureError, NotFoundError
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.identity.cache_keys import CacheKey

_FLUSH_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.1
_KEY_DAYS: Final = 365
_SOON_DAYS: Final = 30
_PREFIX: Final = "remote-cache."


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of this module."""
    cache = subparsers.add_parser(
        "cache", help="share signed results through a bucket: keys, trust, uploads"
    )
    actions = cache.add_subparsers(title="actions", metavar="ACTION", required=True)
    status = actions.add_parser(
        "status", help="show the remote cache and the keys that count here",
        description=_status.__doc__,
    )  # fmt: skip
    status.set_defaults(handler=_status)
    flush = actions.add_parser(
        "flush", help="wait until everything is uploaded", description=_flush.__doc__
    )
    flush.add_argument(
        "--timeout", metavar="SECONDS", type=float, default=_FLUSH_SECONDS,
        help=f"give up after so long (default: {_FLUSH_SECONDS:.0f})",
    )  # fmt: skip
    flush.set_defaults(handler=_flush)
    keygen = actions.add_parser(
        "keygen", help="make a key that signs results", description=_keygen.__doc__
    )
    keygen.add_argument("file", metavar="FILE", help="where the secret half is written (mode 0600)")
    keygen.add_argument(
        "--days", type=int, default=_KEY_DAYS, help=f"how long it counts (default: {_KEY_DAYS})"
    )
    keygen.set_defaults(handler=_keygen)
    trust = actions.add_parser(
        "trust", help="let a proposed key count for this checkout", description=_trust.__doc__
    )
    trust.add_argument(
        "--fingerprint", help="confirm the key with this fingerprint, without a question"
    )
    trust.add_argument("--remove", action="store_true", help="forget what was confirmed here")
    trust.set_defaults(handler=_trust)
    revoke = actions.add_parser(
        "revoke", help="never believe a key again, on this machine", description=_revoke.__doc__
    )
    revoke.add_argument("key", metavar="KEY", help="an id, or a line of `hpcc cache keygen`")
    revoke.set_defaults(handler=_revoke)


def _settings(paths: Paths) -> RemoteCacheSettings:
    remote = load_settings(paths.config_file).cache.remote
    if place_of(remote) is None:
        raise CallerError(
            f"there is no remote cache: set url in [cache.remote] of {paths.config_file}",
            reason="no-remote-cache",
        )
    return remote


def _status(_args: argparse.Namespace) -> int:
    """Show where the remote cache is, the keys that count for this checkout, and what happened."""
    paths = Paths.from_env(os.environ)
    remote = _settings(paths)
    emit(f"{'place':<10} {remote.url} (namespace {remote.namespace}, mode {remote.mode})")
    for line in key_lines(paths, remote):
        emit(line)
    for line in _counted(paths):
        emit(line)
    return 0


def key_lines(paths: Paths, remote: RemoteCacheSettings) -> list[str]:
    """Return a line for each key that is configured, confirmed or proposed here."""
    from hpcc.cache.signed.trust import load_trust, place_name
    from hpcc.identity.cache_keys import parse_cache_key, revoked_id

    now, trust = SystemClock().now(), load_trust(paths.cache_trust_file)
    revoked = {*map(revoked_id, remote.revoked_keys), *trust.revoked}
    rows = [(parse_cache_key(line), "hpcc.toml, every checkout") for line in remote.trusted_keys]
    proposed: tuple[str, ...] = ()
    try:
        marker = checkout_marker()
    except NotFoundError as error:
        lines = [f"{'checkout':<10} none: {error}"]
    else:
        root, proposed = os.fsdecode(marker.root), marker.proposed_keys
        revoked |= marker.revoked_keys
        lines = [f"{'checkout':<10} {root}"]
        rows += [
            (parse_cache_key(row.line), "confirmed for this checkout")
            for row in trust.confirmed
            if (row.root, row.place) == (root, place_name(remote))
        ]
    lines += [f"{'key':<10} {_described(key, revoked, now)}; {why}" for key, why in rows]
    known = {key.line for key, _ in rows}
    lines += [
        f"{'proposed':<10} {line[:120]} (`hpcc cache trust` shows its fingerprint)"
        for line in proposed
        if line not in known
    ]
    if not any(key.kid not in revoked and not key.is_expired(now) for key, _ in rows):
        lines.append(f"{'keys':<10} none counts here, so nothing is read")
    return lines


def _described(key: CacheKey, revoked: set[str], now: float) -> str:
    state = f"until {key.last_day}"
    if key.kid in revoked:
        state = "REVOKED"
    elif key.is_expired(now):
        state = f"EXPIRED on {key.last_day}"
    return f"{key.kid} {state}, fingerprint {key.fingerprint}"


def _counted(paths: Paths) -> list[str]:
    from hpcc.cli.cache.stats import current_counts, remote_rows

    counts = current_counts(paths)
    lines = [f"{'waiting':<10} {counts.get(_PREFIX + 'pending', 0)} uploads"]
    return [*lines, *remote_rows(counts)]


def _flush(args: argparse.Namespace) -> int:
    """Wait until every result is uploaded. The exit code is 1 if this daemon lost one."""
    from hpcc.daemon.client import query

    paths, clock = Paths.from_env(os.environ), SystemClock()
    _settings(paths)
    deadline, pause = clock.monotonic() + args.timeout, threading.Event()
    while True:
        try:
            counters = query(paths, "stats").get("counters")
        except NotFoundError:
            emit("no daemon is running, so nothing waits")
            return 0
        counts = counters if isinstance(counters, dict) else {}
        waiting = counts.get(_PREFIX + "pending", 0)
        if not waiting:
            break
        if clock.monotonic() >= deadline:
            raise InfrastructureError(
                f"{waiting} results still wait to be uploaded", reason="cache-flush"
            )
        pause.wait(_POLL_SECONDS)
    done, lost = (counts.get(f"{_PREFIX}daemon-{what}", 0) for what in ("done", "lost"))
    emit(f"since the daemon started: {done} results uploaded or there already, {lost} lost")
    if lost:
        emit(f"daemon.log in {paths.state} has the reasons; so has `hpcc stats`", file=sys.stderr)
    return 1 if lost else 0


def _keygen(args: argparse.Namespace) -> int:
    """Make an Ed25519 key for `signing_key_file`, and print the line that readers trust.

    The line is public. The file is a secret of CI: its holder can put results into builds.
    """
    from hpcc.identity.cache_keys import make_signing_key

    made = make_signing_key(Path(args.file).absolute(), days=args.days, now=SystemClock().now())
    emit(made.key.line)
    emit(f"fingerprint {made.key.fingerprint}, id {made.key.kid}", file=sys.stderr)
    return 0


def _trust(args: argparse.Namespace) -> int:
    """Confirm a key that the `.hpcc` of this checkout proposes.

    The key counts for this root and this place only. Compare the fingerprint with what your team
    published elsewhere: everybody who can change the clone can propose a key.
    """
    from hpcc.cache.signed.trust import (
        Confirmed,
        TrustFile,
        change_trust,
        load_trust,
        place_name,
    )
    from hpcc.identity.cache_keys import parse_cache_key

    paths = Paths.from_env(os.environ)
    remote, marker = _settings(paths), checkout_marker()
    root, place = os.fsdecode(marker.root), place_name(remote)
    if args.remove:
        change_trust(paths.cache_trust_file, lambda trust: trust.without(root, place))
        emit(f"no key is confirmed for {root} any more")
        return 0
    known = load_trust(paths.cache_trust_file).lines(root, place)
    proposed = [key for key in map(parse_cache_key, marker.proposed_keys) if key.line not in known]
    if args.fingerprint:
        wanted = args.fingerprint.replace("-", "").lower()
        proposed = [key for key in proposed if key.fingerprint.replace("-", "") == wanted]
    if not proposed:
        raise NotFoundError(f"{root}/.hpcc proposes no such key that is not confirmed yet")
    for key in proposed:
        emit(f"{'root':<12} {root}\n{'place':<12} {remote.url} (namespace {remote.namespace})")
        emit(f"{'key':<12} {key.kid}, until {key.last_day}\n{'fingerprint':<12} {key.fingerprint}")
        if args.fingerprint or _agrees():
            row = Confirmed(root, place, key.line)
            change_trust(paths.cache_trust_file, partial(TrustFile.including, row=row))
            emit(f"it counts for {root} now")
    return 0


def _agrees() -> bool:
    if not sys.stdin.isatty():
        raise CallerError(
            "nobody can be asked here: run `hpcc cache trust --fingerprint FINGERPRINT`",
            reason="cache-trust",
        )
    emit("Results that this key signs will be put into your builds. Type yes to confirm: ", end="")
    sys.stdout.flush()
    return sys.stdin.readline().strip() == "yes"


def _revoke(args: argparse.Namespace) -> int:
    """Revoke a key on this machine, at once and also for results that are here already.

    For a team, also write the id into `revoked_keys` of the checkout's `.hpcc`.
    """
    from hpcc.cache.signed.trust import change_trust
    from hpcc.identity.cache_keys import revoked_id

    paths, kid = Paths.from_env(os.environ), revoked_id(args.key)
    change_trust(paths.cache_trust_file, lambda trust: trust.revoking(kid))
    emit(f"{kid} is revoked")
    return 0


def expiring(lines: tuple[str, ...], now: float) -> list[str]:
    """Return what is wrong, or will be within 30 days, with the keys of a setting."""
    from hpcc.identity.cache_keys import parse_cache_key

    troubles = []
    for line in lines:
        try:
            key = parse_cache_key(line)
        except HpccError as error:
            troubles.append(str(error))
            continue
        if key.is_expired(now):
            troubles.append(f"key {key.kid} expired on {key.last_day}")
        elif key.is_expired(now + _SOON_DAYS * 86_400):
            troubles.append(f"key {key.kid} expires on {key.last_day}")
    return troubles
