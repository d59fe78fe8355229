"""Results, keys and packs for tests without a compiler."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from hpcc.cache.base.manifest import make_set
from hpcc.cache.packs import transfer
from hpcc.cache.packs.chunks import PackRecord, row_name, signed_record
from hpcc.cache.packs.local import LocalPacks
from hpcc.cache.packs.transfer import Team, Transfer, pull, push
from hpcc.cache.results.results import Result
from hpcc.cache.signed.entry import Content, EntryName, Judge
from hpcc.compilers.invocation.share import ROOT_MARK
from hpcc.core.reasons.remote_cache import RefusedEntry
from hpcc.identity.cache_keys import CacheKey, SigningKey
from hpcc.store.objects import MemoryObjects
from hpcc_testkit.cache.machines import signing_key

NAMESPACE: Final = "team"
COMMIT: Final = "a" * 40
ROOT: Final = "0" * 32


def trusting(*keys: SigningKey) -> Judge:
    """Return a judge for which only these keys count."""

    def judge(kid: str) -> CacheKey | RefusedEntry:
        found = [key.key for key in keys if key.key.kid == kid]
        return found[0] if found else RefusedEntry.UNKNOWN_KEY

    return judge


def digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def entry(number: int, text: str = "") -> tuple[EntryName, Content]:
    """Return the name and content of a result; `text` is another state of its source."""
    name = EntryName(digest(f"key {number}"), digest(f"source {number} {text}"), digest("gcc"))
    files = ((ROOT_MARK + b"/a.c", name.source), (b"/usr/include/stdio.h", digest("stdio")))
    inputs = make_set(name.share_key, files, (), ())
    # Not compressible, so that chunks differ in their bytes.
    data = b"".join(digest(f"{number} {text} {part}") for part in range(40))
    return name, Content(inputs, Result(data, None, b"", b"warning"))


def record(number: int, key: SigningKey, text: str = "", namespace: str = NAMESPACE) -> PackRecord:
    name, content = entry(number, text)
    data = signed_record(name, namespace, content.encode(), key)
    return PackRecord(row_name(name, namespace), (name.share_key, name.source), lambda: data)


@dataclass
class Bench:
    """A place, a reader's packs, and the keys of CI and of a stranger."""

    directory: Path
    ci: SigningKey
    stranger: SigningKey
    objects: MemoryObjects = field(default_factory=MemoryObjects)
    max_cache_bytes: int = 1 << 30
    at: float = 1000.0

    def packs(self) -> LocalPacks:
        return LocalPacks(
            self.directory / "packs", max_cache_bytes=self.max_cache_bytes, now=lambda: self.at
        )

    def team(self, namespace: str = NAMESPACE) -> Team:
        return Team(namespace, trusting(self.ci), 5.0)

    async def push(
        self, records: Iterable[PackRecord], commit: str = COMMIT, *, key: SigningKey | None = None,
        namespace: str = NAMESPACE, sends_all: bool = False,
    ) -> Transfer:  # fmt: skip
        key = key or self.ci
        team = Team(namespace, trusting(key), 5.0)
        return await push(self.objects, team, key, commit, records, sends_all=sends_all)

    async def pull(self, *commits: str, root: str = ROOT) -> Transfer:
        packs = self.packs()
        with packs.pulling():
            return await pull(
                self.objects, self.team(), packs, root, commits or (COMMIT,), lambda _need: None
            )


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a pusher look at once whether its index is still there."""
    monkeypatch.setattr(transfer, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, signing_key(tmp_path / "ci.key"), signing_key(tmp_path / "s.key"))
