"""What the dispatcher remembers between compiles: trees that many share, and what workers hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol

from hpcc.core import Digest, InputFile, folded_inputs
from hpcc.daemon._dispatch_farm import RoutedWorker
from hpcc.daemon._remote_frames import decode_inputs
from hpcc.reapi import TreeBase

_MAX_PACKS: Final = 512
_MAX_PACK_BYTES: Final = 64 << 20
_MAX_WORKERS: Final = 64
_MAX_SENT: Final = 50_000
# Sent without asking whether it is there: the question costs more than so many bytes.
_ASK_ABOVE_BYTES: Final = 64 << 10
_ASK_ABOVE_BLOBS: Final = 16


@dataclass(frozen=True, slots=True, eq=False)
class InputPack:
    """Inputs that many compiles share: their tree, and where each content lies on this machine."""

    base: TreeBase
    files: dict[Digest, str]
    size_bytes: int


class InputPacks:
    """Packs by the bytes that stand for them, the latest used. Used by one thread at a time."""

    def __init__(self) -> None:
        self._packs: OrderedDict[tuple[bytes, bool], InputPack] = OrderedDict()
        self._size_bytes = 0

    def of(self, encoded: bytes, *, folds_case: bool = False) -> InputPack:
        """Return the pack of `encode_inputs`'s bytes; see `folded_inputs`.

        Raises:
            CallerError: they are not that, or two inputs have one place.
        """
        key = (encoded, folds_case)
        known = self._packs.get(key)
        if known is not None:
            self._packs.move_to_end(key)
            return known
        inputs = decode_inputs(encoded)
        files = [InputFile(path, digest) for path, _, digest in inputs]
        base = TreeBase(folded_inputs(files) if folds_case else files)
        pack = InputPack(base, {digest: host for _, host, digest in inputs}, len(encoded))
        self._packs[key] = pack
        self._size_bytes += pack.size_bytes
        while self._packs and (len(self._packs) > _MAX_PACKS or self._size_bytes > _MAX_PACK_BYTES):
            _, old = self._packs.popitem(last=False)
            self._size_bytes -= old.size_bytes
        return pack


class _Asks(Protocol):
    async def find_missing(self, digests: Iterable[Digest]) -> frozenset[Digest]: ...


class _Action(Protocol):
    @property
    def own(self) -> frozenset[Digest]: ...
    @property
    def shared(self) -> InputPack | None: ...
    @property
    def digests(self) -> frozenset[Digest]: ...


@dataclass(slots=True)
class _Held:
    packs: set[InputPack]
    blobs: set[Digest]


class SentBlobs:
    """What each worker was found to hold, so that it is not asked for each header each time.

    A worker evicts as it likes: it says so when it executes, and everything is asked anew.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[str, bytes, str], _Held] = OrderedDict()

    async def unknown(
        self, client: _Asks, worker: RoutedWorker, action: _Action
    ) -> frozenset[Digest]:
        """Return what has to be sent."""
        held = self._of(worker)
        if action.shared is None or action.shared not in held.packs:
            return await client.find_missing(action.digests)
        left = frozenset(action.own - held.blobs)
        is_small = sum(d.size_bytes for d in left) <= _ASK_ABOVE_BYTES
        if is_small and len(left) <= _ASK_ABOVE_BLOBS:
            return left
        return await client.find_missing(left)

    def note(self, worker: RoutedWorker, action: _Action) -> None:
        """Remember that the worker has all of an action."""
        held = self._of(worker)
        if action.shared is not None:
            if len(held.packs) >= _MAX_PACKS:
                held.packs.clear()
            held.packs.add(action.shared)
        if len(held.blobs) >= _MAX_SENT:
            held.blobs.clear()
        held.blobs |= action.own

    def forget(self, worker: RoutedWorker) -> None:
        """Something was evicted: nothing is known of that worker any more."""
        self._held.pop(_key(worker), None)

    def _of(self, worker: RoutedWorker) -> _Held:
        held = self._held.setdefault(_key(worker), _Held(set(), set()))
        self._held.move_to_end(_key(worker))
        if len(self._held) > _MAX_WORKERS:
            self._held.popitem(last=False)
        return held


def _key(worker: RoutedWorker) -> tuple[str, bytes, str]:
    return worker.route.worker_id, worker.route.worker_certificate, worker.tenant.value
