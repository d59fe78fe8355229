"""What the dispatcher remembers between compiles: trees that many share, and what workers hold."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final, Protocol

from hpcc.core import CallerError, Digest, InputFile, folded_inputs
from hpcc.dispatch.farm import RoutedWorker
from hpcc.dispatch.remote_frames import UNKNOWN_INPUTS, decode_inputs
from hpcc.reapi.delta import Delta, make_delta
from hpcc.reapi.tree import TreeBase

_MAX_PACKS: Final = 512
_MAX_PACK_BYTES: Final = 64 << 20
_MAX_WORKERS: Final = 64
_MAX_SENT: Final = 50_000
# Sent without asking whether it is there: the question costs more than so many bytes.
_ASK_ABOVE_BYTES: Final = 64 << 10
_ASK_ABOVE_BLOBS: Final = 16
# What it was to change may be evicted once; a worker that has upgraded has another generation.
_MAX_IGNORED: Final = 3
# Of one worker, for the next change of each file and directory.
_MAX_LATEST_BYTES: Final = 8 << 20


@dataclass(frozen=True, slots=True, eq=False)
class InputPack:
    """Inputs that many compiles share: their tree, and where each content lies on this machine."""

    base: TreeBase
    files: dict[Digest, str]
    size_bytes: int


class InputPacks:
    """Packs by the SHA-256 of the bytes that stand for them, the latest used.

    `of` is called by one thread at a time, `known` by any.
    """

    def __init__(self) -> None:
        self._packs: OrderedDict[tuple[bytes, bool], InputPack] = OrderedDict()
        self._size_bytes = 0

    def known(self, name: bytes, *, folds_case: bool = False) -> InputPack | None:
        """Return a pack that was read before."""
        known = self._packs.get((name, folds_case))
        if known is not None:
            with suppress(KeyError):  # dropped this instant
                self._packs.move_to_end((name, folds_case))
        return known

    def of(self, encoded: bytes, name: bytes = b"", *, folds_case: bool = False) -> InputPack:
        """Return the pack of `encode_inputs`'s bytes, or the one known by its name alone.

        See `folded_inputs`.

        Raises:
            CallerError: they are not that, two inputs have one place, or the name is not known.
        """
        name = name or sha256(encoded).digest()
        known = self.known(name, folds_case=folds_case)
        if known is not None:
            return known
        if not encoded:
            raise CallerError("inputs that are not known here", reason=UNKNOWN_INPUTS)
        inputs = decode_inputs(encoded)
        files = [InputFile(path, digest) for path, _, digest in inputs]
        base = TreeBase(folded_inputs(files) if folds_case else files)
        pack = InputPack(base, {digest: host for _, host, digest in inputs}, len(encoded))
        self._packs[name, folds_case] = pack
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
    @property
    def places(self) -> Mapping[Digest, str]: ...
    def content(self, digest: Digest) -> bytes | None: ...


@dataclass(slots=True)
class _Held:
    packs: set[InputPack] = field(default_factory=set)
    blobs: set[Digest] = field(default_factory=set)
    # What was sent last for each place, oldest first.
    latest: OrderedDict[str, tuple[Digest, bytes]] = field(default_factory=OrderedDict)
    latest_bytes: int = 0


class SentBlobs:
    """What each worker was found to hold, so that it is not asked for each header each time.

    A worker evicts as it likes: it says so when it executes, and everything is asked anew.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[_Key, _Held] = OrderedDict()
        # How often each lacked what had come with a call, since it took some, and in which life.
        self._ignored: OrderedDict[_Key, tuple[int, int]] = OrderedDict()
        # In which life each told of an execution's end alone, as it was asked to.
        self._brief: OrderedDict[_Key, int] = OrderedDict()

    async def unknown(
        self, client: _Asks, worker: RoutedWorker, action: _Action
    ) -> frozenset[Digest]:
        """Return what has to be sent."""
        held = self._of(worker)
        if action.shared is None or action.shared not in held.packs:
            return await client.find_missing(action.digests)
        left = frozenset(action.own - held.blobs)
        return left if _is_little(left) else await client.find_missing(left)

    def deltas(self, worker: RoutedWorker, action: _Action) -> tuple[Delta, ...] | None:
        """Return what the worker lacks in the form that goes with the call, if it is that little.

        None: more is to be sent, or something has to be asked first.
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
        """Remember that the worker has all of an action, and took what came with the call."""
        self.note(worker, action)
        self._ignored.pop(_key(worker), None)

    def lacked(
        self, worker: RoutedWorker, sent: tuple[Delta, ...], missing: Iterable[Digest]
    ) -> None:
        """Hear that a worker lacks blobs: nothing is known of it any more.

        One that again and again lacks what it was just sent is of a build that looks for none.
        """
        self.forget(worker)
        if {delta.digest for delta in sent}.isdisjoint(missing):
            return
        generation, count = self._ignored.pop(_key(worker), (0, 0))
        count = count if generation == worker.route.generation else 0
        self._ignored[_key(worker)] = worker.route.generation, count + 1
        if len(self._ignored) > _MAX_WORKERS:
            self._ignored.popitem(last=False)

    def is_brief(self, worker: RoutedWorker) -> bool:
        """Tell whether a worker answers an execution with one message."""
        return self._brief.get(_key(worker)) == worker.route.generation

    def was_brief(self, worker: RoutedWorker) -> None:
        """Hear that it did."""
        self._brief[_key(worker)] = worker.route.generation
        if len(self._brief) > _MAX_WORKERS:
            self._brief.popitem(last=False)

    def _ignores(self, worker: RoutedWorker) -> bool:
        generation, count = self._ignored.get(_key(worker), (0, 0))
        return generation == worker.route.generation and count >= _MAX_IGNORED

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
        for digest, place in action.places.items():
            data = action.content(digest)
            if data is not None and len(data) <= _ASK_ABOVE_BYTES:
                _put_latest(held, place, digest, data)

    def forget(self, worker: RoutedWorker) -> None:
        """Something was evicted: nothing is known of that worker any more."""
        self._held.pop(_key(worker), None)

    def _of(self, worker: RoutedWorker) -> _Held:
        held = self._held.setdefault(_key(worker), _Held())
        self._held.move_to_end(_key(worker))
        if len(self._held) > _MAX_WORKERS:
            self._held.popitem(last=False)
        return held


def _is_little(digests: Collection[Digest]) -> bool:
    size_bytes = sum(d.size_bytes for d in digests)
    return len(digests) <= _ASK_ABOVE_BLOBS and size_bytes <= _ASK_ABOVE_BYTES


def _put_latest(held: _Held, place: str, digest: Digest, data: bytes) -> None:
    _, old = held.latest.pop(place, (digest, b""))
    held.latest[place] = digest, data
    held.latest_bytes += len(data) - len(old)
    while held.latest_bytes > _MAX_LATEST_BYTES:
        _, (_, dropped) = held.latest.popitem(last=False)
        held.latest_bytes -= len(dropped)


_Key = tuple[str, bytes, str]


def _key(worker: RoutedWorker) -> _Key:
    return worker.route.worker_id, worker.route.worker_certificate, worker.tenant.value
