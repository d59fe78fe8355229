"""Runs cl and clang-cl of a Windows client on the farm, or leaves them to the compiler.

There is no local cache: it is not proved what a `stat` shows about a file on Windows. The farm
answers repeated compiles from its own results. Not yet run on Windows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

from hpcc.cache.base.api import CompileRequest, Done, Exec, RemoteClient
from hpcc.cache.base.counters import Counters
from hpcc.cache.remote.cl_host import LocalMachine
from hpcc.cache.remote.cl_plan import ClPlan, ClPlanner
from hpcc.cache.remote.fallback import refused_or_local
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.msvc.guest import client_source_dependencies, windows_guest_text
from hpcc.compilers.spec.table import Bypass
from hpcc.config.farm_session import FarmSession
from hpcc.config.settings import RemoteSettings
from hpcc.core import CallerError, RemoteFailure, RemoteResult, WindowsPath
from hpcc.core.reasons.bypass import BypassReason
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.parity import EffectivePolicy, effective_policy

_log: Final = logging.getLogger("hpcc.daemon.cl")

_NO_PARITY: Final = (
    'compilers on Windows are not compared yet, and parity is "refuse": set it to "warn" '
    "(remote.parity in hpcc.toml; of a farm, its operator in the tenants table)"
)


class ClFarm:
    """Handles compiles of cl and clang-cl. Thread-safe like its parts."""

    def __init__(
        self,
        remote: RemoteClient,
        planner: ClPlanner,
        machine: LocalMachine,
        counters: Counters,
        settings: RemoteSettings,
    ) -> None:
        self._remote, self._planner = remote, planner
        self._machine, self._counters, self._settings = machine, counters, settings

    def begin(
        self, request: CompileRequest, root: WindowsPath, is_cancelled: Callable[[], bool]
    ) -> Done | Exec:
        """Compile on the farm, else return an `Exec`.

        `root` is the project's root with links and `subst` resolved.
        """
        if self._remote.farm() is None:
            return self.left(BypassReason.NO_FARM)
        session = self._remote.session()
        if self._policy(session).parity == "refuse":
            # No Windows image describes its compiler yet.
            return self.fall_back(FallbackReason.PARITY, _NO_PARITY)
        try:
            plan = self._planner.plan(request, root, None if session is None else session.compilers)
        except NotPortableError as error:
            return self.fall_back(error.reason, "this compile cannot run on the farm")
        if isinstance(plan, Bypass):
            return self.left(plan.reason)
        outcome = self._remote.compile(plan.request, is_cancelled)
        if isinstance(outcome, RemoteFailure):
            return self.fall_back(outcome.reason, outcome.message)
        if outcome.exit_code:
            # An added flag or the image may be at fault: the user's own compiler decides.
            return self.fall_back(FallbackReason.EXIT_CODE, "the compile failed in the guest")
        return self._done(plan, outcome)

    def _done(self, plan: ClPlan, outcome: RemoteResult) -> Done | Exec:
        there = {output.path: output.data for output in outcome.outputs}
        try:
            if plan.report:
                there[plan.report] = client_source_dependencies(
                    there[plan.report], plan.root, self._is_here
                )
            for path, place in plan.outputs:
                self._machine.write(place, there[path])
        except (KeyError, CallerError):
            return self.fall_back(FallbackReason.BAD_RESULT, "the farm's answer lacks an output")
        except OSError as error:
            _log.warning("an output cannot be written: %s", error)
            return self.fall_back(FallbackReason.OUTPUT_NOT_OURS, "an output cannot be written")
        kind = "cached" if outcome.is_cached else "executed"
        self._counters.add(f"miss.remote.{kind}")
        return Done(
            0,
            windows_guest_text(outcome.stdout, plan.root),
            windows_guest_text(outcome.stderr, plan.root),
        )

    def _is_here(self, path: str) -> bool:
        return self._machine.state(path) is not None

    def left(self, reason: str) -> Exec:
        """Count a bypass and leave the compile to the compiler."""
        self._counters.add(f"bypass.{reason}")
        return Exec(reason)

    def fall_back(self, reason: str, message: str) -> Done | Exec:
        """Count a fallback; return an `Exec`, or a failure with `fallback = "never"`."""
        self._counters.add(f"fallback.{reason}")
        policy = self._policy(self._remote.session())
        return refused_or_local(policy, reason, message, _log) or Exec(reason)

    def _policy(self, session: FarmSession | None) -> EffectivePolicy:
        settings = self._settings
        return effective_policy(session, fallback=settings.fallback, parity=settings.parity)
