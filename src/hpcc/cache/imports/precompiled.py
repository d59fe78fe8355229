"""Decides whether a unit with a precompiled header of GCC's can be compiled in a guest.

Problem: GCC takes H.gch in place of H where it finds one, if flags and compiler agree, and reads H
otherwise, without a word. The objects differ. What is in the `.gch` are texts of this machine, with
its names, and macros in it act in the unit.

Rule: the guest gets the `.gch`, and not H. `-Werror=invalid-pch` makes it an error if GCC does not
take it. So the unit is compiled with it, or not there. Objects of GCC 12 and 14 are then equal to
those of this machine, byte by byte: the names in the `.gch` are its own.

All texts in the `.gch` are searched with those of the unit, as if the unit included them, so clocks
and questions in macros keep it here. Headers of the system among them must be those that the probe
of the image compared, by the same compiler.

Example: CMake gives `-include /home/me/p/b/cmake_pch.hxx`, beside which it made cmake_pch.hxx.gch.
The guest gets cmake_pch.hxx.gch, the unit, and the project's headers.

What must never happen: a guest reads H. Then it would make another object than this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from hpcc import __version__
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.imports.plan import check_outgoing, check_unit, own_files
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.farm_root import FarmRoot
from hpcc.cache.remote.guest_paths import guest_path
from hpcc.cache.remote.guest_places import guest_map, settled_map, with_passed
from hpcc.cache.remote.host_parity import HostParity
from hpcc.cache.remote.job import RemoteJob, guest_environment
from hpcc.cache.remote.plan import Planner, RemotePlan
from hpcc.cache.remote.remote_closure import RemoteClosures, RemoteFiles, remote_inputs
from hpcc.cache.results.precompiled import PrecompiledHeaders
from hpcc.cache.root.ignored import Outgoing
from hpcc.compilers.invocation.content import is_proved_in_guests
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError, as_text
from hpcc.compilers.invocation.invocation import Product
from hpcc.compilers.invocation.precompiled import GCH_SUFFIX
from hpcc.compilers.scan.include_closure import UnscannableError
from hpcc.compilers.scan.text import without_comments
from hpcc.compilers.spec.table import Flag
from hpcc.config.farm import Farm
from hpcc.core import MAX_INPUTS, RemoteRequest, RemoteResult, Toolchain
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason

_INCLUDE: Final = "-include"
# GCC did not take it: an error, and a local compile.
TAKEN: Final = b"-Werror=invalid-pch"
# In these formats GCC lists a mapped source twice.
_OLD_DEBUG: Final = re.compile(rb"-gdwarf-?[0-4]|-g(?:stabs|xcoff|vms|codeview).*")
# A header as CMake writes it: it defines nothing, so that only what it includes acts in a unit.
_LINE: Final = re.compile(
    rb"[ \t]*(?:#[ \t]*(?:include[ \t]*(?:<[^<>\"\\]+>|\"[^<>\"\\]+\")|pragma[ \t]+once"
    rb"|pragma[ \t]+GCC[ \t]+system_header|ifn?def[ \t]+\w+|else|endif))?[ \t\r]*"
)


class PrecompiledPlanner:
    """Plans units with a precompiled header of GCC's; all others by `compiles`."""

    def __init__(
        self,
        compiles: Planner,
        memo: FileMemo,
        closures: RemoteClosures,
        precompiled: PrecompiledHeaders,
        host: HostParity,
        outgoing: Outgoing,
    ) -> None:
        self._compiles, self._memo, self._closures = compiles, memo, closures
        self._precompiled, self._host, self._outgoing = precompiled, host, outgoing

    def is_report(self, compile_: Prepared) -> bool:
        """See `client.FarmPlanner.is_report`."""
        del compile_
        return False

    def job(self, compile_: Prepared, farm: Farm) -> RemoteJob:
        """See `client.FarmPlanner.job`."""
        return self._compiles.job(compile_, farm)

    def learn(self, job: RemoteJob, plan: RemotePlan, outcome: RemoteResult) -> bool:
        """See `client.FarmPlanner.learn`. A failed unit of this kind is compiled here."""
        return not used_header(job.prepared) and self._compiles.learn(job, plan, outcome)

    def plan(
        self, job: RemoteJob, image: Sequence[Toolchain] | None, is_cancelled: Callable[[], bool]
    ) -> RemotePlan:
        """See `client.FarmPlanner.plan`."""
        header = used_header(job.prepared)
        if not header:
            return self._compiles.plan(job, image, is_cancelled)
        check_unit(job.prepared, job.root, FallbackReason.PCH)
        if not self._host.is_alike(job.prepared, image, is_cancelled):
            raise _stays("the image's compiler or its headers are others")
        return self._plan(job.prepared, job.root, header)

    def _plan(self, prepared: Prepared, root: FarmRoot, header: bytes) -> RemotePlan:
        guest = replace(guest_map(prepared, root), shown=root.path)
        made, gch = self._made_of(prepared, header)
        own = own_files(self._host, prepared, root, made, FallbackReason.PCH)
        plain = _without_header(prepared)
        form = prepared.family.content_form(plain.invocation, prepared.identity.major)
        if not is_proved_in_guests(form):
            raise _stays("a flag whose effect on names is not proved")
        if any(map(_OLD_DEBUG.fullmatch, prepared.invocation.arguments)):
            raise _stays("debug information of another format than DWARF 5")
        command = prepared.family.guest_command(
            prepared.invocation, guest, (prepared.identity.major,), lambda _flags: True
        )
        files = self._scanned(plain, guest, self._texts(header, own))
        if settled_map(self._memo, plain, root, guest, files) is not guest:
            raise _stays("names that depend on the length of the root's path")
        check_outgoing(self._outgoing, prepared, root, (*files.closure.files, *own, gch))
        inputs = {i.path: i for i in (*files.inputs, *remote_inputs(self._memo, [gch], guest))}
        if guest_path(guest.relative(header)) in inputs:
            raise _stays("a file includes the header")
        if len(inputs) > MAX_INPUTS:
            raise NotPortableError(FallbackReason.TOO_MANY_FILES)
        env = guest_environment(prepared, guest)
        names = sorted(env)
        outputs = (prepared.invocation.output, prepared.invocation.depfile)
        request = RemoteRequest(
            argv=as_text([os.path.basename(prepared.request.argv[0]), *command.arguments, TAKEN]),
            env=tuple(zip(as_text(names), as_text([env[n] for n in names]), strict=True)),
            cwd=as_text([guest.relative(prepared.cwd)])[0],
            inputs=tuple(inputs[path] for path in sorted(inputs)),
            directories=with_passed(files.directories, prepared, guest),
            outputs=tuple(guest_path(guest.relative(n)) for n in outputs if n is not None),
            injected=as_text((*command.injected, TAKEN)),
            client_version=__version__,
            build=prepared.request.build,
        )
        every = dict(files.closure.files) | dict(made) | dict([gch])
        closure = replace(files.closure, files=tuple(every.items()), plain={}, part=None)
        return RemotePlan(request, closure, guest)

    def _made_of(
        self, prepared: Prepared, header: bytes
    ) -> tuple[tuple[tuple[bytes, bytes], ...], tuple[bytes, bytes]]:
        """Return what the precompiled header was made of, and itself.

        Raises:
            UncacheableError: it is unknown, or older than one of these files.
        """
        path = header + GCH_SUFFIX
        digest, find = self._memo.digest(path), self._precompiled.of_users(prepared)
        made = None if digest is None or find is None else find(path, digest)
        if made is None or digest is None:
            raise UncacheableError(UncacheableReason.PCH, path)
        for name, its in made.files:
            if self._memo.digest(name) != its:
                raise UncacheableError(UncacheableReason.PCH_STALE, name)
        return made.files, (path, digest)

    def _texts(self, header: bytes, own: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
        """Return the project's texts in the precompiled header; its includes alone do not act."""
        found: list[bytes] = []
        for path, digest in own:
            is_list = path == header and self._memo.derived(
                path, digest, only_includes.__name__, only_includes
            )
            found += [] if is_list else [path]
        return tuple(found)

    def _scanned(self, plain: Prepared, guest: GuestMap, texts: tuple[bytes, ...]) -> RemoteFiles:
        try:
            return self._closures.scan(plain, guest, texts)
        except UnscannableError as error:
            raise _stays(str(error.reason)) from error


def used_header(prepared: Prepared) -> bytes:
    """Return the header of a unit that GCC may take from beside it, precompiled; b"" for none.

    Other forms stay here: the closure of their texts meets the `.gch`.
    """
    invocation = prepared.invocation
    forced = invocation.forced_includes
    is_one = len(forced) == 1 and forced == invocation.values(_INCLUDE)
    if not is_one or not forced[0].startswith(b"/") or prepared.family.name != "gnu":
        return b""
    is_unit = invocation.product is Product.OBJECT and not invocation.has_modules
    if not is_unit or invocation.concerns_precompiled or invocation.language.is_preprocessed:
        return b""
    header = forced[0]
    is_plain = os.path.realpath(header) == header
    return header if is_plain and os.path.isfile(header + GCH_SUFFIX) else b""


def only_includes(text: bytes) -> bool:
    """Tell whether a header consists of include lines, which act only by what they include."""
    plain = without_comments(text)
    return b"\\" not in text and all(_LINE.fullmatch(line) for line in plain.split(b"\n"))


def _without_header(prepared: Prepared) -> Prepared:
    invocation = prepared.invocation
    parts = tuple(
        part
        for part in invocation.parts
        if not (isinstance(part, Flag) and part.spec.spelling == _INCLUDE)
    )
    return replace(prepared, invocation=replace(invocation, parts=parts))


def _stays(detail: str) -> NotPortableError:
    return NotPortableError(FallbackReason.PCH, detail)
