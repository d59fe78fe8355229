"""What the dispatcher keeps between compiles: shared input trees, and what each worker holds."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

from hpcc.core import CallerError, Digest, InputFile, folded_inputs
from hpcc.core.memo import LruMemo, SizedMemo
from hpcc.dispatch.channels import RoutedWorker
from hpcc.dispatch.remote_frames import UNKNOWN_INPUTS, decode_inputs
from hpcc.reapi.delta import Delta, make_delta
from hpcc.reapi.tree import TreeBase

_MAX_PACKS: Final = 512
_MAX_PACK_BYTES: Final = 64 << 20
_MAX_WORKERS: Final = 64
_MAX_SENT: Final = 50_000
# Less than this is sent without asking for missing blobs: the call would cost more.
_ASK_ABOVE_BYTES: Final = 64 << 10
_ASK_ABOVE_BLOBS: Final = 16
# A delta can fail because its base was evicted. After this many failures in a row the worker is
# taken for a build without deltas; an upgraded worker has a new generation.
_MAX_IGNORED: Final = 3
# Per worker: the bases of later deltas, one per file and directory.
_MAX_LATEST_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class InputPack:
    """Inputs that many compiles share: their tree, and the path of each content on this machine."""

    base: TreeBase
    files: dict[Digest, str]
    size_bytes: int


class InputPacks:
    """Packs by the SHA-256 of their encoded bytes; least recently used ones are dropped.

    One thread at a time calls `of`; any thread may call `known`.
    """

    def __init__(self) -> None:
        self._packs: SizedMemo[tuple[bytes, bool], InputPack] = SizedMemo(
            lambda pack: pack.size_bytes, max_bytes=_MAX_PACK_BYTES, max_entries=_MAX_PACKS
        )

    def known(self, name: bytes, *, folds_case: bool = False) -> InputPack | None:
        """Return a pack that was decoded before."""
        return self._packs.use((name, folds_case))

    def of(self, encoded: bytes, name: bytes = b"", *, folds_case: bool = False) -> InputPack:
        """Return the pack of the bytes of `encode_inputs`.

        With empty `encoded` only a known `name` is found. `folds_case`: see `folded_inputs`.

        Raises:
            CallerError: the bytes are malformed, two inputs have one path, or the name is unknown.
        """
        name = name or sha256(encoded).digest()
        known = self.known(name, folds_case=folds_case)
        if known is not None:
            return known
        if not encoded:
            raise CallerError("the compile refers to unknown inputs", reason=UNKNOWN_INPUTS)
        inputs = decode_inputs(encoded)
        files = [InputFile(path, digest) for path, _, digest in inputs]
        base = TreeBase(folded_inputs(files) if folds_case else files)
        pack = InputPack(base, {digest: host for _, host, digest in inputs}, len(encoded))
        self._packs.put((name, folds_case), pack)
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
    @property
    def places(self) -> Mapping[Digest, str]: ...
    def content(self, digest: Digest) -> bytes | None: ...


@dataclass(slots=True)
class _Held:
    packs: set[InputPack] = field(default_factory=set)
    blobs: set[Digest] = field(default_factory=set)
    # The content sent last for each place, oldest first.
    latest: SizedMemo[str, tuple[Digest, bytes]] = field(
        default_factory=lambda: SizedMemo(lambda sent: len(sent[1]), max_bytes=_MAX_LATEST_BYTES)
    )


class SentBlobs:
    """Blobs that each worker holds, so that not every compile asks for every header.

    A worker may evict at any time. It reports that when it executes; then all is asked again.
    """

    def __init__(self) -> None:
        self._held: LruMemo[_Key, _Held] = LruMemo(_MAX_WORKERS)
        # Generation, and how often it lacked what came with a call since it last took a delta.
        self._ignored: LruMemo[_Key, tuple[int, int]] = LruMemo(_MAX_WORKERS)
        # The generation in which a worker answered an execution with one message, as asked.
        self._brief: LruMemo[_Key, int] = LruMemo(_MAX_WORKERS)

    async def unknown(
        self, client: _Asks, worker: RoutedWorker, action: _Action
    ) -> frozenset[Digest]:
        """Return the blobs to be sent; asks the worker where they are many or not known."""
        held = self._of(worker)
        if action.shared is None or action.shared not in held.packs:
            return await client.find_missing(action.digests)
        left = frozenset(action.own - held.blobs)
        return left if _is_little(left) else await client.find_missing(left)

    def deltas(self, worker: RoutedWorker, action: _Action) -> tuple[Delta, ...] | None:
        """Return what the worker lacks as deltas that fit into the call that executes.

        None: there is more to send, or the worker has to be asked first.
        """
        held = self._of(worker)
        is_asked = action.shared is None or action.shared not in held.packs
        left = action.own - held.blobs
        if is_asked or not _is_little(left) or self._ignores(worker):
            return None
        found: list[Delta] = []
        for digest in left:
            data = action.content(digest)
            if data is None:
                return None
            base = held.latest.get(action.places.get(digest, ""))
            found.append(Delta(digest, data) if base is None else make_delta(digest, data, *base))
        return tuple(found)

    def taken(self, worker: RoutedWorker, action: _Action) -> None:
        """Note that the worker has all blobs of an action and took what came with the call."""
        self.note(worker, action)
        self._ignored.pop(_key(worker), None)

    def lacked(
        self, worker: RoutedWorker, sent: tuple[Delta, ...], missing: Iterable[Digest]
    ) -> None:
        """Note that a worker lacks blobs: everything noted for it is dropped.

        A worker that keeps lacking what was just sent is of a build that ignores deltas.
        """
        self.forget(worker)
        if {delta.digest for delta in sent}.isdisjoint(missing):
            return
        generation, count = self._ignored.pop(_key(worker), (0, 0))
        count = count if generation == worker.route.generation else 0
        self._ignored[_key(worker)] = worker.route.generation, count + 1

    def is_brief(self, worker: RoutedWorker) -> bool:
        """Report whether a worker answers an execution with one message."""
        return self._brief.get(_key(worker)) == worker.route.generation

    def was_brief(self, worker: RoutedWorker) -> None:
        """Note that the worker answered an execution with one message."""
        self._brief[_key(worker)] = worker.route.generation

    def _ignores(self, worker: RoutedWorker) -> bool:
        generation, count = self._ignored.get(_key(worker), (0, 0))
        return generation == worker.route.generation and count >= _MAX_IGNORED

    def note(self, worker: RoutedWorker, action: _Action) -> None:
        """Note that the worker has all blobs of an action."""
        held = self._of(worker)
        if action.shared is not None:
            if len(held.packs) >= _MAX_PACKS:
                held.packs.clear()
            held.packs.add(action.shared)
        if len(held.blobs) >= _MAX_SENT:
            held.blobs.clear()
        held.blobs |= action.own
        for digest, place in action.places.items():
            data = action.content(digest)
            if data is not None and len(data) <= _ASK_ABOVE_BYTES:
                held.latest.put(place, (digest, data))

    def forget(self, worker: RoutedWorker) -> None:
        """Drop everything noted for a worker, because it has evicted something."""
        self._held.pop(_key(worker), None)

    def _of(self, worker: RoutedWorker) -> _Held:
        held = self._held.use(_key(worker))
        if held is None:
            held = self._held[_key(worker)] = _Held()
        return held


def _is_little(digests: Collection[Digest]) -> bool:
    size_bytes = sum(d.size_bytes for d in digests)
    return len(digests) <= _ASK_ABOVE_BLOBS and size_bytes <= _ASK_ABOVE_BYTES


_Key = tuple[str, bytes, str]


def _key(worker: RoutedWorker) -> _Key:
    return worker.route.worker_id, worker.route.worker_certificate, worker.tenant.value
