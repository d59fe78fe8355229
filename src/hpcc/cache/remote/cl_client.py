"""The parts of a Windows client beside its planner: cl and clang-cl on a farm.

Results of the farm are kept on this machine, too (`ImageResults`), and then neither the farm nor a
compiler is asked. What each compile did is recorded, as on other systems. Not yet run on Windows.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from hpcc.cache.base.api import Done
from hpcc.cache.remote.cl_host import ClHost, LocalMachine
from hpcc.cache.remote.cl_plan import ClCompile, ClJob, ClPlan, ClPlanner, has_windows_farm
from hpcc.cache.remote.client import (
    BadResultError,
    FarmClient,
    FarmCompile,
    OutputNotOursError,
    ParityAnswer,
    add_phases,
)
from hpcc.cache.remote.host_parity import Verdicts
from hpcc.compilers.msvc.guest import client_source_dependencies, windows_guest_text
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import CallerError, FarmRun, Parity, RemoteResult, WindowsPath
from hpcc.core.basis import FarmTerms
from hpcc.ports import SystemClock

_log: Final = logging.getLogger("hpcc.daemon.cl")
Outputs = Mapping[str, bytes]


class ClParity:
    """`HostFacts` of cl and clang-cl: versions and targets, no headers.

    `now` is the time in seconds since the epoch.
    """

    def __init__(self, host: ClHost, now: Callable[[], float]) -> None:
        self._host, self._verdicts = host, Verdicts(now)

    def parity(
        self,
        compile_: ClCompile,
        farm: Farm,
        session: FarmSession | None,
        parity: Parity,
        is_cancelled: Callable[[], bool],
    ) -> ParityAnswer:
        """See `HostFacts.parity`."""
        del is_cancelled  # questions to the compiler have a time limit
        request = compile_.request
        if parity == "ignore" or not has_windows_farm(request):
            return ParityAnswer()  # the planner refuses compilers of another kind
        return self._verdicts.answer(farm, session, self._host.described(request), parity)


class ClRecords(Protocol):
    """Records what the farm did, for `hpcc explain` and `hpcc report`; `windows.notes` has it."""

    def compiled(
        self, job: ClJob, compiled: FarmCompile, size_bytes: int, ran: FarmRun | None
    ) -> None:
        """Note a compile of the farm, with the size of its outputs."""
        ...

    def fell_back(self, reason: str) -> None:
        """Note why the farm did not do the compile that this thread handles now."""
        ...


class ImageResults(Protocol):
    """What this machine keeps of the farm's results; `windows.farm_results` has it."""

    def stored(self, job: ClJob, terms: FarmTerms) -> Done | None:
        """See `client.ClientResults.stored`. Without a result, the thread's compile begins."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write an output; running compiles of the same file learn of it.

        Raises:
            OSError: it cannot be written.
        """
        ...

    def keep(self, job: ClJob, plan: ClPlan, done: Done, basis: str, outputs: Outputs) -> None:
        """Keep a result that was just put in place, if that is safe. `outputs` are by file."""
        ...


class ClResults:
    """`ClientResults` of cl and clang-cl."""

    def __init__(self, machine: LocalMachine, records: ClRecords, images: ImageResults) -> None:
        self._machine, self._records, self._images = machine, records, images

    def stored(self, job: ClJob, farm: Farm, terms: FarmTerms) -> Done | None:
        """See `client.ClientResults.stored`."""
        del farm  # it is in the job's key
        return self._images.stored(job, terms)

    def take(self, job: ClJob, plan: ClPlan, outcome: RemoteResult, compiled: FarmCompile) -> Done:
        """See `client.ClientResults.take`."""
        if (times := job.request.times) is not None:
            add_phases(times, compiled.moments, outcome.ran)
        there = {output.path: output.data for output in outcome.outputs}
        try:
            if plan.report:
                there[plan.report] = client_source_dependencies(
                    there[plan.report], job.root, self._is_here
                )
            placed = {} if plan.depfile is None else dict([plan.depfile])
            placed |= {place: there[path] for path, place in plan.outputs}
            for place, data in placed.items():
                self._images.write(place, data)
        except (KeyError, CallerError) as error:
            raise BadResultError from error
        except OSError as error:
            _log.warning("an output cannot be written: %s", error)
            raise OutputNotOursError("an output cannot be written") from error
        size = sum(map(len, placed.values()))
        self._records.compiled(job, compiled, size, outcome.ran)
        done = _done(0, outcome, job.root)
        self._images.keep(job, plan, done, outcome.basis, placed)
        return done

    def failed(self, job: ClJob, plan: ClPlan, outcome: RemoteResult) -> Done:
        """See `client.ClientResults.failed`."""
        del plan
        return _done(outcome.exit_code, outcome, job.root)

    def fell_back(self, reason: str) -> None:
        """See `client.ClientResults.fell_back`."""
        self._records.fell_back(reason)

    def _is_here(self, path: str) -> bool:
        return self._machine.state(path) is not None


def _done(exit_code: int, outcome: RemoteResult, root: WindowsPath) -> Done:
    return Done(
        exit_code,
        windows_guest_text(outcome.stdout, root),
        windows_guest_text(outcome.stderr, root),
    )


def cl_client(
    machine: LocalMachine, records: ClRecords, images: ImageResults
) -> FarmClient[ClCompile, ClJob, ClPlan]:
    """Build the client of one machine."""
    host = ClHost(machine)
    parity = ClParity(host, SystemClock().now)
    return FarmClient(parity, ClPlanner(host), ClResults(machine, records, images))
