"""Finds and stores results by request key: manifests and outputs, on disk and in memory.

The copies in memory are bounded. `hpcc clean` is noticed by the store's epoch.
"""

from __future__ import annotations

import hashlib
import threading
from typing import Final, NamedTuple

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.fields import decode_fields, encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import (
    MAX_SETS,
    InputSet,
    add_set,
    decode_manifest,
    encode_manifest,
    make_set,
)
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.replay.replay import Pins
from hpcc.core import CallerError, IntegrityError
from hpcc.core.basis import FarmTerms, ResultBasis
from hpcc.core.memo import LruMemo, SizedMemo
from hpcc.store.private import PrivateStore

_FORMAT: Final = b"result-2"
# Depfile and messages with a mark where a root was; `origin` comes second.
_SHARED_FORMAT: Final = b"shared-result-1"
_OLDER_FORMAT: Final = b"older-sets-1"
# What must be stored, of all that is stored at once.
_RESULT_AND_MANIFEST: Final = 2
# Before a key's id in `Result.origin`. The origin of a checkout has 8 bytes.
_SIGNED: Final = b"signed-by:"
# Before the text of a `ResultBasis`.
_OF_FARM: Final = b"of-farm:"
# A few thousand translation units: more than an edit-compile loop touches.
MAX_MANIFESTS: Final = 4096
MAX_RESULT_BYTES: Final = 64 << 20
# Larger outputs are read from disk each time: the read costs little compared with writing them.
MAX_ONE_RESULT_BYTES: Final = 2 << 20


class Result(NamedTuple):
    """The outputs and messages of a successful compile. `depfile` is None without a depfile flag.

    `side` are the contents of the further outputs, in the order of `Prepared.side_paths`. `origin`
    identifies the checkout that made a shared result (`hpcc.cache.results.share_results`), with the
    digests of its binary inputs, or the key that signed it (`signed_origin`), or tells why a farm's
    result counts (`basis_origin`).
    """

    object_data: bytes
    depfile: bytes | None
    stdout: bytes
    stderr: bytes
    side: tuple[bytes, ...] = ()
    origin: bytes = b""

    @property
    def size_bytes(self) -> int:
        all_parts = (self.object_data, self.depfile or b"", self.stdout, self.stderr, *self.side)
        return sum(map(len, all_parts))


def signed_origin(kid: str) -> bytes:
    """Return the `origin` of a result that a remote cache had, signed with a key of this id."""
    return _SIGNED + kid.encode()


def signer_of(origin: bytes) -> str:
    """Return the id of the key that signed a fetched result; "" for a result made here."""
    return origin[len(_SIGNED) :].decode() if origin.startswith(_SIGNED) else ""


def basis_origin(basis: str) -> bytes:
    """Return the `origin` of a farm's result, which has a basis with this text."""
    return _OF_FARM + basis.encode()


def basis_text(origin: bytes) -> str:
    """Return the text of a farm result's basis; "" for any other result."""
    return origin[len(_OF_FARM) :].decode() if origin.startswith(_OF_FARM) else ""


def counts_under(result: Result, terms: FarmTerms) -> bool:
    """Return whether a copy may still be served. An engine's has no basis: no terms cover it."""
    try:
        text = basis_text(result.origin)
        return not text or ResultBasis.parse(text).counts(terms)
    except (CallerError, ValueError):
        return False


class Found(NamedTuple):
    """A result, and the set of inputs that it belongs to."""

    inputs: InputSet
    result: Result


class Results:
    """Looks up and stores results. Thread-safe; a disk error is a miss."""

    def __init__(self, store: PrivateStore, memo: FileMemo, counters: Counters) -> None:
        self._store, self._memo, self._counters = store, memo, counters
        self._lock = threading.Lock()
        self._manifests: LruMemo[bytes, tuple[InputSet, ...]] = LruMemo(MAX_MANIFESTS)
        self._results: SizedMemo[bytes, Result] = SizedMemo(
            lambda result: result.size_bytes, max_bytes=MAX_RESULT_BYTES
        )
        self._epoch = store.epoch()

    def find(self, request_key: bytes) -> Found | None:
        """Return the result whose inputs match the file system now, or None."""
        sets = self.sets(request_key)
        # A recently written source is hashed at each look-up: share one digest between all sets.
        first: dict[bytes, bytes | None] = {}
        found = self._find_in(request_key, sets, first)
        if found is not None or len(sets) < MAX_SETS:
            return found
        # The manifest is full. A configure script compiles a hundred texts with one command.
        path = sets[0].files[0][0] if sets[0].files else b""
        digest = first.get(path)
        if digest is None:
            return None
        older = _older_key(request_key, path, digest)
        return self._find_in(older, self._sets(older), first)

    def _find_in(
        self, request_key: bytes, sets: tuple[InputSet, ...], first: dict[bytes, bytes | None]
    ) -> Found | None:
        for index, inputs in enumerate(sets):
            if not inputs.holds(self._memo, first):
                continue
            result = self.result(inputs.result_key)
            if result is None:
                return None
            if index:
                self.prefer(request_key, sets, inputs)
            return Found(inputs, result)
        return None

    def pin_epoch(self, pins: Pins) -> None:
        """Pin the store's epoch, which `hpcc clean` changes."""
        pins.state(*self._store.epoch_state())

    def touch(self, request_key: bytes, result_key: bytes) -> None:
        """Mark entries as recently used, for a hit that was replayed."""
        self._store.touch(request_key)
        self._store.touch(result_key)

    def release(self, result_key: bytes) -> None:
        """Drop the copy in memory, because a replay holds another."""
        with self._lock:
            self._results.drop(result_key)

    def keep(self, request_key: bytes, closure: Closure, result: Result) -> bytes | None:
        """Store a result under the inputs it was made from.

        Returns its result key, or None if the store refused it.
        """
        part = closure.part
        if part is None:
            inputs = make_set(
                request_key, closure.files, closure.present, closure.absences, twins=closure.twins
            )
        else:
            own = closure.files[: len(closure.files) - len(part.files)]
            inputs = make_set(request_key, own, closure.present, (), part, closure.twins)
        return self._keep(request_key, inputs, result, keeps_dropped=True)

    def keep_set(self, request_key: bytes, inputs: InputSet, result: Result) -> bytes | None:
        """Store a result under a set of inputs; see `keep`."""
        return self._keep(request_key, inputs, result, keeps_dropped=False)

    def _keep(
        self, request_key: bytes, inputs: InputSet, result: Result, *, keeps_dropped: bool
    ) -> bytes | None:
        older = self._stored_sets(request_key)
        sets = add_set(older, inputs)
        manifests = {request_key: sets}
        if keeps_dropped and len(older) >= MAX_SETS:
            manifests |= self._dropped(request_key, older, sets)
        # Together: a file for each of them costs the disk more than all else here.
        stored = self._store.put_all(
            [
                (inputs.result_key, encode_result(result)),
                *((key, encode_manifest(its)) for key, its in manifests.items()),
            ]
        )
        if stored < _RESULT_AND_MANIFEST:
            return None
        for key, its in list(manifests.items())[: stored - 1]:
            self._remember_sets(key, (its[0]._replace(body=b""), *its[1:]))
        self._remember_result(inputs.result_key, result)
        self._counters.add("bytes.stored", result.size_bytes)
        return inputs.result_key

    def _dropped(
        self, request_key: bytes, before: tuple[InputSet, ...], kept: tuple[InputSet, ...]
    ) -> dict[bytes, tuple[InputSet, ...]]:
        """Return the sets that a manifest drops, under the content of their first file."""
        kept_keys = {inputs.result_key for inputs in kept}
        found: dict[bytes, tuple[InputSet, ...]] = {}
        for inputs in before:
            if inputs.result_key in kept_keys or not inputs.files:
                continue
            key = _older_key(request_key, *inputs.files[0])
            others = found[key] if key in found else self._stored_sets(key)
            found[key] = add_set(others, inputs)
        return found

    def _stored_sets(self, request_key: bytes) -> tuple[InputSet, ...]:
        return self._sets(request_key) if self._store.has(request_key) else ()

    def latest(self, request_key: bytes) -> InputSet | None:
        """Return the inputs of the newest hit or result, None if they are not in memory."""
        with self._lock:
            sets = self._manifests.get(request_key)
        return sets[0] if sets else None

    def why_missed(self, request_key: bytes) -> str:
        """Return why `find` found nothing: "new-command", "inputs-changed" or "evicted"."""
        with self._lock:
            sets = self._manifests.get(request_key)  # `find` has just read them
        if not sets:
            return "new-command"
        is_there = any(self._store.has(inputs.result_key) for inputs in sets)
        return "inputs-changed" if is_there else "evicted"

    def sets(self, request_key: bytes) -> tuple[InputSet, ...]:
        """Return the stored sets of inputs of a key, the most recent first; at most `MAX_SETS`."""
        self._notice_clean()
        return self._sets(request_key)

    def prefer(self, request_key: bytes, sets: tuple[InputSet, ...], inputs: InputSet) -> None:
        """Move one of the sets to the front, so that the next look-up checks it first."""
        self._remember_sets(request_key, add_set(sets, inputs))

    def _sets(self, request_key: bytes) -> tuple[InputSet, ...]:
        with self._lock:
            known = self._manifests.use(request_key)
        if known is not None:
            self._store.touch(request_key)
            return known
        data = self._store.get(request_key)
        if data is None:
            return ()
        try:
            sets = decode_manifest(data)
        except IntegrityError:
            self._counters.add("store.corrupt")
            self._store.remove(request_key)
            return ()
        self._remember_sets(request_key, sets)
        return sets

    def result(self, key: bytes) -> Result | None:
        """Return one result by `InputSet.result_key`; a damaged entry is removed."""
        with self._lock:
            known = self._results.use(key)
        if known is not None:
            self._store.touch(key)
            return known
        data = self._store.get(key)
        if data is None:
            return None
        try:
            result = decode_result(data)
        except IntegrityError:
            self._counters.add("store.corrupt")
            self._store.remove(key)
            return None
        self._remember_result(key, result)
        return result

    def _remember_sets(self, request_key: bytes, sets: tuple[InputSet, ...]) -> None:
        with self._lock:
            self._manifests[request_key] = sets

    def _remember_result(self, key: bytes, result: Result) -> None:
        if result.size_bytes > MAX_ONE_RESULT_BYTES:
            return
        with self._lock:
            self._results.put(key, result)

    def _notice_clean(self) -> None:
        """Drop the copies in memory if `hpcc clean` emptied the directory."""
        epoch = self._store.epoch()
        if epoch == self._epoch:
            return
        self._epoch = epoch
        with self._lock:
            self._manifests.clear()
            self._results.clear()
        self._store.rescan()


def _older_key(request_key: bytes, path: bytes, digest: bytes) -> bytes:
    """Return the key of sets that a full manifest dropped and that have this first file."""
    fields = [_OLDER_FORMAT, request_key, path, digest]
    return hashlib.sha256(encode_fields(fields)).digest()


def encode_result(result: Result) -> bytes:
    """Encode a result; equal results give equal bytes."""
    depfile = encode_fields([] if result.depfile is None else [result.depfile])
    head = [_SHARED_FORMAT, result.origin] if result.origin else [_FORMAT]
    return encode_fields(
        [*head, result.object_data, result.stdout, result.stderr, depfile, *result.side]
    )


def decode_result(data: bytes) -> Result:
    """Decode what `encode_result` wrote.

    Raises:
        IntegrityError: the bytes are not a result of this version.
    """
    fields = decode_fields(data)
    origin = fields.pop(1) if len(fields) > 1 and fields[0] == _SHARED_FORMAT else b""
    if len(fields) < 5 or fields[0] not in {_FORMAT, _SHARED_FORMAT}:
        raise IntegrityError("not a result of this version", reason="bad-record")
    _, object_data, stdout, stderr, wrapped, *side = fields
    depfile = decode_fields(wrapped)
    if len(depfile) > 1:
        raise IntegrityError("not a result of this version", reason="bad-record")
    return Result(object_data, depfile[0] if depfile else None, stdout, stderr, tuple(side), origin)
