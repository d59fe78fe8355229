"""Decides whether a compile can run in a guest, and builds its request; for POSIX clients.

The closure comes from the sources' text, or from the host compiler's `-M` if the text is not
enough. The client sends files under the project root, and files that root owns and everybody may
read (`guest_paths.installed_files`). The image has its own system headers. A compile that reads any
other file stays on this machine.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hpcc import __version__
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.stamps import CompileStart, StampClock, take_start
from hpcc.cache.base.uncacheable import UncacheableError, absolute, check_start
from hpcc.cache.inputs.clocks import CLOCKS, clocks_in
from hpcc.cache.inputs.closure import find_closure, unchanged_since
from hpcc.cache.inputs.closure_types import Closure, ClosureRequest
from hpcc.cache.inputs.discovery import ask_dependencies
from hpcc.cache.inputs.embedded_files import look_again
from hpcc.cache.inputs.twins import with_directories
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.completion import Completions
from hpcc.cache.remote.farm_root import FarmRoot, check_spelling
from hpcc.cache.remote.flag_trial import FlagTrial
from hpcc.cache.remote.guest_paths import SYSTEM, guest_path, is_under
from hpcc.cache.remote.guest_places import (
    guest_map,
    holds_word,
    renamed_build,
    searched_directories,
    settled_map,
    with_installed,
    with_passed,
    with_searched,
    without_names,
)
from hpcc.cache.remote.job import RemoteJob, guest_environment, remote_job
from hpcc.cache.remote.native_meaning import SPECS_NAME, NativeMeanings
from hpcc.cache.remote.remote_closure import (
    RemoteClosures,
    RemoteFiles,
    refuse_unlike_in_guest,
    remote_inputs,
)
from hpcc.cache.remote.side_outputs import check_side_outputs
from hpcc.cache.root.ignored import Outgoing
from hpcc.compilers.invocation.guest import (
    GuestMap,
    NotPortableError,
    as_text,
)
from hpcc.compilers.scan.include_closure import UnscannableError
from hpcc.compilers.scan.scan import Hazard
from hpcc.config.farm import Farm
from hpcc.core import MAX_INPUTS, RemoteRequest, RemoteResult, Toolchain
from hpcc.core.reasons.closure import ClosureReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason

_CLOCK_REASONS: Final = frozenset({UncacheableReason.DATE_TIME, UncacheableReason.TIMESTAMP})
# `may_keep` checks for changes after the compile, before the result is stored.
_NEVER_FRESH: Final = 1 << 62


@dataclass(frozen=True, slots=True)
class RemotePlan:
    """A compile for a guest, and the local state that it was made from.

    `guest` translates the guest's paths. `asked`: why the compiler was asked for the closure; "" if
    the sources' text was enough. `started` is from before it was asked, None if it was not.
    """

    request: RemoteRequest
    closure: Closure
    guest: GuestMap
    asked: str = ""
    started: CompileStart | None = None

    @property
    def counter(self) -> str:
        """See `client.FarmPlan.counter`."""
        return f"closure.asked.{self.asked}" if self.asked else "closure.scanned"

    def may_keep(self) -> bool:
        """Tell whether a result of this plan certainly belongs to the closure's state.

        A guest reads only the inputs, by digest, and a closure found by text was found in exactly
        those bytes, so later changes to the files do not matter. A compiler that was asked with
        `-M` may have read the files before or after a change.
        """
        if self.started is None:
            return True
        files = self.closure.files
        try:
            check_start(self.started, files)
        except UncacheableError:
            return False
        return unchanged_since([path for path, _ in files], self.started)


class Planner:
    """Builds plans for compiles in guests. Thread-safe."""

    def __init__(
        self,
        memo: FileMemo,
        search_path: Callable[[Prepared], tuple[bytes, ...]],
        closures: RemoteClosures,
        outgoing: Outgoing,
        clock: StampClock,
        native: NativeMeanings,
    ) -> None:
        self._clock = clock
        self._memo, self._search_path, self._closures = memo, search_path, closures
        self._outgoing = outgoing
        self._trial, self._completions = FlagTrial(), Completions()
        self._native = native

    def job(self, compile_: Prepared, farm: Farm) -> RemoteJob:
        """See `client.FarmPlanner.job`."""
        return remote_job(compile_, farm, self._outgoing.home)

    def learn(self, job: RemoteJob, plan: RemotePlan, outcome: RemoteResult) -> bool:
        """Add files that the guest lacked; return True if another plan may succeed."""
        prepared, root = job.prepared, job.root
        guest = plan.guest
        sent = frozenset(path for path, _ in plan.closure.files)

        def may_send(path: bytes) -> bool:
            withheld = self._outgoing.first_withheld
            return not root.is_found or withheld((path,), prepared.cwd, root.path) is None

        return self._completions.learn(
            job.key, outcome.stderr, prepared, guest, root.marker, sent, may_send
        )

    def plan(
        self, job: RemoteJob, image: Sequence[Toolchain] | None, is_cancelled: Callable[[], bool]
    ) -> RemotePlan:
        """See `client.FarmPlanner.plan`. Files that `learn` added are sent as well."""
        prepared, root = job.prepared, job.root
        if prepared.invocation.has_modules or prepared.invocation.concerns_interfaces:
            raise NotPortableError(FallbackReason.MODULES)
        if prepared.invocation.concerns_precompiled:
            raise NotPortableError(FallbackReason.PCH)
        path = root.path
        if path == b"/" or any(is_under(path, s) or is_under(s, path) for s in SYSTEM):
            raise NotPortableError(FallbackReason.SYSTEM_ROOT)
        check_spelling(prepared, root)
        guest = check_side_outputs(prepared, root, guest_map(prepared, root))
        if self._needs_installed(job, guest, image):
            guest = with_installed(guest)
        return self._plan(job, guest, image, is_cancelled)

    def _needs_installed(
        self, job: RemoteJob, guest: GuestMap, image: Sequence[Toolchain] | None
    ) -> bool:
        """Tell whether the compile names installed files outside of the root, and needs some."""
        prepared = job.prepared
        named = (prepared.invocation.source, *prepared.invocation.include_dirs)
        is_installed = with_installed(guest).is_installed
        if guest.has_same_length or not any(d[:1] == b"/" and is_installed(d) for d in named):
            return False
        try:
            self._argv(prepared, guest, image)
            self._closures.scan(prepared, guest, self._completions.of(job.key))
        except NotPortableError as error:
            return error.reason == FallbackReason.OUTSIDE_ROOT
        except UnscannableError as error:
            return error.reason == ClosureReason.OUTSIDE_ROOT
        return False

    def _plan(
        self,
        job: RemoteJob,
        guest: GuestMap,
        image: Sequence[Toolchain] | None,
        is_cancelled: Callable[[], bool],
    ) -> RemotePlan:
        prepared, root = job.prepared, job.root
        before, spelled = guest, self._argv(prepared, guest, image)  # may refuse: before more work
        extra = self._completions.of(job.key)
        if root.is_found or renamed_build(prepared, root):
            guest = without_names(prepared, root, guest)
        files, asked, started = self._files(prepared, guest, is_cancelled, extra)
        settled = settled_map(self._memo, prepared, root, guest, files)
        if settled is not guest:
            guest = settled
            files, asked, started = self._files(prepared, guest, is_cancelled, extra)
        if guest is not before:
            spelled = self._argv(prepared, guest, image)
        argv, injected, specs = spelled
        if specs:
            if holds_word(self._memo, prepared, root.path, files.closure, SPECS_NAME):
                raise NotPortableError(FallbackReason.NATIVE, "a source holds a name of hpcc's")
            files = self._native.with_specs(files, specs)
        if len(files.inputs) > MAX_INPUTS:
            raise NotPortableError(FallbackReason.TOO_MANY_FILES)
        self._check_outgoing(prepared, root, files.closure)
        searched = searched_directories(prepared, guest)
        directories = with_searched(files.directories, searched, guest)
        env = guest_environment(prepared, guest)
        request = RemoteRequest(
            argv=argv,
            env=tuple(
                zip(as_text(sorted(env)), as_text([env[n] for n in sorted(env)]), strict=True)
            ),
            cwd=as_text([guest.relative(prepared.cwd)])[0],
            inputs=files.inputs,
            directories=with_passed(directories, prepared, guest),
            shared=files.shared,
            outputs=self._outputs(prepared, guest),
            injected=as_text(injected),
            client_version=__version__,
            build=prepared.request.build,
        )
        # A header may be found before one of them is looked into, so no absence need name it.
        closure = with_directories(files.closure, searched)
        return RemotePlan(request, closure, guest, asked, started)

    def _check_outgoing(self, prepared: Prepared, root: FarmRoot, closure: Closure) -> None:
        """Refuse a compile that needs a file which must stay here.

        Raises:
            NotPortableError: there is such a file.
        """
        if not root.is_found:
            return
        normal = (posixpath.normpath(path) for path, _ in closure.files)
        paths = (path for path in normal if is_under(path, root.path))
        withheld = self._outgoing.first_withheld(paths, prepared.cwd, root.path)
        if withheld is not None:
            raise NotPortableError(withheld.reason, os.fsdecode(withheld.path))

    def _argv(
        self, prepared: Prepared, guest: GuestMap, image: Sequence[Toolchain] | None
    ) -> tuple[tuple[str, ...], tuple[bytes, ...], bytes]:
        """Return argv, the flags in it that hpcc added, and the file of specs that they name."""
        family, program = prepared.family, prepared.request.argv[0]
        version = family.image_version(program, image)
        host = (prepared.identity.major,)
        # The host's compiler can stand in for the image's only if the versions are equal.
        is_same = version is None or version[:1] == host

        def accepts(flags: tuple[bytes, ...]) -> bool:
            return not is_same or self._trial.accepts(prepared, flags)

        program = posixpath.basename(program)
        meaning = self._native.spelled_out(prepared, os.fsdecode(program), image)
        arguments, injected = family.guest_command(
            meaning.invocation, guest, version or host, accepts
        )
        native = meaning.words
        return as_text([program, *native, *arguments]), (*native, *injected), meaning.specs

    def _outputs(self, prepared: Prepared, guest: GuestMap) -> tuple[str, ...]:
        names = [prepared.invocation.output]
        if prepared.invocation.depfile is not None:
            names.append(prepared.invocation.depfile)
        names.extend(file.name for file in prepared.written.side)
        return tuple(guest_path(guest.relative(name)) for name in names)

    def _files(
        self,
        prepared: Prepared,
        guest: GuestMap,
        is_cancelled: Callable[[], bool],
        extra: tuple[bytes, ...],
    ) -> tuple[RemoteFiles, str, CompileStart | None]:
        """Return the files to send, and why and when the compiler was asked ("" if it was not)."""
        try:
            return self._scanned(prepared, guest, is_cancelled, extra), "", None
        except UnscannableError as error:
            if error.is_final or prepared.invocation.language.is_preprocessed:
                raise NotPortableError(error.reason) from error
            started = self._start(prepared, guest)
            closure = self._asked(prepared, guest, is_cancelled, extra)
            inputs = remote_inputs(self._memo, dict(closure.files).items(), guest)
            return RemoteFiles(closure, inputs), error.reason, started

    def _start(self, prepared: Prepared, guest: GuestMap) -> CompileStart:
        cwd, source = prepared.cwd, prepared.source
        named = (source.rpartition(b"/")[0] or b"/", *prepared.invocation.include_dirs)
        directories = (guest.root, cwd, *(absolute(cwd, d) for d in named))
        return take_start(self._clock, directories, (source,), self._memo.digest)

    def _scanned(
        self,
        prepared: Prepared,
        guest: GuestMap,
        is_cancelled: Callable[[], bool],
        extra: tuple[bytes, ...],
    ) -> RemoteFiles:
        """Find the files by text; the host's preprocessor settles whether they read a clock.

        Raises:
            UnscannableError: the text does not determine them.
            UncacheableError: a clock is read.
        """
        try:
            return self._closures.scan(prepared, guest, extra)
        except UnscannableError as error:
            if (
                error.reason not in _CLOCK_REASONS
                or not prepared.family.resolvable(prepared.identity.major) & CLOCKS
            ):
                raise
        started = self._start(prepared, guest)
        files = self._closures.scan(prepared, guest, extra, settled=CLOCKS)
        paths = tuple(path for path, _ in files.closure.files)
        digests = (digest for _, digest in files.closure.files)
        doubts = clocks_in(self._memo, prepared.invocation, digests)
        self._refuse_clocks(prepared, paths, is_cancelled, doubts)
        check_start(started, files.closure.files)
        if not unchanged_since(paths, started):
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE)
        return files

    def _refuse_clocks(
        self,
        prepared: Prepared,
        paths: tuple[bytes, ...],
        is_cancelled: Callable[[], bool],
        doubts: Hazard,
    ) -> tuple[bytes, ...]:
        return look_again(self._memo, prepared, (), is_cancelled, doubts, paths, has_listing=True)

    def _asked(
        self,
        prepared: Prepared,
        guest: GuestMap,
        is_cancelled: Callable[[], bool],
        extra: tuple[bytes, ...],
    ) -> Closure:
        for directory in prepared.invocation.include_dirs:
            path = posixpath.normpath(absolute(prepared.cwd, directory))
            if not (is_under(path, guest.root) or guest.is_system(path)):
                # Only the scan notices a header that appears there later.
                raise NotPortableError(FallbackReason.OUTSIDE_ROOT, os.fsdecode(path))
        named = (*ask_dependencies(prepared, is_cancelled), *extra)
        search = self._search_path(prepared)
        search = (*search, *prepared.family.quoted_homes(named))
        own = [absolute(prepared.cwd, d) for d in search if d.startswith(b"/")]
        inside: list[bytes] = []
        for name in named:
            path = absolute(prepared.cwd, name)
            normal = posixpath.normpath(path)
            if is_under(normal, guest.root):
                inside.append(path)
            elif not guest.is_system(normal) and not any(is_under(normal, d) for d in own):
                raise NotPortableError(FallbackReason.OUTSIDE_ROOT, os.fsdecode(normal))
        found = find_closure(
            self._memo,
            ClosureRequest(
                cwd=prepared.cwd,
                source=prepared.invocation.source,
                files=tuple(inside),
                search=tuple(
                    d
                    for d in search
                    if is_under(posixpath.normpath(absolute(prepared.cwd, d)), guest.root)
                ),
                forced=prepared.invocation.forced_includes,
                started_ns=_NEVER_FRESH,
                allow_date=b"SOURCE_DATE_EPOCH" in prepared.request.env,
                arguments=prepared.invocation.arguments,
                macros=prepared.invocation.macros,
                texts=named,
                twin_rule=prepared.family.twin_rule,
                # A guest has only the files that it was sent, so it can read no other.
                resolvable=Hazard.OPAQUE_ASSEMBLY
                | (prepared.family.resolvable(prepared.identity.major) & CLOCKS),
                look_again=lambda doubts, paths, _check: (
                    self._refuse_clocks(prepared, paths, is_cancelled, doubts & CLOCKS)
                    if doubts & CLOCKS
                    else ()
                ),
                counts=lambda d: is_under(posixpath.normpath(d), guest.root),
            ),
        )
        refuse_unlike_in_guest(found.twins)
        # The guest may take other branches than the host, so existing files are sent as well.
        more = []
        for path in found.existing:
            if not is_under(posixpath.normpath(path), guest.root):
                continue  # the name of an inactive branch, which the compiler did not read
            digest = self._memo.digest(path)
            if digest is None:
                raise UncacheableError(UncacheableReason.INPUT_VANISHED)
            more.append((path, digest))
        return Closure((*found.files, *more), found.present, found.absences, twins=found.twins)
