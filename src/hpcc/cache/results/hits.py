"""Serves a hit: puts outputs in place, counts and records it, and remembers it as a replay.

This module pins what a hit depends on besides its inputs, for local and farm hits; see `Replays`.
"""

from __future__ import annotations

import os
import posixpath
from typing import Final

from hpcc.cache.base.counters import Counters
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.manifest import InputSet
from hpcc.cache.base.outputs import OutputFile
from hpcc.cache.host.identity import Compilers
from hpcc.cache.key.marker import MARKER
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.replay.engine import Plan
from hpcc.cache.replay.replay import NotPinnedError, OnHit, Pins, Replays
from hpcc.cache.results.records import HIT, Records
from hpcc.cache.results.results import Found, Result, Results, signer_of
from hpcc.cache.root.project_root import RootSearch
from hpcc.wire import launcher as wire

_NEW_FILE_MODE: Final = 0o666


class Hits:
    """Serves the hits that `Results` found. Thread-safe."""

    def __init__(  # noqa: PLR0913 - what a hit needs, and the files that it is pinned to
        self,
        replays: Replays,
        results: Results,
        memo: FileMemo,
        compilers: Compilers,
        counters: Counters,
        records: Records,
        *,
        farm_file: bytes | None,
        session_file: bytes,
        trust_file: bytes = b"",
    ) -> None:
        self._replays, self._results, self._memo = replays, results, memo
        self._compilers, self._counters, self._records = compilers, counters, records
        self._farm_file, self._session_file = farm_file, session_file
        self._trust_file = trust_file

    def put(
        self,
        prepared: Prepared,
        found: Found,
        *,
        key: bytes,
        outcome: str,
        root: RootSearch | None = None,
    ) -> bool:
        """Put a stored result in place; False if only the compiler may write the outputs.

        `root` is the search for a root without a marker, if the key depends on one.
        """
        plan = plan_of(prepared, found.result)
        if plan is None or not self._replays.put(plan):
            return False
        signer = signer_of(found.result.origin)
        is_foreign = prepared.share is not None and prepared.share.is_foreign(found.result.origin)
        made = "hit.signed" if signer else "hit.shared" if is_foreign else ""
        self._note(prepared, found.result.size_bytes, key, outcome, made, signer)
        if prepared.replay_ok and prepared.request.frame:
            # The closure below must not hold the data, which the plan holds already.
            size, result_key = found.result.size_bytes, found.inputs.result_key

            def on_hit(facts: bytes) -> None:
                build = self._records.builds.hit(facts, prepared.request.cwd)
                self._note(prepared, size, key, outcome, made, signer, build=build)
                self._results.touch(key, result_key)

            trust = self._trust_file if signer else b""
            self._remember(prepared, found.inputs, plan, outcome, on_hit, root, trust)
        return True

    def put_new(self, prepared: Prepared, result: Result) -> bool:
        """Put a new result in place, without counting or remembering a hit."""
        plan = plan_of(prepared, result)
        return plan is not None and self._replays.put(plan)

    def _note(
        self,
        prepared: Prepared,
        size_bytes: int,
        key: bytes,
        outcome: str,
        made: str,
        signer: str,
        *,
        build: str | None = None,
    ) -> None:
        self._counters.add(outcome)
        if made:
            self._counters.add(made)
        self._records.hit(prepared, key, outcome, build, signer)
        self._counters.add("bytes.served", size_bytes)

    def _remember(
        self,
        prepared: Prepared,
        inputs: InputSet,
        plan: Plan,
        outcome: str,
        on_hit: OnHit,
        root: RootSearch | None,
        trust: bytes,
    ) -> None:
        pins = Pins(self._memo)
        try:
            # What `hpcc cache trust` and `revoke` write decides whether the signature still counts.
            _pin_file(pins, trust)
            pins.place(prepared.cwd)
            _pin_variable(pins, prepared)
            self._results.pin_epoch(pins)
            self._pin_farm(pins, outcome)
            request = prepared.request
            self._compilers.pin(prepared.identity, request.compiler, request.env, pins, request.cwd)
            pins.inputs(inputs, {output.path.rpartition(b"/")[0] for output in plan.outputs})
            _pin_markers(pins, prepared)
            if root is not None:
                _pin_root(pins, root)
        except NotPinnedError:
            return
        plan = plan._replace(checks=pins.checks())
        frame, is_provisional = prepared.request.frame, pins.is_provisional
        if self._replays.remember(frame, plan, on_hit, is_provisional=is_provisional):
            self._results.release(inputs.result_key)

    def _pin_farm(self, pins: Pins, outcome: str) -> None:
        """Pin the configured farm or its absence: with a farm, its results are looked up first.

        Raises:
            NotPinnedError: a local hit while a farm is configured, or the farm file is too new.
        """
        if self._farm_file is None:
            return
        if outcome != HIT:
            pins.quiet(self._farm_file)
            # The farm's last answer counts, too: its policy, and the image's compilers.
            _pin_file(pins, self._session_file)
        elif os.path.lexists(self._farm_file):
            raise NotPinnedError
        else:
            pins.absent_each((self._farm_file,))


def _pin_file(pins: Pins, path: bytes) -> None:
    """Pin a file, or its absence; with b"" do nothing.

    Raises:
        NotPinnedError: it was changed too recently.
    """
    if path and os.path.lexists(path):
        pins.quiet(path)
    elif path:
        pins.absent_each((path,))


def _pin_variable(pins: Pins, prepared: Prepared) -> None:
    """Pin where $PWD leads if it is another text than the working directory.

    Raises:
        NotPinnedError: it leads nowhere.
    """
    pwd = prepared.request.env.get(b"PWD", b"")
    if pwd.startswith(b"/") and pwd != prepared.cwd:
        pins.place(pwd)


def _pin_markers(pins: Pins, prepared: Prepared) -> None:
    """Pin the marker that decides, or the absence of one.

    Raises:
        NotPinnedError: the marker was changed too recently.
    """
    search = prepared.marker_status.search
    if search.marker is None:
        pins.absent_each(posixpath.join(d, MARKER) for d in search.directories)
        return
    *below, root = search.directories
    pins.absent_each(posixpath.join(d, MARKER) for d in below)
    for directory in search.directories:
        pins.place(directory)
    pins.thing(posixpath.join(root, MARKER))


def _pin_root(pins: Pins, search: RootSearch) -> None:
    """Pin what the search for a root without a marker depended on.

    The times of `.git` do not count: they change with each commit.

    Raises:
        NotPinnedError: it met an entry that it refused, or a file that was changed too recently.
    """
    if search.is_odd:
        raise NotPinnedError
    pins.absent_each(search.absent)
    for directory in search.places:
        pins.place(directory)
    for path in search.read:
        pins.quiet(path)


def plan_of(prepared: Prepared, result: Result) -> Plan | None:
    """Build the plan for a result: depfile first, object last; None if the outputs differ."""
    written = prepared.written
    if len(result.side) != len(written.side):
        return None
    outputs = [
        OutputFile(path, data, keeps_mode=file.keeps_mode)
        for path, data, file in zip(prepared.side_paths, result.side, written.side, strict=True)
    ]
    outputs.append(
        OutputFile(prepared.output, result.object_data, keeps_mode=written.output_keeps_mode)
    )
    if prepared.depfile is not None:
        if result.depfile is None:
            return None
        # GCC and Clang truncate the depfile, but mostly create objects anew (binutils, clang).
        outputs.insert(0, OutputFile(prepared.depfile, result.depfile, keeps_mode=True))
    try:
        source = os.stat(prepared.source)
    except OSError:
        return None
    return Plan(
        checks=(),
        outputs=tuple(outputs),
        mode=_NEW_FILE_MODE & ~prepared.request.umask,
        source=(source.st_dev, source.st_ino),
        answer=wire.encode_done(wire.LauncherDone(0, result.stdout, result.stderr)),
    )
