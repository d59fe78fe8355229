"""What each kind of client does in its own way: the seam of the one `hpcc.cache.farm:FarmCache`.

A compile goes to a farm in the same steps on every system: compare compilers, look for a stored
result, plan, send, put the outputs in place. `FarmCache` owns the order of the steps and every
decision between them: fallbacks, remembered refusals, the breaker, the counters. A client answers
the questions in between, with three objects:

- `HostFacts` compares this machine's compiler with the image's;
- `FarmPlanner` turns a compile into a request, and learns from a guest that lacked a file;
- `ClientResults` finds stored results, puts new ones in place, and records them.

There are two clients. POSIX: `host_parity`, `plan` and `hpcc.cache.farm_results`. Windows, for cl
and clang-cl: `cl_client` and `cl_plan`. The modules of one are never loaded by the other.

Type parameters: `C` is a compile as the client's handler passes it, `J` the same compile as a job
with a key, `P` the plan of a job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from hpcc.cache.base.api import Done
from hpcc.cache.base.times import CompileTimes, Phase
from hpcc.compilers.spec.table import Bypass
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import FarmRun, LocalSlots, Parity, RemoteRequest, RemoteResult, Toolchain
from hpcc.core.basis import FarmTerms

_DAY_SECONDS: Final = 86_400.0


class BadResultError(Exception):
    """A farm's answer lacks an output, or an output is malformed."""


class OutputNotOursError(Exception):
    """An output file cannot be replaced; the text tells a person why."""


class ParityAnswer(NamedTuple):
    """What follows from the compilers of host and image.

    `refusal` is the text for a person if the farm must not do the compile now, else "".
    `toolchain` describes the host's compiler to the farm; "" if it is unknown. `is_exact`: both
    compilers, and all of their headers that the session tells about, are the same now. `is_open`:
    no login has told yet what the image has.
    """

    refusal: str = ""
    toolchain: str = ""
    serves_stored: bool = True
    is_exact: bool = False
    is_open: bool = False


class FarmMoments(NamedTuple):
    """When planning began, the request was sent and its answer came: monotonic nanoseconds."""

    began_ns: int
    sent_ns: int
    answered_ns: int


def add_phases(times: CompileTimes, moments: FarmMoments, ran: FarmRun | None) -> None:
    """Add what the farm's part of a compile consists of.

    A worker's clock is another one: what it says is moved into the middle of the call, and cut to
    its length.
    """
    began_ns, sent_ns, answered_ns = moments
    times.add(Phase.PLAN, began_ns, sent_ns)
    times.add(Phase.CALL, sent_ns, answered_ns)
    if ran is not None and ran.ran_seconds > 0:
        room_ns = answered_ns - sent_ns
        run_ns = min(int(min(_DAY_SECONDS, ran.ran_seconds) * 1e9), room_ns)
        waited_seconds = min(_DAY_SECONDS, max(0.0, ran.waited_seconds))
        wait_ns = min(int(waited_seconds * 1e9), room_ns - run_ns)
        queued_ns = sent_ns + (room_ns - run_ns - wait_ns) // 2
        if wait_ns:
            times.add(Phase.QUEUE, queued_ns, queued_ns + wait_ns)
        times.add(Phase.GUEST, queued_ns + wait_ns, queued_ns + wait_ns + run_ns)
    times.begin(Phase.PLACE)


class FarmCompile(NamedTuple):
    """One compile that the farm did: its counter, when it began, the image, the action."""

    outcome: str
    started_ns: int
    image: str
    action: str
    moments: FarmMoments


class FarmJob(Protocol):
    """A compile with its key."""

    @property
    def key(self) -> bytes:
        """SHA-256 of the command and the farm's image; a refusal is remembered under it."""
        ...


class FarmPlan(Protocol):
    """A job's request."""

    @property
    def request(self) -> RemoteRequest:
        """The request, without the description of the host's compiler."""
        ...

    @property
    def counter(self) -> str:
        """The counter that names how the closure was found; "" if there is only one way."""
        ...


class HostFacts[C](Protocol):
    """Compares compilers. Thread-safe."""

    def parity(
        self,
        compile_: C,
        farm: Farm,
        session: FarmSession | None,
        parity: Parity,
        is_cancelled: Callable[[], bool],
    ) -> ParityAnswer:
        """Compare the compile's compiler with the image's under the `parity` in force."""
        ...


class FarmPlanner[C, J, P](Protocol):
    """Turns compiles into requests. Thread-safe."""

    def is_report(self, compile_: C) -> bool:
        """Tell whether it makes nothing but a report: then it may always run here.

        It travels only to an image with the same tool.
        """
        ...

    def job(self, compile_: C, farm: Farm) -> J | Bypass:
        """Return the compile with its key, or why the cache does not handle it.

        Raises:
            NotPortableError: the compile cannot run in a guest.
        """
        ...

    def plan(
        self, job: J, image: Sequence[Toolchain] | None, is_cancelled: Callable[[], bool]
    ) -> P | Bypass:
        """Build the request. `image` lists the compilers of the farm's image, None if unknown.

        Raises:
            NotPortableError: the compile cannot run in a guest.
            UncacheableError: the closure cannot be found, or its files are changing.
        """
        ...

    def learn(self, job: J, plan: P, outcome: RemoteResult) -> bool:
        """Read a failed compile's messages (hostile); True if another plan may succeed."""
        ...


class ClientResults[J, P](Protocol):
    """Finds, places and records results. Thread-safe."""

    def stored(self, job: J, farm: Farm, terms: FarmTerms) -> Done | None:
        """Put a stored result in place and count it; None if there is none to serve.

        One whose basis does not count under `terms` is none.
        """
        ...

    def take(self, job: J, plan: P, outcome: RemoteResult, compiled: FarmCompile) -> Done:
        """Put the outputs of a successful compile in place, and keep and record what may be kept.

        Raises:
            BadResultError: the answer lacks an output.
            NotPortableError: the outputs show that the compile cannot run in a guest.
            OutputNotOursError: an output file cannot be replaced.
        """
        ...

    def failed(self, job: J, plan: P, outcome: RemoteResult) -> Done:
        """Return a failed compile's exit code and messages, with the paths of this machine."""
        ...

    def fell_back(self, reason: str) -> None:
        """Note why the farm did not do the compile that this thread handles now."""
        ...


class FarmPackSource[J](Protocol):
    """Results of a farm that came in build packs: `hpcc.cache.packs.farm`. Thread-safe."""

    def asked(self, job: J, request: RemoteRequest, farm: Farm) -> RemoteRequest:
        """Return the request with what a pack has for its command."""
        ...

    def answered(self, job: J, request: RemoteRequest, farm: Farm, result: RemoteResult) -> None:
        """Note a result of the farm, or of a pack."""
        ...


class LocalSlotRule[J, P](Protocol):
    """Judges which compiles may run here while the farm is full. Thread-safe."""

    def stored(self, job: J, slots: LocalSlots) -> Done | None:
        """Put the result of a compile in place that ran here; None if there is none to serve."""
        ...

    def may_run(self, job: J, slots: LocalSlots) -> bool:
        """Tell by the flags whether a compile may run here."""
        ...

    def is_same(self, job: J, plan: P, slots: LocalSlots, is_cancelled: Callable[[], bool]) -> bool:
        """Tell whether the outputs here are those of the farm, as far as `slots` demands it."""
        ...

    def note(self, job: J, slots: LocalSlots) -> None:
        """Note that a compile runs here."""
        ...


@dataclass(frozen=True, slots=True)
class FarmClient[C, J: FarmJob, P: FarmPlan]:
    """The parts of one client.

    `slots` is None if no compile may run here instead, `packs` if the user has none.
    """

    host: HostFacts[C]
    planner: FarmPlanner[C, J, P]
    results: ClientResults[J, P]
    slots: LocalSlotRule[J, P] | None = None
    packs: FarmPackSource[J] | None = None
