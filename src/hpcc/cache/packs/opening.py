"""Builds the packs of a remote cache from the user's settings."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from hpcc.cache.base.counters import Counters
from hpcc.cache.packs.local import LocalPacks, root_id
from hpcc.cache.packs.packs import Packs, PacksConfig
from hpcc.cache.packs.transfer import Team, Transfer, commits_with_packs, pull
from hpcc.cache.results.results import Results
from hpcc.cache.signed.opening import open_objects
from hpcc.cache.signed.remote import RemoteCache
from hpcc.cache.signed.trust import TrustBook, place_name
from hpcc.config.paths import PACKS_NAME, Paths
from hpcc.config.remote_cache import place_of
from hpcc.config.settings import Settings
from hpcc.core import CallerError
from hpcc.ports import SystemClock
from hpcc.store.private import PrivateStore


def local_packs(paths: Paths, settings: Settings) -> LocalPacks:
    """Return the packs on this machine."""
    return LocalPacks(
        paths.cache / PACKS_NAME,
        max_cache_bytes=settings.cache.max_size_bytes,
        now=SystemClock().now,
    )


def open_packs(
    paths: Paths,
    settings: Settings,
    remote_cache: RemoteCache,
    results: Results,
    store: PrivateStore,
    counters: Counters,
    home: bytes,
) -> Packs:
    """Build the packs of a daemon, and let the remote cache look into them."""
    remote, local = settings.cache.remote, local_packs(paths, settings)
    store.share_limit_with(local)
    config = PacksConfig(
        namespace=remote.namespace,
        place=place_name(remote),
        home=home,
        max_cache_bytes=settings.cache.max_size_bytes,
        is_automatic=remote.pull_packs,
        signing=remote_cache.signing,
    )
    packs = Packs(
        remote_cache.network,
        remote_cache.book,
        local,
        results,
        store,
        counters,
        SystemClock().monotonic,
        config,
    )
    remote_cache.look_into(packs)
    return packs


class PackPlace:
    """The team's place for a command, which pulls without a daemon.

    Raises:
        CallerError: there is no remote cache, or a setting is wrong.
    """

    def __init__(
        self, paths: Paths, settings: Settings, root: bytes, revoked: frozenset[str]
    ) -> None:
        remote = settings.cache.remote
        place = place_of(remote)
        if place is None:
            raise CallerError("there is no remote cache", reason="no-remote-cache")
        self._remote, self._place = remote, place
        self._book = TrustBook(paths.cache_trust_file, remote, SystemClock().now)
        self._team = Team(remote.namespace, partial(self._book.judge, root, revoked))
        self.has_keys = bool(self._book.keys(root, revoked))
        self.root = root_id(root, place_name(remote))

    async def pull(
        self, local: LocalPacks, commits: tuple[str, ...], make_room: Callable[[int], None]
    ) -> Transfer:
        """See `transfer.pull`."""
        async with open_objects(self._remote, self._place) as objects:
            with local.pulling():
                # The daemon need not do it again.
                local.was_asked(self.root, commits[0])
                return await pull(objects, self._team, local, self.root, commits, make_room)

    async def commits(self, commits: tuple[str, ...]) -> list[str]:
        """Return those of the commits for which the place claims to have a pack."""
        async with open_objects(self._remote, self._place) as objects:
            return await commits_with_packs(objects, self._team, commits, Transfer(), len(commits))
