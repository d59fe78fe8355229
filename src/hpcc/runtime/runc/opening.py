"""Opens the container backend: checks containerd and runc, boots a probe guest, sweeps."""

from __future__ import annotations

from typing import Final

from hpcc.runtime.host.probe_check import check_probe
from hpcc.runtime.runc.backend import RuncRuntime
from hpcc.runtime.runc.tools import RuncConfig
from hpcc.runtime.vm.backend import LinuxBackend, RuntimeRequest


async def open_containers(request: RuntimeRequest) -> RuncRuntime:
    """Return a runtime whose probe guest answered, after a sweep of dead workers' containers.

    Raises:
        InfrastructureError: containers do not work here; the text says why and how to mend it.
    """
    config = RuncConfig(directory=request.guests, socket=request.containerd)
    runtime = RuncRuntime(config, request.assets, request.clock)
    # Before the sweep: its error names what is missing, where the sweep's would only report that
    # containerd does not answer.
    await check_probe(runtime, "containers do not work")
    await runtime.sweep()
    return runtime


# Without `offer`: containers share the host's kernel, so they run only where they were asked for.
BACKEND: Final = LinuxBackend(runtime=RuncRuntime, config=RuncConfig, open=open_containers)
