"""Which compiles of a POSIX client may run here while all places of the farm are taken.

What a build gives must not depend on the farm's load. So a compile runs here only if its object is
the one that the farm would give, byte for byte: the compilers are the same, the flags let nothing
into the object that names a place, the preprocessor shows no name of a file, each header outside of
the project is one that was compared with the image's, and no file asks whether another one exists:
the image may have a header that this machine lacks. The preprocessor is run when a slot is offered,
and not for each compile.

With `local_slots = "any"` the user gives this up, and nothing of it is asked.

A note under the key of the farm's result says that a compile ran here. The next build looks for its
result in the private store before it asks the farm, so that it hits as if the farm had made it.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections.abc import Callable, Iterable
from typing import Final

from hpcc.cache.base.api import Done
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.discovery import answer_about
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.host_parity import HostParity
from hpcc.cache.remote.job import RemoteJob
from hpcc.cache.remote.plan import RemotePlan
from hpcc.compilers.invocation.content import is_proved_in_guests
from hpcc.compilers.scan.questions import NOTHING_ASKED
from hpcc.compilers.scan.scan import Scan
from hpcc.compilers.scan.shown_names import files_named, names_arguments
from hpcc.core import LocalSlots
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.store.private import PrivateStore

_SECONDS: Final = 60.0
# With optimization, glibc's stdio.h reads bits/stdio.h, which the probe does not.
_OF_ONE_PACKAGE: Final = re.compile(
    rb"/c\+\+/[0-9]|/lib(?:32|64)?/(?:gcc|gcc-cross|clang|llvm-[0-9]+)/|/(?:bits|gnu)\Z"
)
# Headers of libstdc++ whose code depends on whether TBB is installed.
_ASKS_FOR_TBB: Final = b"/pstl/"


class SlotRule:
    """Judges compiles, and remembers which ran here. Thread-safe."""

    def __init__(
        self,
        store: PrivateStore,
        host: HostParity,
        find: Callable[[Prepared], Done | None],
        scan: Callable[[bytes], Scan | None],
    ) -> None:
        """`find` puts a stored local result in place; `scan` returns a known scan by its digest."""
        self._store, self._host, self._find, self._scan = store, host, find, scan

    def stored(self, job: RemoteJob, slots: LocalSlots) -> Done | None:
        """Put the result of a compile in place that ran here in an earlier build."""
        name = _note_key(job)
        word = self._store.get(name)
        if word is None or (slots == "exact" and word != b"exact"):
            return None
        done = self._find(job.prepared)
        if done is not None:
            self._store.touch(name)
        return done

    def note(self, job: RemoteJob, slots: LocalSlots) -> None:
        """Note that a compile runs here."""
        self._store.put(_note_key(job), slots.encode())

    def may_run(self, job: RemoteJob, slots: LocalSlots) -> bool:
        """Tell by the flags whether a compile may run here; the rest is asked later."""
        return slots == "any" or _is_without_places(job.prepared)

    def is_same(
        self, job: RemoteJob, plan: RemotePlan, slots: LocalSlots, is_cancelled: Callable[[], bool]
    ) -> bool:
        """Ask the preprocessor whether the object is the same here."""
        if slots == "any":
            return True
        if any(self._may_ask(digest) for _, digest in plan.closure.files):
            return False
        prepared, family = job.prepared, job.prepared.family
        argv = family.expansion_command(
            prepared.request.compiler, prepared.invocation, keeps_lines=True
        )
        reason = UncacheableReason.EXPANSION_FAILED
        try:
            text = answer_about(
                prepared, [*argv, *names_arguments()], is_cancelled, reason, _SECONDS
            )
        except UncacheableError:
            return False
        names = family.visible_names(text, prepared.invocation.source)
        if names is None or names:
            return False
        compared = self._host.compared(prepared)
        sent = {posixpath.normpath(path) for path, _ in plan.closure.files}
        read = (posixpath.normpath(absolute(prepared.cwd, name)) for name in files_named(text))
        return are_compared((path for path in read if path not in sent), compared)

    def _may_ask(self, digest: bytes) -> bool:
        scan = self._scan(digest)
        return scan is None or scan.asked != NOTHING_ASKED


def are_compared(paths: Iterable[bytes], compared: frozenset[bytes]) -> bool:
    """Tell whether the image has these headers as this machine has them.

    `compared` are those of which it was seen. A header beside one of them in a directory where
    only the compiler or its C library installs headers is from the same package.
    """
    homes = {path.rpartition(b"/")[0] for path in compared}
    own = {home for home in homes if _OF_ONE_PACKAGE.search(home)}
    return all(
        path in compared or (path.rpartition(b"/")[0] in own and _ASKS_FOR_TBB not in path)
        for path in paths
    )


def _note_key(job: RemoteJob) -> bytes:
    return hashlib.sha256(b"local-slot-1\0" + job.key).digest()


def _is_without_places(prepared: Prepared) -> bool:
    """Tell by the flags whether the object holds no path, but for what sources expand."""
    if (
        prepared.looked_for
        or prepared.is_mapped
        or prepared.is_recorded
        or prepared.identity.has_hidden_flags
    ):
        return False
    invocation = prepared.invocation
    if prepared.written.side or invocation.is_native or invocation.language.is_preprocessed:
        return False
    form = prepared.family.content_form(prepared.invocation, prepared.identity.major)
    if form is None or not is_proved_in_guests(form):
        return False
    return not form.names_directory and not form.is_tied
