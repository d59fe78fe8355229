"""Decides whether a run of clang-tidy or cppcheck can happen in a guest, and builds its request.

Problem: a report holds absolute names, and filters and checks read them. A guest has the project
below `/src`, no links, and only the files that it gets.

Rule: the guest has the project at `/src` with its path here behind it. Every absolute name there is
`/src` and the name here, so a text that is searched in one is found in the other, and the client
takes `/src` away. What could see the difference is refused: links, `$PWD`, filters that match a
part of `/src` (`Analyser`), and sources that hold such a name themselves.

Inputs are those of the local cache. clang-tidy: the closure of the text, as for a compile, and
`.clang-tidy` in each directory above a file that is read. cppcheck: every name that it may look up.
A name that is absent here is absent in the guest, since nothing is there that was not sent. So
every name must be below the root. Files of the tool's own installation, and headers of the system,
are the image's: a run travels only to an image with the same tool and the same headers (`Parity`).

Example: `clang-tidy src/a.cc -- -Iinc` in /home/me/p sends src/a.cc, inc/h.h and .clang-tidy, and
runs in /src/home/me/p. `/home/me/.clang-tidy` would count too. If it exists, the run stays here,
because files outside of the project are not sent.

What must never happen: a report from a guest differs from the one that this machine would give.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from hpcc import __version__
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.inputs.closure_types import Closure
from hpcc.cache.inputs.flag_inputs import absence_of, with_names
from hpcc.cache.inputs.own_text import own_closure
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.client import FarmPlanner
from hpcc.cache.remote.farm_root import FarmRoot
from hpcc.cache.remote.guest_paths import SYSTEM, guest_path, is_under
from hpcc.cache.remote.guest_places import holds_word, with_passed
from hpcc.cache.remote.job import RemoteJob, guest_environment
from hpcc.cache.remote.plan import RemotePlan
from hpcc.cache.remote.remote_closure import RemoteClosures, remote_inputs
from hpcc.cache.results.config_files import directories_above, style_files
from hpcc.cache.root.ignored import Outgoing
from hpcc.compilers.invocation.analyser import Analyser
from hpcc.compilers.invocation.dependencies import Unlisted
from hpcc.compilers.invocation.guest import (
    GUEST_ROOT,
    GuestMap,
    NotPortableError,
    as_text,
    stays_below,
)
from hpcc.compilers.scan.include_closure import UnscannableError
from hpcc.compilers.spec.table import Bypass
from hpcc.config.farm import Farm
from hpcc.core import MAX_INPUTS, RemoteInput, RemoteRequest, RemoteResult, Toolchain
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.files.whole import Sync, write_whole

# A guest reads the inputs by digest, so it does not matter how young they are.
_NEVER_FRESH: Final = 1 << 62
_NO_WORD: Final = re.compile(rb"[^0-9A-Za-z]+")


class AnalyserPlanner:
    """`FarmPlanner` of a POSIX client: plans analysers itself, compiles by `compiles`."""

    def __init__(
        self,
        compiles: FarmPlanner[Prepared, RemoteJob, RemotePlan],
        memo: FileMemo,
        closures: RemoteClosures,
        search_path: Callable[[Prepared], tuple[bytes, ...]],
        outgoing: Outgoing,
        directory: Path,
    ) -> None:
        """`directory` keeps files that only guests read, one for each source."""
        self._compiles, self._memo, self._closures = compiles, memo, closures
        self._search_path, self._outgoing = search_path, outgoing
        self._directory = directory

    def is_report(self, compile_: Prepared) -> bool:
        """See `client.FarmPlanner.is_report`."""
        return compile_.family.analyser is not None

    def job(self, compile_: Prepared, farm: Farm) -> RemoteJob | Bypass:
        """See `client.FarmPlanner.job`."""
        return self._compiles.job(compile_, farm)

    def learn(self, job: RemoteJob, plan: RemotePlan, outcome: RemoteResult) -> bool:
        """See `client.FarmPlanner.learn`. A failed analyser runs here."""
        if job.prepared.family.analyser is not None:
            return False
        return self._compiles.learn(job, plan, outcome)

    def plan(
        self, job: RemoteJob, image: Sequence[Toolchain] | None, is_cancelled: Callable[[], bool]
    ) -> RemotePlan | Bypass:
        """See `client.FarmPlanner.plan`."""
        analyser = job.prepared.family.analyser
        if analyser is None:
            return self._compiles.plan(job, image, is_cancelled)
        return self._plan(job.prepared, job.root, analyser)

    def _plan(self, prepared: Prepared, root: FarmRoot, analyser: Analyser) -> RemotePlan:
        if prepared.identity.major not in analyser.asked:
            raise _stays("another version than those that were asked")
        place = analyser.working_directory(prepared.invocation) or prepared.cwd
        check_place(prepared, root, place)
        guest = analyser_map(prepared, root)
        command = analyser.guest_command(prepared.invocation, guest)
        env = guest_environment(prepared, guest)
        if prepared.written.side:
            raise _stays(os.fsdecode(prepared.written.side[0].name))
        closure, directories = self._closure(prepared, guest)
        self._check_settings(prepared, guest, analyser, closure)
        sent = tuple(file for file in closure.files if is_under(file[0], guest.root))
        _refuse_links((path for path, _ in sent), prepared)
        self._check_outgoing(prepared, root, sent)
        self._refuse_words(prepared, guest, closure)
        for word in analyser.words_of_place(prepared.invocation):
            if holds_word(self._memo, prepared, b"/", closure, word):
                raise _stays("a text may show its own name")
        made = analyser.made_files(prepared.invocation, guest)
        own = (self._made(prepared, name, text, guest) for name, text in made.items())
        every = {item.path: item for item in (*remote_inputs(self._memo, sent, guest), *own)}
        inputs = tuple(every[path] for path in sorted(every))
        if len(inputs) > MAX_INPUTS:
            raise NotPortableError(FallbackReason.TOO_MANY_FILES)
        program = posixpath.basename(prepared.request.argv[0])
        names = sorted(env)
        request = RemoteRequest(
            argv=as_text([program, *command.arguments]),
            env=tuple(zip(as_text(names), as_text([env[n] for n in names]), strict=True)),
            cwd=as_text([guest.relative(place)])[0],
            inputs=inputs,
            directories=with_passed(directories, prepared, guest),
            outputs=(),
            injected=as_text(command.injected),
            client_version=__version__,
            build=prepared.request.build,
            needs_exact=True,
        )
        return RemotePlan(request, closure, guest)

    def _made(self, prepared: Prepared, name: bytes, text: bytes, guest: GuestMap) -> RemoteInput:
        """Return a file as an input that no file of the project is."""
        key = hashlib.sha256(name + b"\0" + prepared.source).hexdigest()
        path = self._directory / key
        try:
            if not path.is_file() or path.read_bytes() != text:
                write_whole(path, text, sync=Sync.NONE, makes_parent=True)
        except OSError as error:
            raise _stays(str(error)) from error
        place = guest_path(guest.relative(name))
        return RemoteInput(
            place, str(path), is_executable=False, sha256=hashlib.sha256(text).hexdigest()
        )

    def _closure(self, prepared: Prepared, guest: GuestMap) -> tuple[Closure, tuple[str, ...]]:
        """Return the inputs, and directories that must exist in the guest although empty.

        Raises:
            NotPortableError: the run depends on a file outside of the root.
            UncacheableError: it is not certain what the run depends on.
        """
        places = prepared.identity.config_directories
        unlisted = prepared.family.unlisted(prepared.invocation, places)
        if unlisted is not None:
            closure = own_closure(self._memo, prepared, (), None, _NEVER_FRESH)
            _refuse_outside(closure, guest, _own_names(prepared, unlisted, places))
            self._refuse_ways(prepared, guest, closure, unlisted)
            plain = (posixpath.normpath(absolute(prepared.cwd, d)) for d in unlisted.directories)
            there = sorted({d for d in plain if os.path.isdir(d) and d != guest.root})
            return closure, tuple(guest_path(guest.relative(d)) for d in there)
        try:
            files = self._closures.scan(prepared, guest)
        except UnscannableError as error:
            raise _stays(str(error.reason)) from error
        return self._with_configs(prepared, files.closure), files.directories

    def _refuse_ways(
        self, prepared: Prepared, guest: GuestMap, closure: Closure, unlisted: Unlisted
    ) -> None:
        """Refuse names in texts that a guest would look for elsewhere, and miss without a word."""
        searched = [posixpath.normpath(absolute(prepared.cwd, d)) for d in unlisted.directories]
        for path, digest in closure.files:
            if not is_under(posixpath.normpath(path), guest.root):
                continue
            places = (posixpath.dirname(path), *searched)
            for _, name in self._derived(path, digest, "unlisted-names", unlisted.read).names:
                is_inside = all(stays_below(place + b"/" + name) for place in places)
                if name.startswith(b"/") or not is_inside:
                    raise _stays(f"{os.fsdecode(path)} includes {os.fsdecode(name)}")

    def _with_configs(self, prepared: Prepared, closure: Closure) -> Closure:
        """Add the analyser's configuration files: by content or by absence, as the local cache."""
        base, invocation = prepared.family.config_name, prepared.invocation
        own = {posixpath.normpath(absolute(prepared.cwd, d)) for d in self._search_path(prepared)}
        read = (*(path for path, _ in closure.files), *(posixpath.join(d, b"h") for d in own))
        above = (posixpath.join(d, base) for d in directories_above(prepared, read))
        named = (absolute(prepared.cwd, name) for name in prepared.family.config_files(invocation))
        names = tuple(dict.fromkeys((*above, *named, *style_files(prepared))))
        return with_names(
            closure, names, memo=self._memo, cwd=prepared.cwd, started_ns=_NEVER_FRESH
        )

    def _check_settings(
        self, prepared: Prepared, guest: GuestMap, analyser: Analyser, closure: Closure
    ) -> None:
        """Refuse settings that are outside of the root, or that depend on where it is."""
        family, invocation, cwd = prepared.family, prepared.invocation, prepared.cwd
        named = {posixpath.normpath(absolute(cwd, n)) for n in analyser.settings(invocation)}
        base = family.config_name
        for path, digest in closure.files:
            plain = posixpath.normpath(path)
            is_config = bool(base) and posixpath.basename(plain) == base
            if posixpath.basename(plain) in family.style_names and not is_under(plain, guest.root):
                raise NotPortableError(FallbackReason.OUTSIDE_ROOT, os.fsdecode(plain))
            if plain not in named and not is_config:
                continue
            if not is_under(plain, guest.root):
                raise NotPortableError(FallbackReason.OUTSIDE_ROOT, os.fsdecode(plain))
            if base and self._derived(path, digest, "analyser-config", family.config_names_more):
                raise UncacheableError(UncacheableReason.ANALYSER_CONFIG, path)
            question = ("analyser-place", guest.root)
            why = self._derived(path, digest, question, lambda t: analyser.place_in(t, guest.root))
            if why:
                raise _stays(f"{os.fsdecode(plain)}: {why}")

    def _derived[T](
        self, path: bytes, digest: bytes, question: Hashable, read: Callable[[bytes], T]
    ) -> T:
        found = self._memo.derived(path, digest, question, read)
        if found is None:
            raise UncacheableError(UncacheableReason.MODIFIED_DURING_COMPILE, path)
        return found

    def _check_outgoing(
        self, prepared: Prepared, root: FarmRoot, files: Iterable[tuple[bytes, bytes]]
    ) -> None:
        """Refuse files that must stay here. The user's own settings are hidden by their name."""
        if not root.is_found:
            return
        own = {prepared.family.config_name, *prepared.family.style_names}
        paths = (posixpath.normpath(path) for path, _ in files)
        sources = (path for path in paths if posixpath.basename(path) not in own)
        withheld = self._outgoing.first_withheld(sources, prepared.cwd, root.path)
        if withheld is not None:
            raise NotPortableError(withheld.reason, os.fsdecode(withheld.path))

    def _refuse_words(self, prepared: Prepared, guest: GuestMap, closure: Closure) -> None:
        """Refuse a source that holds the guest's name of the root: a report may quote it."""
        folded = _NO_WORD.sub(b"_", guest.base).strip(b"_")
        for word in (guest.base, folded, folded.upper()):
            if holds_word(self._memo, prepared, guest.root, closure, word):
                raise _stays("a source holds the root's name in a guest")


def analyser_map(prepared: Prepared, root: FarmRoot) -> GuestMap:
    """Return the path translation of an analyser: `/src`, and the root's own path behind it."""

    def is_in_image(path: bytes) -> bool:
        return not is_under(path, root.path) and any(is_under(path, d) for d in SYSTEM)

    return GuestMap(root.path, prepared.cwd, is_in_image, root.path, GUEST_ROOT + root.path)


def check_place(prepared: Prepared, root: FarmRoot, place: bytes) -> None:
    """Refuse roots whose names no guest can have. `place` is the working directory.

    Raises:
        NotPortableError: the root is one of the system, or names lead through links.
    """
    path, pwd = root.path, prepared.request.env.get(b"PWD", b"")
    if path == b"/" or any(is_under(path, s) or is_under(s, path) for s in SYSTEM):
        raise NotPortableError(FallbackReason.SYSTEM_ROOT)
    if pwd.startswith(b"/") and pwd != place:
        raise NotPortableError(FallbackReason.DIRECTORY_SPELLING, os.fsdecode(pwd))
    for directory in {place, prepared.cwd}:  # a database may spell its directory in any way
        if os.path.realpath(directory) != directory:
            raise NotPortableError(FallbackReason.DIRECTORY_SPELLING, os.fsdecode(directory))


def _refuse_links(paths: Iterable[bytes], prepared: Prepared) -> None:
    """Refuse links: a guest has none, and reports name the files that links lead to."""
    named = (absolute(prepared.cwd, d) for d in prepared.invocation.include_dirs)
    for path in (*paths, *named):
        if os.path.realpath(path) != posixpath.normpath(path):
            raise _stays(f"{os.fsdecode(path)} is behind a link")


def _own_names(
    prepared: Prepared, unlisted: Unlisted, places: Sequence[bytes]
) -> dict[bytes, frozenset[bytes]]:
    """Return the names of the tool's installation that are the same in the image, by directory.

    The probe compared the files of these places, and that no configuration is beside them.
    """
    found: dict[bytes, frozenset[bytes]] = {}
    data = (absolute(prepared.cwd, name) for name in unlisted.data)
    names = (name for name in data if posixpath.dirname(name) in places)
    for path in (*names, *unlisted.forbidden):
        absence = absence_of(path)
        for place, more in (
            (absence.directory, absence.files | absence.directories),
            (posixpath.dirname(path), frozenset({posixpath.basename(path)})),
        ):
            found[place] = found.get(place, frozenset()) | more
    return found


def _refuse_outside(
    closure: Closure, guest: GuestMap, own: Mapping[bytes, frozenset[bytes]]
) -> None:
    """Refuse names outside of the root that are not the tool's own."""
    looked_up = [
        (posixpath.dirname(path), frozenset({posixpath.basename(path)}))
        for path, _ in closure.files
    ]
    looked_up += ((a.directory, a.files | a.directories) for a in closure.absences)
    for directory, names in looked_up:
        is_own = names <= own.get(directory, frozenset())
        if not is_own and not is_under(posixpath.normpath(directory), guest.root):
            path = posixpath.join(directory, min(names, default=b""))
            raise NotPortableError(FallbackReason.OUTSIDE_ROOT, os.fsdecode(path))


def _stays(detail: str) -> NotPortableError:
    return NotPortableError(FallbackReason.ANALYSER, detail)
