"""What `hpcc explain` says of a farm: why no colleague's result was used, what differs.

It sends one question for each file that it explains, at most three for a command, to the worker
that a compile would use, and to others if that one does not know the action. What is printed are
inputs, outputs and sections of the asker's own compile (`hpcc.worker.execute.explaining`).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hpcc import __version__
from hpcc.cli.cache.nearest import difference_lines
from hpcc.config.extras import NO_EXTRA, require_extra
from hpcc.config.paths import Paths
from hpcc.config.settings import load_settings
from hpcc.core import CallerError, Digest, HpccError, NotFoundError, SharingPolicy, demanded
from hpcc.ports import Clock, SystemClock

if TYPE_CHECKING:
    from hpcc.cache.results.records_read import CompileRecord
    from hpcc.config.farm import Farm
    from hpcc.dispatch.channels import RoutedWorker
    from hpcc.rpc.reapi.explanation import Explanation, NearAction, ResultDifference

# A person waits.
_SECONDS: Final = 20.0
_MAX_WORKERS: Final = 4
_LABEL: Final = "  farm          "
_REFUSED: Final = {
    "explain-version": "cannot say it: its workers are of an older version of hpcc",
    "explain-rate": "not asked: too many questions, wait half a minute",
}
_RESULTS: Final = "  results       "
_INDENT: Final = " " * len(_LABEL)


def farm_lines(record: CompileRecord, paths: Paths) -> list[str]:
    """Ask the farm about a compile that it did; empty without a farm, or for another compile."""
    from hpcc.dispatch.farm_files import FarmFiles

    if not record.action:
        return []
    settings = load_settings(paths.config_file)
    farm = FarmFiles(paths, settings).farm()
    if farm is None or farm.engine:
        return []
    if farm.image != record.image:
        return [f"{_LABEL}not asked: it has another image now"]
    try:
        require_extra("client", "a farm")
        action = Digest.parse(record.action)
        found = asyncio.run(_in_time(farm, action, demanded(settings.remote.sharing)))
    except NotFoundError:
        return [f"{_LABEL}the workers have no result of this compile any more"]
    except (HpccError, TimeoutError, OSError) as error:
        why = error.reason if isinstance(error, HpccError) else type(error).__name__
        if why == NO_EXTRA:
            return [f"{_LABEL}not asked: {error}"]
        return [f"{_LABEL}{_REFUSED.get(why, f'unknown: it did not answer ({why})')}"]
    return explanation_lines(found, is_miss=record.outcome == "miss.remote.executed")


async def _in_time(farm: Farm, action: Digest, demand: SharingPolicy) -> Explanation:
    async with asyncio.timeout(_SECONDS):
        return await ask_farm(farm, SystemClock(), action, demand)


async def ask_farm(farm: Farm, clock: Clock, action: Digest, demand: SharingPolicy) -> Explanation:
    """Ask workers about an action, one after the other, until one knows it.

    Raises:
        NotFoundError: none of them does.
        HpccError: the farm refuses us, or its workers are of an older version.
    """
    from hpcc.dispatch.farm import connect_farm

    async with connect_farm(farm, clock, __version__) as connection:
        first = await connection.worker()
        has_others = connection.may_have_others(first)
        others = await connection.places.others(first) if has_others else []
        last: HpccError = NotFoundError("no worker knows this action")
        for worker in (first, *others)[:_MAX_WORKERS]:
            try:
                return await _asked(worker, action, demand)
            except NotFoundError:
                continue
            except CallerError as error:
                last = error
        raise last


async def _asked(worker: RoutedWorker, action: Digest, demand: SharingPolicy) -> Explanation:
    from hpcc.rpc.reapi.client import ReapiClient
    from hpcc.rpc.reapi.service_calls import ReapiClientConfig

    config = ReapiClientConfig(
        tenant=worker.tenant,
        tool_version=__version__,
        sharing=demand.meet(worker.route.sharing),
    )
    client = ReapiClient(worker.channel, worker.route.token, config, prove=worker.prove)
    return await client.explain(action)


def explanation_lines(found: Explanation, *, is_miss: bool) -> list[str]:
    """Say what a worker told; for a hit only whether results differ."""
    from hpcc.rpc.reapi.explanation import ALL_RESULTS

    lines = _difference_lines(found.difference) if found.difference else []
    if not is_miss:
        return lines
    if found.shared:
        now = f"the result of this compile serves everybody now ({found.shared})"
        return [*lines, f"{_LABEL}{now}"]
    if not found.accepts:
        why = "the tenant's policy or remote.sharing forbids it"
        return [*lines, f"{_LABEL}colleagues' results are not used: {why}"]
    if found.accepts == ALL_RESULTS:
        return [
            *lines,
            f"{_LABEL}each result of the tenant serves you; it had none of this compile",
        ]
    if found.nearest is None:
        return [*lines, f"{_LABEL}no other result that serves you, of this source and compiler"]
    return [*lines, *_nearest_lines(found.nearest)]


def _nearest_lines(near: NearAction) -> list[str]:
    from hpcc.cache.signed.outline import OutlineDifference

    difference = OutlineDifference(
        at=near.at,
        kid="",
        is_other_compiler=False,
        is_other_directory=near.is_other_directory,
        is_other_environment=near.is_other_environment,
        flags=near.flags,
        is_reordered=near.is_reordered,
        paths=near.paths,
        equal=near.equal,
        only_here=near.only_here,
        only_there=near.only_there,
    )
    return difference_lines(difference, f" that serves everybody ({near.sharing})", near.more_paths)


def _difference_lines(difference: ResultDifference) -> list[str]:
    from hpcc.rpc.reapi.explanation import Decision

    match difference.decision:
        case Decision.OPEN:
            decided = "it is not decided which is right: two fresh guests have to give the same"
            remedy = "nothing to do: each result stays with those who made it"
        case Decision.REPEATED if difference.is_other:
            decided = "two fresh guests gave the same, and yours is another one"
            remedy = (
                "compile it with HPCC_DISABLE=1, and tell the operator of the farm, who sees the"
                " executions with `hpcc audit determinism`. Nobody else gets your result"
            )
        case Decision.REPEATED:
            decided = "two fresh guests gave the same, and that is what serves everybody"
            remedy = "nothing to do: the other result stays with the person who made it"
        case Decision.RANDOM:
            decided = "fresh guests differ, too: this compile is not deterministic"
            remedy = "look for dates, random names and seeds in what it reads (-frandom-seed)"
    lines = [f"{_RESULTS}executions of this compile gave different results", f"{_INDENT}{decided}"]
    if difference.outputs:
        where = f" (first in section {difference.section})" if difference.section else ""
        lines.append(f"{_INDENT}yours differs from the shared one in {_names(difference)}{where}")
    return [*lines, f"{_INDENT}{remedy}"]


def _names(difference: ResultDifference) -> str:
    return ", ".join(difference.outputs)
