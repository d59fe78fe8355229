"""Decides whether a unit that imports modules can be compiled in a guest, and builds its request.

Problem: a compiled interface (`.pcm`) holds absolute paths of the machine that made it. Clang opens
the source of each interface under that path: without it the import is an error, and with `-g` its
MD5 is in the object. A guest has the project in `/src`. And an interface holds declarations of the
headers of this machine, while the unit itself reads those of the image.

Rule: the guest gets each interface that the flags name, by content, and all files of the project
that it was made from (`results.interfaces`). `-ivfsoverlay` shows Clang these files under the names
that they have here. Objects of Clang 17 and 19 are then equal to those of this machine, byte by
byte, with debug information, too. Nothing but the names of the project's own files is shown.

All other files that an interface was made from must be headers that the image has as this machine
has them: the compilers are exactly the same (`Finding.is_alike`), and the probe compared these very
headers. So no object mixes two versions of a header.

Example: user.cpp imports `mid`, which imports `base`. CMake names both interfaces. The guest gets
user.cpp, two interfaces, mid.cppm, base.cppm and their headers.

What must never happen: the object differs from the one that this machine makes. So names in it are
never made relative here, also with a marker, and links and `$PWD` keep the compile here.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.cache.base.files import FileMemo
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.client import FarmPlanner
from hpcc.cache.remote.farm_root import FarmRoot
from hpcc.cache.remote.guest_paths import SYSTEM, guest_path, is_under
from hpcc.cache.remote.guest_places import guest_map, with_passed
from hpcc.cache.remote.host_parity import HostParity
from hpcc.cache.remote.job import RemoteJob, guest_environment
from hpcc.cache.remote.local_slots import are_compared
from hpcc.cache.remote.plan import RemotePlan
from hpcc.cache.remote.remote_closure import RemoteClosures, remote_inputs
from hpcc.cache.results.interfaces import Interfaces, imports
from hpcc.cache.root.ignored import Outgoing
from hpcc.compilers.invocation.content import is_proved_in_guests
from hpcc.compilers.invocation.guest import (
    GUEST_ROOT,
    GuestMap,
    NotPortableError,
    as_text,
    warns_of_missing_directories,
)
from hpcc.compilers.invocation.interfaces import IMPORT_FLAG, INTERFACE_FLAG, ON_A_FARM
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.scan.include_closure import UnscannableError
from hpcc.compilers.spec.table import Bypass, Flag
from hpcc.config.farm import Farm
from hpcc.core import MAX_INPUTS, RemoteInput, RemoteRequest, RemoteResult, Toolchain
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.files.whole import Sync, write_whole

# A guest reads the inputs by digest, so it does not matter how young they are.
_NEVER_FRESH: Final = 1 << 62
OVERLAY_NAME: Final = "hpcc-modules.json"
"""The table of names beside the inputs in a guest."""


class ImportPlanner:
    """`FarmPlanner` of a POSIX client: plans units that import, all others by `compiles`."""

    def __init__(
        self,
        compiles: FarmPlanner[Prepared, RemoteJob, RemotePlan],
        memo: FileMemo,
        closures: RemoteClosures,
        interfaces: Interfaces,
        host: HostParity,
        outgoing: Outgoing,
        directory: Path,
    ) -> None:
        """`directory` keeps the tables, one for each set of imports."""
        self._compiles, self._memo, self._closures = compiles, memo, closures
        self._interfaces, self._host, self._outgoing = interfaces, host, outgoing
        self._directory = directory

    def is_report(self, compile_: Prepared) -> bool:
        """See `client.FarmPlanner.is_report`."""
        del compile_
        return False

    def job(self, compile_: Prepared, farm: Farm) -> RemoteJob | Bypass:
        """See `client.FarmPlanner.job`."""
        return self._compiles.job(compile_, farm)

    def learn(self, job: RemoteJob, plan: RemotePlan, outcome: RemoteResult) -> bool:
        """See `client.FarmPlanner.learn`. A failed unit that imports is compiled here."""
        return not is_importer(job.prepared) and self._compiles.learn(job, plan, outcome)

    def plan(
        self, job: RemoteJob, image: Sequence[Toolchain] | None, is_cancelled: Callable[[], bool]
    ) -> RemotePlan | Bypass:
        """See `client.FarmPlanner.plan`."""
        if not is_importer(job.prepared):
            return self._compiles.plan(job, image, is_cancelled)
        check_unit(job.prepared, job.root, FallbackReason.MODULES)
        if not self._host.is_alike(job.prepared, image, is_cancelled):
            raise _stays("the image's compiler or its headers are others")
        return self._plan(job.prepared, job.root)

    def _plan(self, prepared: Prepared, root: FarmRoot) -> RemotePlan:
        guest = replace(guest_map(prepared, root), shown=root.path)
        made = self._interfaces.with_imports(Closure((), (), ()), prepared, _NEVER_FRESH, ())
        own = own_files(self._host, prepared, root, made.files, FallbackReason.MODULES)
        plain = _without_imports(prepared)
        form = prepared.family.content_form(plain.invocation, prepared.identity.major)
        if not is_proved_in_guests(form):
            raise _stays("a flag whose effect on names is not proved")
        command = prepared.family.guest_command(
            plain.invocation, guest, (prepared.identity.major,), lambda _flags: True
        )
        try:
            files = self._closures.scan(plain, guest)
        except UnscannableError as error:
            raise _stays(str(error.reason)) from error
        check_outgoing(self._outgoing, prepared, root, (*files.closure.files, *own))
        compiled = frozenset(imports(prepared))
        sources = [path for path, _ in own if path not in compiled]
        inputs = {
            item.path: item for item in (*files.inputs, *remote_inputs(self._memo, own, guest))
        }
        if OVERLAY_NAME in inputs or len(inputs) >= MAX_INPUTS:
            raise NotPortableError(FallbackReason.TOO_MANY_FILES)
        inputs[OVERLAY_NAME] = self._overlay(sources, guest)
        more = (
            *_imports(prepared.invocation, guest),
            b"-ivfsoverlay",
            GUEST_ROOT + b"/" + OVERLAY_NAME.encode(),
        )
        env = guest_environment(prepared, guest)
        names = sorted(env)
        outputs = (prepared.invocation.output, prepared.invocation.depfile)
        program = posixpath.basename(prepared.request.argv[0])
        request = RemoteRequest(
            argv=as_text([program, *command.arguments, *more]),
            env=tuple(zip(as_text(names), as_text([env[n] for n in names]), strict=True)),
            cwd=as_text([guest.relative(prepared.cwd)])[0],
            inputs=tuple(inputs[path] for path in sorted(inputs)),
            directories=with_passed(files.directories, prepared, guest),
            outputs=tuple(guest_path(guest.relative(n)) for n in outputs if n is not None),
            injected=as_text((*command.injected, *more[-2:])),
            client_version=__version__,
            build=prepared.request.build,
        )
        every = dict(files.closure.files) | dict(made.files)
        closure = replace(
            files.closure,
            files=tuple(every.items()),
            plain={},
            part=None,
            interfaces=made.interfaces,
        )
        return RemotePlan(request, closure, guest)

    def _overlay(self, sources: Iterable[bytes], guest: GuestMap) -> RemoteInput:
        """Return the table of names as an input. Equal names give equal bytes."""
        rows = [
            {
                "name": os.fsdecode(path),
                "type": "file",
                "external-contents": os.fsdecode(GUEST_ROOT + b"/")
                + guest_path(guest.relative(path)),
            }
            for path in sorted(set(map(posixpath.normpath, sources)))
        ]
        table = {"version": 0, "case-sensitive": True, "use-external-names": False, "roots": rows}
        text = json.dumps(table, ensure_ascii=False, indent=0).encode()
        digest = hashlib.sha256(text).hexdigest()
        path = self._directory / digest
        try:
            if not path.is_file() or path.read_bytes() != text:
                write_whole(path, text, sync=Sync.CONTENT, makes_parent=True)
        except OSError as error:
            raise _stays(str(error)) from error
        return RemoteInput(OVERLAY_NAME, str(path), is_executable=False, sha256=digest)


def is_importer(prepared: Prepared) -> bool:
    """Tell whether a unit only imports interfaces of Clang's, and writes none."""
    invocation = prepared.invocation
    return (
        bool(invocation.values(IMPORT_FLAG))
        and not invocation.values(INTERFACE_FLAG)
        and invocation.language is Language.CXX
        and not (invocation.has_modules or invocation.concerns_precompiled)
        and prepared.family.name == "clang"
        and prepared.identity.major in ON_A_FARM
    )


def check_unit(prepared: Prepared, root: FarmRoot, reason: FallbackReason) -> None:
    """Refuse what could show where a unit is compiled.

    Raises:
        NotPortableError: the compile cannot run in a guest.
    """
    path, pwd = root.path, prepared.request.env.get(b"PWD", b"")
    places = (*SYSTEM, GUEST_ROOT)
    if path == b"/" or any(is_under(path, s) or is_under(s, path) for s in places):
        raise NotPortableError(FallbackReason.SYSTEM_ROOT)
    if pwd.startswith(b"/") and pwd != prepared.cwd:
        raise NotPortableError(FallbackReason.DIRECTORY_SPELLING, os.fsdecode(pwd))
    if prepared.written.side:
        name = prepared.written.side[0].name
        raise NotPortableError(FallbackReason.SIDE_OUTPUT, os.fsdecode(name))
    if warns_of_missing_directories(prepared.invocation):
        raise NotPortableError(FallbackReason.MISSING_INCLUDE_DIRS)
    if any(b"prefix-map" in word or word == b"-gmodules" for word in prepared.invocation.arguments):
        raise NotPortableError(reason, "a prefix map, or -gmodules")


def own_files(
    host: HostParity,
    prepared: Prepared,
    root: FarmRoot,
    files: Iterable[tuple[bytes, bytes]],
    reason: FallbackReason,
) -> tuple[tuple[bytes, bytes], ...]:
    """Return the project's files among those from which something was compiled here.

    Raises:
        NotPortableError: another one is not certainly the same in the image.
    """
    own, others = [], []
    for path, digest in files:
        normal = posixpath.normpath(path)
        if is_under(normal, root.path):
            if os.path.realpath(path) != normal:
                raise NotPortableError(reason, f"{os.fsdecode(path)} is behind a link")
            own.append((path, digest))
        elif not any(is_under(normal, d) for d in SYSTEM):
            raise NotPortableError(FallbackReason.OUTSIDE_ROOT, os.fsdecode(normal))
        else:
            others.append(normal)
    compared = host.compared(prepared)
    if not are_compared(others, compared):
        odd = next(path for path in others if not are_compared((path,), compared))
        raise NotPortableError(reason, f"{os.fsdecode(odd)} was not compared with the image's")
    return tuple(own)


def check_outgoing(
    outgoing: Outgoing,
    prepared: Prepared,
    root: FarmRoot,
    files: Iterable[tuple[bytes, bytes]],
) -> None:
    """Refuse files of a root that no marker names, and that must stay here.

    Raises:
        NotPortableError: there is such a file.
    """
    if not root.is_found:
        return
    paths = (posixpath.normpath(path) for path, _ in files)
    withheld = outgoing.first_withheld(paths, prepared.cwd, root.path)
    if withheld is not None:
        raise NotPortableError(withheld.reason, os.fsdecode(withheld.path))


def _without_imports(prepared: Prepared) -> Prepared:
    invocation = prepared.invocation
    parts = tuple(
        part
        for part in invocation.parts
        if not (isinstance(part, Flag) and part.spec.spelling == IMPORT_FLAG)
    )
    return replace(prepared, invocation=replace(invocation, parts=parts))


def _imports(invocation: Invocation, guest: GuestMap) -> Iterable[bytes]:
    """Yield the flags that name interfaces, in order, as the guest spells their files."""
    for value in invocation.values(IMPORT_FLAG):
        name, _, file = value.partition(b"=")
        yield IMPORT_FLAG.encode() + name + b"=" + guest.spell(file)


def _stays(detail: str) -> NotPortableError:
    return NotPortableError(FallbackReason.MODULES, detail)
