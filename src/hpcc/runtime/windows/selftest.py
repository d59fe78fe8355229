"""What has not been shown on Windows yet, as checks that an operator runs there once.

They are in the order in which the answers matter. A check that cannot run is skipped with its
reason and never counts as passed. Each names the sentence of docs/windows.md that can be dropped
once the check passes everywhere.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import platform
import secrets
import shutil
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from hpcc.core import HpccError, ImageDigest
from hpcc.ports import Clock
from hpcc.runtime.containerd.client import Containerd, ContainerdError, pipe_connector
from hpcc.runtime.host.threads import in_thread
from hpcc.runtime.windows.guest_checks import GuestChecks
from hpcc.runtime.windows.hcs import ComputeService, load_computecore
from hpcc.runtime.windows.hvsocket import hyperv_socket
from hpcc.runtime.windows.layers.containerd_layers import LayerStore
from hpcc.runtime.windows.layers.layer import build_windows_layer
from hpcc.runtime.windows.selftest_run import make_source, new_directory, read_file, run_program
from hpcc.runtime.windows.spec import check_containerd

_CHECK_SECONDS: Final = 300.0
_DEADLINE_CODE: Final = 124
_LEASE_HOURS: Final = 1
_MAX_REASON_CHARS: Final = 600
_NO_CHECK: Final = "no check: neither Windows nor containerd documents a question for a VM's shares"

# WSAEAFNOSUPPORT
_NO_SUCH_FAMILY: Final = 10047
Outcome = Literal["pass", "fail", "skip"]


class SkipCheck(Exception):  # noqa: N818 - not an error: the check says why it cannot run
    """Raised by a check that cannot run here."""


class CheckFailed(Exception):  # noqa: N818 - not an error of hpcc: the answer is no
    """Raised by a check whose answer is no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTestSettings:
    """What the checks may use. `stub` is the argv of hpcc-agent.exe; "" and () skip checks."""

    containerd: str
    clock: Clock
    parent: str = ""
    snapshotter: str = "windows"
    stub: tuple[str, ...] = ()
    compiler: str = "cl"
    # For checks that boot guests: an image in containerd, and the agent's layer.
    image: str = ""
    layer: Path | None = None
    is_windows: bool = os.name == "nt"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """One line of the report; `reason` is what was seen, or why the check was skipped."""

    name: str
    title: str
    outcome: Outcome
    reason: str
    # The sentence of docs/windows.md that can be dropped when this passes.
    sentence: str


type _Run = Callable[[SelfTestSettings], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Check:
    name: str
    title: str
    sentence: str
    run: _Run


async def run_checks(settings: SelfTestSettings) -> list[CheckResult]:
    """Run every check, one after the other. A failed check does not end the others."""
    return [await _result(check, settings) for check in CHECKS]


def report(results: Sequence[CheckResult], version: str) -> dict[str, object]:
    """Return the machine-readable report."""
    return {
        "format": 1,
        "hpcc": version,
        "system": platform.platform(),
        "python": platform.python_version(),
        "results": [asdict(result) for result in results],
    }


async def _result(check: _Check, settings: SelfTestSettings) -> CheckResult:
    outcome: Outcome = "pass"
    try:
        async with asyncio.timeout(_CHECK_SECONDS):
            reason = await (check.run if settings.is_windows else _elsewhere)(settings)
    except SkipCheck as said:
        outcome, reason = "skip", str(said)
    except TimeoutError:
        outcome, reason = "fail", f"it took longer than {_CHECK_SECONDS:.0f} s"
    except (CheckFailed, HpccError, OSError) as error:
        outcome, reason = "fail", str(error) or type(error).__name__
    return CheckResult(
        name=check.name,
        title=check.title,
        outcome=outcome,
        reason=_plain(reason),
        sentence=check.sentence,
    )


def _plain(text: str) -> str:
    """Return the text of a compiler or daemon in a form that any console can show."""
    shown = "".join(c if c.isprintable() and c.isascii() else "?" for c in text)
    return shown[:_MAX_REASON_CHARS]


async def _elsewhere(_: SelfTestSettings) -> str:
    raise SkipCheck("not Windows")


async def _pipe(settings: SelfTestSettings) -> str:
    version = await _version(settings)
    return f"containerd {version} answered over {settings.containerd}"


async def _gate(settings: SelfTestSettings) -> str:
    version = await _version(settings)
    check_containerd(version)
    return f"containerd {version} gives containers addresses"


async def _version(settings: SelfTestSettings) -> str:
    client = Containerd(pipe_connector(settings.containerd))
    try:
        return await client.version()
    except ContainerdError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise SkipCheck(f"nobody listens at {settings.containerd}: no containerd") from error
        raise
    finally:
        client.close()


async def _layer(settings: SelfTestSettings) -> str:
    if not settings.parent:
        raise SkipCheck("--parent names no chain of a Windows image (`ctr -n hpcc snapshots ls`)")
    await _version(settings)
    now = dt.datetime.fromtimestamp(settings.clock.now(), dt.UTC)
    expires = now + dt.timedelta(hours=_LEASE_HOURS)
    # A different layer each time, so that one from an earlier run is not taken for an import.
    layer = build_windows_layer({"self-test.txt": secrets.token_bytes(16)})
    client = Containerd(pipe_connector(settings.containerd))
    try:
        await client.ensure_namespace()
        store = LayerStore(client, settings.snapshotter)
        name = await store.add(
            layer, settings.parent, now=now.isoformat(), expires=expires.isoformat()
        )
        await store.remove(name)
    finally:
        client.close()
    return f"{layer.diff_id} was imported on {settings.parent}"


async def _family(_: SelfTestSettings) -> str:
    try:
        hyperv_socket().close()
    except OSError as error:
        if error.errno == _NO_SUCH_FAMILY:
            raise SkipCheck("Hyper-V is not installed: there is no such family") from error
        raise
    return "a socket of the family was made, with its time limit"


async def _hcs(_: SelfTestSettings) -> str:
    systems = await ComputeService(load_computecore()).systems()
    return f"{len(systems)} compute systems were listed"


async def _jobs(settings: SelfTestSettings) -> str:
    if not settings.stub:
        raise SkipCheck("--stub names no hpcc-agent.exe")
    return await _end_a_tree(settings.stub)


async def _end_a_tree(stub: Sequence[str]) -> str:
    """Run a job, with a child in its own job, into its deadline."""
    with new_directory() as name:
        code, said = await run_program(
            [*stub, "run", "--timeout-ms", "3000", "--report", "report", "--",
             *stub, "run", "--", *stub, "pause"],
            Path(name),
        )  # fmt: skip
        words = (await in_thread(lambda: read_file(Path(name, "report"))))[:200].split()
    if code != _DEADLINE_CODE or words[:1] != [b"deadline"]:
        raise CheckFailed(f"status {code}, report {words!r} {said}")
    return "a job in a job ended with its tree at its deadline"


async def _deterministic(settings: SelfTestSettings) -> str:
    compiler = _compiler(settings)
    return await _compile_twice(compiler, "a.obj")


async def _object_name(settings: SelfTestSettings) -> str:
    compiler = _compiler(settings)
    return await _compile_twice(compiler, "")


def _compiler(settings: SelfTestSettings) -> str:
    found = shutil.which(settings.compiler)
    if found is None:
        raise SkipCheck(f"{settings.compiler} is not on PATH (start in a developer's prompt)")
    return found


async def _compile_twice(compiler: str, relative: str) -> str:
    """Compile one file in two directories; without `relative` the object's name is absolute."""
    objects = []
    with new_directory() as name:
        for place in ("one", "another"):
            root = await in_thread(partial(make_source, Path(name, place)))
            target = relative or str(root / "a.obj")
            code, said = await run_program(
                [compiler, "-nologo", "-c", "-Z7", "-experimental:deterministic",
                 f"-pathmap:{root}=.", "-Brepro", f"-Fo{target}", "a.c"],
                root,
            )  # fmt: skip
            if code:
                raise CheckFailed(f"status {code}: {said}")
            objects.append(await in_thread(partial(read_file, root / "a.obj")))
    if objects[0] != objects[1] or not objects[0]:
        raise CheckFailed("the objects of two directories differ")
    return f"two directories, {len(objects[0])} equal bytes"


def _on_guests(ask: Callable[[GuestChecks], Awaitable[str]]) -> _Run:
    """Return a check that needs guests."""

    async def run(settings: SelfTestSettings) -> str:
        if not settings.image or settings.layer is None:
            raise SkipCheck(
                "--image and --layer name no image of containerd's and no agent's layer"
            )
        return await ask(
            GuestChecks(
                image=ImageDigest(settings.image),
                layer=settings.layer,
                connect=pipe_connector(settings.containerd),
                clock=settings.clock,
                snapshotter=settings.snapshotter,
            )
        )

    return run


async def _service_table(settings: SelfTestSettings) -> str:
    if not settings.stub:
        raise SkipCheck("--stub names no hpcc-agent.exe")
    return await _on_guests(lambda checks: checks.rights(settings.stub))(settings)


async def _without_check(_: SelfTestSettings) -> str:
    raise SkipCheck(_NO_CHECK)


def _open(name: str, title: str, sentence: str) -> _Check:
    return _Check(name, title, sentence, _without_check)


CHECKS: Final[tuple[_Check, ...]] = (
    _Check(
        "layer-import",
        "the agent's layer is imported on an image's chain",
        "The agent's layer has not been imported by Windows.",
        _layer,
    ),
    _Check(
        "containerd-pipe",
        "containerd answers over its named pipe",
        "containerd has not been called over its named pipe.",
        _pipe,
    ),
    _Check(
        "containerd-version",
        "containerd's shim gives containers addresses",
        "The version gate has not met a containerd on Windows.",
        _gate,
    ),
    _Check(
        "hyperv-family",
        "Python makes a Hyper-V socket",
        "No Hyper-V socket has been made.",
        _family,
    ),
    _Check(
        "guid-dial",
        "the agent is dialled at its container's GUID",
        "No agent has been dialled at the address that follows from its container's id.",
        _on_guests(GuestChecks.address),
    ),
    _Check(
        "asyncio-without-nic",
        "asyncio starts in a container without a network",
        "Whether asyncio starts without a network interface is not known.",
        _on_guests(GuestChecks.answer),
    ),
    _Check(
        "service-table",
        "a dial without rights is refused",
        "Whether the service table's annotation is honoured is not known.",
        _service_table,
    ),
    _Check(
        "guest-bind",
        "the agent binds its socket as ContainerAdministrator",
        "No agent has bound its socket in a container.",
        _on_guests(GuestChecks.answer),
    ),
    _Check(
        "agent-start",
        "how long the agent takes to start",
        "How long a guest takes to start, and with how little memory, has not been measured.",
        _on_guests(GuestChecks.start),
    ),
    _Check(
        "job-objects",
        "a compile's processes end with its job",
        "Jobs in jobs have been ended only under Wine.",
        _jobs,
    ),
    _Check(
        "cl-deterministic",
        "cl makes equal objects in two directories",
        "cl.exe has not been run with the flags for equal objects.",
        _deterministic,
    ),
    _Check(
        "cl-object-name",
        "-pathmap reaches the object's own name in it",
        "Whether -pathmap reaches the name of the object in the object is not known.",
        _object_name,
    ),
    _Check(
        "process-exec",
        "a compile by Task.Exec in process isolation",
        "No compile has been run in process isolation.",
        _on_guests(GuestChecks.process),
    ),
    _Check(
        "vm-loss",
        "a utility VM that is killed is noticed, and its compile made elsewhere",
        "No utility VM has been killed under a compile.",
        _on_guests(GuestChecks.loss),
    ),
    _Check(
        "hcs-rights",
        "the worker's account may list utility VMs",
        "The Host Compute Service has not been asked for its list.",
        _hcs,
    ),
    _open(
        "vsmb-shares",
        "the shares of a guest's VM are Microsoft's boot files and the image's layers alone",
        "What a running guest's VM reads over VSMB has not been listed.",
    ),
)
