"""The remote half of the cache: looks up, compiles on the farm, and stores results of an image.

Its keys name the image in place of the host's compiler, so remote and local results never mix.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from hpcc.cache.base.api import Done, RemoteClient
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.uncacheable import UncacheableError, absolute
from hpcc.cache.host.host_toolchains import HostToolchain, HostToolchains
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.completion import Completions
from hpcc.cache.remote.depfiles import Depfiles
from hpcc.cache.remote.fallback import refused_or_local
from hpcc.cache.remote.farm_root import FarmRoot
from hpcc.cache.remote.plan import Planner, RemotePlan
from hpcc.cache.results.hits import Hits
from hpcc.cache.results.records import Records
from hpcc.cache.results.results import Result, Results
from hpcc.compilers.invocation.guest import GUEST_ROOT, NotPortableError, guest_text
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.config.settings import RemoteSettings
from hpcc.core import (
    CallerError,
    ImageRef,
    Isolation,
    RemoteFailure,
    RemoteOutcome,
    RemoteResult,
    Toolchain,
)
from hpcc.core.breaker import CircuitBreaker
from hpcc.core.memo import BoundedMemo
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.core.reasons.uncacheable import UncacheableReason
from hpcc.dispatch.parity import EffectivePolicy, ParityVerdict, effective_policy, parity_verdict

_log: Final = logging.getLogger("hpcc.daemon.farm")
KEY_FORMAT: Final = b"remote-4"
_HIT: Final = "hit.remote"
_ENGINE_HIT: Final = "hit.engine"
BREAKER_FAILURES: Final = 3
BREAKER_SECONDS: Final = 10.0
# How long a refusal is remembered before the compile is tried again.
REFUSAL_SECONDS: Final = 30.0
_MAX_REFUSALS: Final = 4096
_MAX_WARNED: Final = 64
# With the first component below the root. Not inside another path, such as /usr/src/.
_GUEST_NAME: Final = re.compile(
    rb"(?<![\w./+~-])" + re.escape(GUEST_ROOT) + rb"/([^/\0\n:\"]{1,255})"
)
# Failures with these reasons concern one compile, not the farm.
_NOT_THE_FARM: Final = frozenset(
    {"cancelled", "bad-request", "quota", "resource-exhausted", "parity", "quarantined"}
    # Local files, found before any request is sent.
    | {"input", "input-kind", "input-changed"}
)


class FarmBreaker:
    """Stops requests to a farm that fails repeatedly. Thread-safe."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._breaker = CircuitBreaker(
            failures=BREAKER_FAILURES, open_seconds=BREAKER_SECONDS, tries_one=False
        )
        # The last failure, which a fallback by the breaker reports, too.
        self.why = ""

    def is_open(self) -> bool:
        """Tell whether requests are stopped now."""
        with self._lock:
            return not self._breaker.admits(self._monotonic())

    def note(self, *, worked: bool, why: str = "") -> None:
        """Record the outcome of one request; `why` is the reason of a failure."""
        with self._lock:
            self.why = why or self.why
            now = self._monotonic()
            if worked:
                self._breaker.succeeded(now)
            else:
                self._breaker.failed(now)


@dataclass(frozen=True, slots=True)
class _Job:
    """One compile for a farm: project root, key of the command, toolchains of host and image."""

    prepared: Prepared
    root: FarmRoot
    key: bytes
    toolchain: str
    image: tuple[Toolchain, ...] | None


class FarmCache:
    """Looks up, compiles on the farm, stores. `begin` returns None for a local compile."""

    def __init__(
        self,
        remote: RemoteClient,
        *,
        results: Results,
        planner: Planner,
        counters: Counters,
        records: Records,
        hits: Hits,
        settings: RemoteSettings,
        monotonic: Callable[[], float],
    ) -> None:
        self._remote, self._results = remote, results
        self._counters, self._records, self._hits = counters, records, hits
        self._settings, self._monotonic = settings, monotonic
        self._planner = planner
        self._breaker = FarmBreaker(monotonic)
        self._completions = Completions()
        self._depfiles = Depfiles()
        self._refusals: BoundedMemo[bytes, tuple[str, str, float]] = BoundedMemo(_MAX_REFUSALS)
        self._hosts = HostToolchains(monotonic)
        self._warned: BoundedMemo[str, None] = BoundedMemo(_MAX_WARNED)

    def begin(self, prepared: Prepared, is_cancelled: Callable[[], bool]) -> Done | None:
        """Answer from the image's stored results or from the farm; None to compile locally."""
        farm = self._remote.farm()
        if farm is None:
            return None
        host, verdict, session = self._parity_verdict(prepared, farm, is_cancelled)
        if verdict.refuses and session is not None and time.time() < session.expires_at:
            # A verdict holds only until its session expires; the dispatcher then logs in again.
            return self.fall_back(FallbackReason.PARITY, verdict.text)
        root = self._planner.root_of(prepared)
        key = remote_key(prepared, farm, root)
        found = None if verdict.refuses else self._results.find(key)
        if found is not None and self._hits.put(
            prepared,
            found,
            key=key,
            outcome=_ENGINE_HIT if farm.engine else _HIT,
            root=root.search,
        ):
            return Done(0, found.result.stdout, found.result.stderr)
        refusal = self._refusals.get(key)
        if refusal is not None and self._monotonic() < refusal[2]:
            return self._stay(refusal[0], refusal[1])
        if self._breaker.is_open():
            why = self._breaker.why
            return self.fall_back(
                FallbackReason.BREAKER, f"the farm failed repeatedly ({why}); trying soon"
            )
        image = None if session is None else session.compilers
        return self._compile(_Job(prepared, root, key, host.text, image), is_cancelled)

    def _parity_verdict(
        self, prepared: Prepared, farm: Farm, is_cancelled: Callable[[], bool]
    ) -> tuple[HostToolchain, ParityVerdict, FarmSession | None]:
        session = self._remote.session()
        policy = self._policy(session)
        request = prepared.request
        name = os.path.basename(request.argv[0])
        if policy.parity == "ignore":
            host = HostToolchain(os.fsdecode(name), None, "")
        else:
            path = request.env.get(b"PATH", b"")
            identity = prepared.identity.digest
            host = self._hosts.of(request.compiler, name, identity, path, is_cancelled)
        image = ImageRef.parse(farm.image)
        verdict = parity_verdict(session, policy.parity, host.name, host.toolchain, image)
        if verdict.warns or verdict.is_image_unknown:
            self._warn_once(verdict.text)
        return host, verdict, session

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned[text] = None
            _log.warning("%s", text)

    def _policy(self, session: FarmSession | None) -> EffectivePolicy:
        settings = self._settings
        return effective_policy(session, fallback=settings.fallback, parity=settings.parity)

    def fall_back(self, reason: str, message: str) -> Done | None:
        """Count a fallback and return None, or the failure that `fallback = "never"` demands."""
        is_detailed = reason == FallbackReason.PARITY
        return self._fall_back(reason, message, f"{reason}: {message}" if is_detailed else reason)

    def _stay(self, reason: str, detail: str) -> Done | None:
        """Compile here because of what the compile is; `detail` names a file or a flag."""
        message = "this compile cannot run on the farm" + (f": {detail}" if detail else "")
        return self._fall_back(reason, message, f"{reason}: {detail}" if detail else reason)

    def _fall_back(self, reason: str, message: str, recorded: str) -> Done | None:
        self._counters.add(f"fallback.{reason}")
        self._records.fell_back(recorded)
        return refused_or_local(self._policy(self._remote.session()), reason, message, _log)

    def _compile(self, job: _Job, is_cancelled: Callable[[], bool]) -> Done | None:
        started_ns = time.time_ns()
        is_last = False
        while True:
            extra = self._completions.of(job.key)
            try:
                plan = self._planner.plan(
                    job.prepared, job.root, is_cancelled=is_cancelled, extra=extra, image=job.image
                )
            except (NotPortableError, UncacheableError) as error:
                detail = error.detail if isinstance(error, NotPortableError) else ""
                self._refuse(job.key, error.reason, detail)
                return self._stay(error.reason, detail)
            self._counters.add(f"closure.asked.{plan.asked}" if plan.asked else "closure.scanned")
            request = replace(plan.request, toolchain=job.toolchain)
            outcome = self._remote.compile(request, is_cancelled)
            if isinstance(outcome, RemoteFailure):
                self._breaker.note(worked=_is_farm_well(outcome), why=outcome.reason)
                return self.fall_back(outcome.reason, outcome.message)
            self._breaker.note(worked=True)
            if outcome.exit_code == 0:
                return self._succeeded(job, plan, outcome, started_ns)
            if is_last or not self._learn(job, plan, outcome):
                return self._failed(outcome, job.root.path)
            self._counters.add("closure.completed")
            is_last = True

    def _learn(self, job: _Job, plan: RemotePlan, outcome: RemoteResult) -> bool:
        """Add files that the guest lacked; return True if another try may succeed."""
        guest = self._planner.guest_map(job.prepared, job.root)
        sent = frozenset(path for path, _ in plan.closure.files)

        def may_send(path: bytes) -> bool:
            return self._planner.may_send(job.prepared, job.root, path)

        return self._completions.learn(
            job.key, outcome.stderr, job.prepared, guest, job.root.marker, sent, may_send
        )

    def _refuse(self, key: bytes, reason: str, detail: str = "") -> None:
        if reason in {
            FallbackReason.DEPENDENCIES_FAILED,
            UncacheableReason.MODIFIED_DURING_COMPILE,
            FallbackReason.INPUT_VANISHED,
        }:
            return  # the cause is the present state of the sources, not the command
        self._refusals[key] = (reason, detail, self._monotonic() + REFUSAL_SECONDS)

    def _failed(self, outcome: RemoteResult, root: bytes) -> Done | None:
        """Compile locally if allowed, because an injected flag or the image may be at fault."""
        if self._policy(self._remote.session()).fallback != "never":
            return self.fall_back(FallbackReason.EXIT_CODE, "the compile failed in the guest")
        self._counters.add("miss.failed")
        return Done(
            outcome.exit_code, guest_text(outcome.stdout, root), guest_text(outcome.stderr, root)
        )

    def _succeeded(
        self, job: _Job, plan: RemotePlan, outcome: RemoteResult, started_ns: int
    ) -> Done | None:
        prepared, key = job.prepared, job.key
        outputs = {o.path: o.data for o in outcome.outputs}
        try:
            result = _client_result(prepared, plan, outcome, outputs, self._depfiles)
        except (KeyError, CallerError):
            return self.fall_back(FallbackReason.BAD_RESULT, "the farm's answer lacks an output")
        if job.root.is_found and (name := _guest_name(result, plan)):
            self._refuse(key, FallbackReason.NAMES_IN_OUTPUT, name)
            return self._stay(FallbackReason.NAMES_IN_OUTPUT, name)
        if not self._hits.put_new(prepared, result):
            return self.fall_back(
                FallbackReason.OUTPUT_NOT_OURS, "an output file is one hpcc does not replace"
            )
        who = "engine" if outcome.isolation is Isolation.FOREIGN_UNKNOWN else "remote"
        name = f"miss.{who}.cached" if outcome.is_cached else f"miss.{who}.executed"
        self._counters.add(name)
        if plan.may_keep(started_ns):
            self._results.keep(key, plan.closure, result)
        else:
            self._counters.add(f"uncacheable.{UncacheableReason.MODIFIED_DURING_COMPILE}")
        farm = self._remote.farm()
        self._records.compiled(
            prepared,
            name,
            key=key,
            started_ns=started_ns,
            image=farm.image if farm is not None else "",
            root=job.root.text,
        )
        return Done(0, result.stdout, result.stderr)


def remote_key(prepared: Prepared, farm: Farm, root: FarmRoot) -> bytes:
    """Return the key (SHA-256) of a compile on a farm; it names the image, not a host compiler."""
    request = prepared.request
    return hashlib.sha256(
        encode_fields(
            [
                KEY_FORMAT,
                ImageRef.parse(farm.image).digest.value.encode(),
                farm.isolation.encode(),
                farm.tenant.encode(),
                root.path,
                root.shown,
                request.cwd,
                request.env.get(b"SOURCE_DATE_EPOCH", b"-"),
                os.path.basename(request.argv[0]),
                *prepared.invocation.arguments,
                *prepared.family.search_values(request.env),
            ]
        )
    ).digest()


def _client_result(
    prepared: Prepared,
    plan: RemotePlan,
    outcome: RemoteResult,
    outputs: dict[str, bytes],
    depfiles: Depfiles,
) -> Result:
    names = plan.request.outputs
    depfile: bytes | None = None
    if prepared.invocation.depfile is not None:
        depfile = depfiles.of(outputs[names[1]], plan.root, prepared.cwd)
    return Result(
        outputs[names[0]],
        depfile,
        _client_stdout(prepared, outcome.stdout, plan.root),
        guest_text(outcome.stderr, plan.root),
    )


def _guest_name(result: Result, plan: RemotePlan) -> str:
    """Return a path of the guest in an output that should have this machine's; "" without one."""
    tops = {item.path.partition("/")[0].encode() for item in plan.request.inputs}
    tops.add(plan.request.cwd.partition("/")[0].encode())
    for data in (result.object_data, *result.side):
        for match in _GUEST_NAME.finditer(data):
            if match[1] in tops:
                return match[0].decode("utf-8", "replace")
    return ""


def _client_stdout(prepared: Prepared, text: bytes, root: bytes) -> bytes:
    """Return a guest's stdout with the paths that a local compile would print."""
    own = root.rstrip(b"/") + b"/"

    def is_here(name: bytes) -> bool:
        is_own = not name.startswith(b"/") or name.startswith(own)
        return is_own or os.path.exists(absolute(prepared.cwd, name))

    return prepared.family.client_stdout(prepared.invocation, guest_text(text, root), is_here)


def _is_farm_well(outcome: RemoteOutcome) -> bool:
    return isinstance(outcome, RemoteResult) or outcome.reason in _NOT_THE_FARM
