"""From a launcher's request to a compile with a key, or to the reason for a bypass.

Problem: two requests with one key get the same object. A key that leaves something out produces
wrong objects; a key that holds too much produces misses.

Rule: all that can change the output and is known before the compile is in the key. That is:

- the compiler by content: the digest of its programs, libraries and configuration files
  (`host.identity`), and the path it was called by;
- the working directory, and `$PWD` if it differs;
- the arguments, with response files expanded;
- the environment, except for variables that `key.environment` lists with their reason;
- what `-march=native` means on this machine, and the flags that are added for a terminal;
- the flags that are added for cross-checkout sharing.

The contents of sources and headers are not in it: the manifest under the key holds them
(`cache.local`). `KEY_FORMAT` is raised when the meaning of a key or of an entry changes.

Example: `gcc -c a.c -o a.o` and `gcc -c a.c -o b.o` have different keys, although the objects may
be equal: with other flags (`-gsplit-dwarf`) the object holds the name, and a superfluous key costs
only a compile.

What must never happen: a flag, a variable or a file with an unknown effect reaches the compiler
unseen. `Classifier.prepare` returns a `Bypass` for it, and the compiler runs as if hpcc were not
there. Each reason is counted, so that a bypass is visible.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.outputs import is_special
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.host.compiler_probe import Identity
from hpcc.cache.host.databases import Databases
from hpcc.cache.host.identity import Compilers
from hpcc.cache.host.native_flags import NativeFlags
from hpcc.cache.host.recorded_switches import Recorders
from hpcc.cache.host.scripts import executed_by
from hpcc.cache.host.terminal import Terminals
from hpcc.cache.key.environment import environment_key, refusal_of
from hpcc.cache.key.interfaces import interface_of, interfaces_of_map, lines_in_order
from hpcc.cache.key.responses import ResponseFile, response_reader
from hpcc.cache.key.share import MarkerStatus, Share, Sharing
from hpcc.compilers.families import family_of
from hpcc.compilers.invocation.database import DatabaseEntry, DatabaseQuestion, with_entry
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.interfaces import INTERFACE_FLAG
from hpcc.compilers.invocation.invocation import Invocation, Product
from hpcc.compilers.invocation.modules import MAPPER_FLAG, interfaces_in_map
from hpcc.compilers.invocation.side import SideFile, Written
from hpcc.compilers.spec.response import MAX_RESPONSE_BYTES
from hpcc.compilers.spec.table import Bypass
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

# Part of every local key. Raise it when the meaning of a key or an entry changes: older results
# become misses.
KEY_FORMAT: Final = b"local-11"
_MAX_REMEMBERED: Final = 4096
HERE: Final = b"\0here"  # no variable holds NUL


@dataclass(frozen=True)  # no slots: paths are joined once
class Prepared:
    """A compile that may be cached. `colour` are the flags to add for a terminal.

    `key` is a SHA-256 (32 bytes). `rest` are its fields besides compiler, directory and arguments:
    what "native" means, the environment, the colours. `written` names the outputs besides object
    and depfile. `replay_ok`: a hit may be remembered by the bytes of its request, since the answer
    depends only on the request, the compiler's files, the markers and the inputs. `looked_for` are
    files that flags name. `is_recorded`: the object will contain the command line. `responses` are
    the files that some of the arguments came from. `declares` is the module of GCC's whose compiled
    interface is among the outputs, b"" without one. `is_mapped`: GCC's map names modules, and is in
    the key and not among the inputs.
    """

    request: CompileRequest
    invocation: Invocation
    family: CompilerFamily
    identity: Identity
    colour: tuple[bytes, ...]
    key: bytes
    written: Written
    marker_status: MarkerStatus
    replay_ok: bool = True
    looked_for: tuple[bytes, ...] = ()
    is_recorded: bool = False
    rest: tuple[bytes, ...] = ()
    responses: tuple[ResponseFile, ...] = ()
    declares: bytes = b""
    is_mapped: bool = False

    @property
    def share(self) -> Share | None:
        """How other checkouts share the result; None for a private compile."""
        return self.marker_status.share

    @property
    def injected(self) -> tuple[bytes, ...]:
        """The flags that hpcc adds to a local compile so that its result can be shared."""
        return () if self.share is None else self.share.injected

    @property
    def native(self) -> bytes:
        """A digest of what flags such as `-march=native` mean here; b"" without such a flag."""
        return self.rest[0] if self.rest else b""

    @property
    def response_paths(self) -> tuple[bytes, ...]:
        """Absolute paths of the files that some of the arguments came from."""
        return tuple(response.path for response in self.responses)

    @property
    def named_files(self) -> tuple[bytes, ...]:
        """The files that flags and response files name; some may be missing."""
        return (*self.looked_for, *self.response_paths)

    @property
    def cwd(self) -> bytes:
        return self.request.cwd

    @cached_property
    def source(self) -> bytes:
        return absolute(self.cwd, self.invocation.source)

    @cached_property
    def output(self) -> bytes | None:
        """Absolute path of the output; None if there is none besides the depfile."""
        name = self.invocation.output
        return absolute(self.cwd, name) if name else None

    @cached_property
    def depfile(self) -> bytes | None:
        name = self.invocation.depfile
        return None if name is None else absolute(self.cwd, name)

    @cached_property
    def side_paths(self) -> tuple[bytes, ...]:
        """Absolute paths of the further outputs, in the order in which a result holds them."""
        return tuple(absolute(self.cwd, s.name) for s in self.written.side)

    @cached_property
    def outputs(self) -> tuple[bytes, ...]:
        """Absolute paths of all outputs."""
        return tuple(filter(None, (self.output, *self.side_paths, self.depfile)))

    @property
    def dates_are_pinned(self) -> bool:
        """Whether SOURCE_DATE_EPOCH is set and certainly honoured.

        GCC honours it since 7, Clang only since 16.
        """
        return b"SOURCE_DATE_EPOCH" in self.request.env and self.family.pins_dates


class Classifier:
    """Decides what is cacheable, and computes keys. Remembers parsed command lines."""

    def __init__(self, memo: FileMemo, compilers: Compilers, sharing: Sharing) -> None:
        self._memo, self._compilers, self._sharing = memo, compilers, sharing
        # By family too: a response file can hold the words of another family's command line.
        self._read: BoundedMemo[tuple[str, bytes, tuple[bytes, ...]], Invocation | Bypass] = (
            BoundedMemo(_MAX_REMEMBERED)
        )
        self._native = NativeFlags()
        self._databases = Databases(memo)
        self._recorders = Recorders()
        self._terminals = Terminals()

    def prepare(
        self, request: CompileRequest, is_cancelled: Callable[[], bool]
    ) -> Prepared | Bypass:
        """Classify one request and compute its key.

        May run the compiler to ask for its version, programs and flags. Returns a `Bypass` for a
        request that the cache does not handle.
        """
        executed = executed_by(request)
        is_script = executed is not None
        request = executed or request
        family = family_of(request.compiler, request.argv[1:])
        responses: list[ResponseFile] = []
        invocation = self._invocation(request, family, responses)
        if isinstance(invocation, Bypass):
            return invocation
        words = (request.compiler, *invocation.arguments)
        refusal = refusal_of(family.key_environment(request.env, words), invocation.arguments)
        if refusal is not None:
            return refusal
        for name in (invocation.output, invocation.depfile):
            if name and is_special(absolute(request.cwd, name)):
                return Bypass(BypassReason.SPECIAL_OUTPUT)
        identity = self._compilers.identify_of(request, family, invocation, is_cancelled)
        if isinstance(identity, Bypass):
            return identity
        request = _in_directory(request, invocation)
        hidden = (b"-fms-compatibility",) if identity.has_hidden_flags else ()
        family = family.settled(identity.family).variant((identity.target, *hidden, *words))
        module_map = self._module_map(request.cwd, invocation, responses)
        files = _files_of_flags(self._memo, request, invocation, family, identity.major, module_map)
        if isinstance(files, Bypass):
            return files
        written, looked_for, declares = files
        colour = self._terminals.flags(request, invocation, family, identity.digest)
        if isinstance(colour, Bypass):
            return colour
        cpu = self._native.resolve(
            invocation, family, identity.digest, request.compiler, request.env
        )
        if isinstance(cpu, Bypass):
            return cpu
        is_recorded = self._recorders.records(
            family.recording(invocation), identity.digest, request.compiler, request.env
        )
        if is_recorded and colour:
            return Bypass(BypassReason.RECORD_SWITCHES)
        env = family.key_environment(request.env, (identity.target, *words))
        rest = (cpu, environment_key(env) + lines_in_order(module_map), *colour)
        marker_status = self._sharing.marker_status(request, invocation, family, identity, rest)
        key = _key(request, invocation, identity, rest, marker_status.share)
        # Response files are read for each request, and a rejected marker cannot be fully pinned.
        is_plain = invocation.arguments == request.argv[1:] and not marker_status.search.refusal
        # Scripts and maps of modules are read for each request, too.
        is_plain = is_plain and not is_script and not module_map
        # Each hit needs its record.
        is_recorded_file = invocation.language.is_header or invocation.values(INTERFACE_FLAG)
        # The compiler inside of nvcc is identified for each request.
        is_plain = is_plain and not is_recorded_file and invocation.product is not Product.CUDA
        prepared = Prepared(
            request, invocation, family, identity, colour, key, written, marker_status, is_plain,
            looked_for, is_recorded, rest, tuple(responses), declares,
            bool(module_map),
        )  # fmt: skip
        return _check_side_paths(prepared) or prepared

    def _module_map(
        self, cwd: bytes, invocation: Invocation, responses: list[ResponseFile]
    ) -> bytes:
        """Return GCC's map if it names modules, else b""."""
        if not interfaces_of_map(self._memo, cwd, invocation):
            return b""
        found: list[ResponseFile] = []
        content = response_reader(cwd, found)(invocation.values(MAPPER_FLAG)[0])
        if content is None or len(content) > MAX_RESPONSE_BYTES or not interfaces_in_map(content):
            return b""
        responses += found
        return content

    def _invocation(
        self, request: CompileRequest, family: CompilerFamily, responses: list[ResponseFile]
    ) -> Invocation | Bypass:
        arguments = request.argv[1:]
        if not family.has_local_cache:
            return Bypass(BypassReason.OTHER_COMPILER)
        read_file = response_reader(request.cwd, responses)
        expanded = family.expand(request.compiler, arguments, request.env, read_file)
        if isinstance(expanded, Bypass):
            return expanded
        question = family.database(expanded)
        if question is not None:
            entry = self._entry(request, question, responses)
            if entry is None:
                return Bypass(BypassReason.ANALYSER_DATABASE)
            return family.read(request.compiler, with_entry(expanded, entry))
        memo_key = (family.name, request.compiler, expanded)
        known = self._read.get(memo_key)
        if known is not None:
            return known
        invocation = family.read(request.compiler, expanded)
        if expanded is arguments or expanded == arguments:
            self._read[memo_key] = invocation
        return invocation

    def _entry(
        self,
        request: CompileRequest,
        question: DatabaseQuestion,
        responses: list[ResponseFile],
    ) -> DatabaseEntry | None:
        """Return the entry of a compilation database; None if it is not certain."""
        cwd, source = request.cwd, question.source
        # A relative name is one below $PWD for LLVM, if that leads here.
        is_below = not source.startswith(b"/") and directory_by_variable(request).endswith(HERE)
        if is_below or posixpath.normpath(source) != source:
            return None
        found = self._databases.find(absolute(cwd, question.directory), absolute(cwd, source))
        if found is None:
            return None
        responses.append(ResponseFile(found.path, found.signature, found.digest))
        return DatabaseEntry(cwd, found.directory, found.words)


def _in_directory(request: CompileRequest, invocation: Invocation) -> CompileRequest:
    """Return the request as one from where the names in the invocation are relative to."""
    if not invocation.directory:
        return request
    return request._replace(cwd=invocation.directory)


def _files_of_flags(
    memo: FileMemo,
    request: CompileRequest,
    invocation: Invocation,
    family: CompilerFamily,
    major: int,
    module_map: bytes,
) -> tuple[Written, tuple[bytes, ...], bytes] | Bypass:
    """Return further outputs, files looked for, and the module whose interface is an output."""
    refusal = family.check_versions(invocation, major)
    if refusal is not None:
        return refusal
    written = family.files_written(invocation, major)
    if isinstance(written, Bypass):
        return written
    read_file = response_reader(request.cwd, [])
    if not all(_is_blank(read_file(name)) for name in invocation.blank_files):
        return Bypass(BypassReason.ANALYSER)
    modules = interfaces_in_map(module_map)
    declares, interface = interface_of(memo, request.cwd, invocation, modules)
    if declares:
        side = (*written.side, SideFile(interface, keeps_mode=False))
        written = replace(written, side=side)
    directories = tuple(dict.fromkeys((request.cwd, request.env.get(b"PWD") or request.cwd)))
    looked_for = family.files_looked_for(invocation, directories)
    if isinstance(looked_for, Bypass):
        return looked_for
    in_key = invocation.values(MAPPER_FLAG) if module_map else ()
    return written, tuple(name for name in looked_for if name not in in_key), declares


def _is_blank(content: bytes | None) -> bool:
    is_whole = content is not None and len(content) <= MAX_RESPONSE_BYTES
    return is_whole and not content.strip(b" \t\r\n")  # type: ignore[union-attr]  # it is not None


def _check_side_paths(prepared: Prepared) -> Bypass | None:
    """Refuse further outputs that are special files or coincide with a file of the compile."""
    side = prepared.side_paths
    if not side:
        return None
    named = [*filter(None, (prepared.output, prepared.source, prepared.depfile)), *side]
    if len(set(named)) != len(named):
        return Bypass(BypassReason.ODD_OUTPUT)
    return Bypass(BypassReason.SPECIAL_OUTPUT) if any(map(is_special, side)) else None


def directory_by_variable(request: CompileRequest) -> bytes:
    """Return $PWD, and whether it names the working directory now; b"" if it is the same text.

    GCC and Clang write it as the compilation directory if it does. A link may lead elsewhere later.
    """
    pwd = request.env.get(b"PWD", b"")
    if pwd in {b"", request.cwd}:
        return b""
    try:
        is_here = pwd.startswith(b"/") and os.path.samefile(pwd, request.cwd)
    except (OSError, ValueError):
        is_here = False
    return pwd + (HERE if is_here else b"")


def _key(
    request: CompileRequest,
    invocation: Invocation,
    identity: Identity,
    rest: tuple[bytes, ...],
    share: Share | None,
) -> bytes:
    # No argument contains NUL, so a key with injected flags differs from every key without.
    injected = () if share is None else (b"\0", *share.injected)
    return hashlib.sha256(
        encode_fields(
            [
                KEY_FORMAT,
                identity.digest,
                request.compiler,
                request.cwd,
                directory_by_variable(request),
                *rest,
                b"",
                *invocation.key_arguments,
                *injected,
            ]
        )
    ).digest()
