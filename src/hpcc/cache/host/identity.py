"""Identifies a compiler by the content of every program and file that decides its output.

The compiler is probed once, and again as soon as the stat of one of those files changes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from hpcc.cache.base.api import CompileRequest
from hpcc.cache.base.files import FileMemo
from hpcc.cache.base.trees import look_at_tree
from hpcc.cache.base.uncacheable import absolute
from hpcc.cache.host.compiler_probe import CompilerProbe, Identity, KnownCompiler
from hpcc.cache.host.driver_answers import may_name_relative
from hpcc.cache.host.loader import (
    IDENTITY_ENV,
    has_unnameable_directory,
    loader_environment,
)
from hpcc.cache.host.search_path import SearchAnswer, search_of
from hpcc.cache.replay.engine import Engine, Outcome, Plan
from hpcc.cache.replay.replay import NotPinnedError, Pins
from hpcc.compilers.clang.config_files import config_names
from hpcc.compilers.invocation.family import CompilerFamily
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.drivers import ROOT_ENV
from hpcc.compilers.spec.table import Bypass
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.bypass import BypassReason

if TYPE_CHECKING:
    from hpcc.cache.host.nvcc import NvccCompilers

# What changes the programs a driver finds.
_IDENTITY_ENV: Final = (
    b"PATH",
    b"COMPILER_PATH",
    b"GCC_EXEC_PREFIX",
    b"LIBRARY_PATH",  # GCC reads specs there
    b"CLANG_NO_DEFAULT_CONFIG",
    *ROOT_ENV,
    *IDENTITY_ENV,
)
_MAX_REMEMBERED: Final = 1024
_MAX_ASKING: Final = 16  # questions at once, about different compilers
_NOBODY: Final = -1  # no connection to answer on


class Compilers:
    """Identities and search paths of the compilers met so far. Thread-safe like `FileMemo`."""

    def __init__(self, memo: FileMemo, engine: Engine) -> None:
        self._memo, self._engine = memo, engine
        self._known: dict[tuple[bytes | None, ...], KnownCompiler] = {}
        self._checks: dict[tuple[bytes | None, ...], object] = {}
        self._search: BoundedMemo[tuple[object, ...], SearchAnswer] = BoundedMemo(_MAX_REMEMBERED)
        self._asking = [threading.Lock() for _ in range(_MAX_ASKING)]
        self._nvcc: NvccCompilers | None = None

    def identify(
        self,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        is_cancelled: Callable[[], bool],
        cwd: bytes = b"/",
        question: tuple[bytes, ...] = (),
    ) -> Identity | Bypass:
        """Return the identity, from memory while all its files are unchanged.

        Runs the compiler otherwise. `compiler` is an absolute path. `question` is that of a tool
        (`CompilerFamily.probe_question`).
        """
        if has_unnameable_directory(env, cwd):
            return Bypass(BypassReason.LOADER)
        env = loader_environment(env, cwd)
        key = (compiler, *(env.get(name) for name in _IDENTITY_ENV))
        before = self._known.get(key)
        if before is not None and self._still_holds(key, before):
            return before.identity
        # A build begins with many compiles at once: one of them asks.
        with self._asking[hash(key) % _MAX_ASKING]:
            known = self._known.get(key)
            if known is not None and known is not before and self._still_holds(key, known):
                return known.identity
            probe = CompilerProbe(self._memo, compiler, env, is_cancelled, question)
            return self._identify(key, probe)

    def identify_of(
        self,
        request: CompileRequest,
        family: CompilerFamily,
        invocation: Invocation,
        is_cancelled: Callable[[], bool],
    ) -> Identity | Bypass:
        """Return the identity of the compiler of a request, for an nvcc with its host compiler."""
        question = family.host_question(invocation)
        if question:
            if self._nvcc is None:
                from hpcc.cache.host.nvcc import NvccCompilers  # late: few people have one

                self._nvcc = NvccCompilers(self._memo, self.identify)
            return self._nvcc.identify(request, family, question, is_cancelled)
        compiler, env, cwd = request.compiler, request.env, request.cwd
        return self.identify(compiler, env, is_cancelled, cwd, family.probe_question)

    def _identify(self, key: tuple[bytes | None, ...], probe: CompilerProbe) -> Identity | Bypass:
        found = probe.probe()
        if isinstance(found, Bypass):
            return found
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
            self._checks.clear()
        self._known[key] = found
        return found.identity

    def pin(
        self,
        identity: Identity,
        compiler: bytes,
        env: Mapping[bytes, bytes],
        pins: Pins,
        cwd: bytes = b"/",
    ) -> None:
        """Pin every file, name and listing that this identity was made from.

        Raises:
            NotPinnedError: a stat cannot prove some of them, or the compiler is another one now.
        """
        env = loader_environment(env, cwd)
        known = self._known.get((compiler, *(env.get(name) for name in _IDENTITY_ENV)))
        if known is None or known.identity != identity:
            raise NotPinnedError
        known.evidence.pin(pins)

    def search_path(
        self,
        identity: Identity,
        family: CompilerFamily,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> tuple[bytes, ...]:
        """Return the compiler's own include directories, including those that do not exist yet.

        Raises:
            OSError: the compiler did not run or did not print its search path.
        """
        return self._ask_search(identity, family, compiler, invocation, env, cwd).directories

    def config_names(
        self,
        identity: Identity,
        family: CompilerFamily,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> tuple[bytes, ...]:
        """Return the configuration files of another driver or target than the identity's (`-m32`).

        Raises:
            OSError: the compiler did not run or did not print its search path.
        """
        if not identity.config_directories or not invocation.search_arguments:
            return ()
        answer = self._ask_search(identity, family, compiler, invocation, env, cwd)
        own = (identity.target, identity.config_directories)
        if (answer.target, answer.config_directories) == own:
            return ()
        return config_names(answer.config_directories, answer.target)

    def _ask_search(
        self,
        identity: Identity,
        family: CompilerFamily,
        compiler: bytes,
        invocation: Invocation,
        env: Mapping[bytes, bytes],
        cwd: bytes,
    ) -> SearchAnswer:
        arguments = invocation.search_arguments
        paths = tuple(env.get(name) for name in family.search_variables)
        roots = (absolute(cwd, root) for root in family.installation_roots(invocation))
        trees = tuple(look_at_tree(root).digest for root in roots)
        is_relative = may_name_relative(arguments, (*paths, env.get(b"LIBRARY_PATH")))
        place = cwd if is_relative else b""
        key = (identity.digest, compiler, invocation.language, arguments, paths, place, trees)
        known = self._search.get(key)
        if known is not None:
            return known
        with self._asking[hash(key) % _MAX_ASKING]:
            known = self._search.get(key)
            if known is None:
                known = search_of(family, compiler, invocation, env, cwd)
                if place or all(path.startswith(b"/") for path in known.directories):
                    self._search[key] = known
            return known

    def _still_holds(self, key: tuple[bytes | None, ...], known: KnownCompiler) -> bool:
        """Check every file and name; usually with one call of the engine."""
        checks = self._checks.get(key)
        if checks is not None:
            if self._engine.replay(checks, _NOBODY) == Outcome.DONE:
                return True
            self._checks.pop(key, None)
        if not known.evidence.holds(self._memo):
            return False
        pins = Pins(self._memo)
        with contextlib.suppress(NotPinnedError, ValueError):
            known.evidence.pin(pins)
            plan = Plan(checks=pins.checks(), outputs=(), mode=0, source=(0, 0), answer=b"")
            self._checks[key] = self._engine.prepare(plan)
        return True
