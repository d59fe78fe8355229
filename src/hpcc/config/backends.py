"""The names of guest backends, as `worker.runtime` spells them.

This is the only list of names. Settings and a worker's configuration accept exactly these values.
`hpcc.runtime.registry.table` maps them to implementations.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Backend = Literal["auto", "qemu", "firecracker", "process", "hyperv"]
# In the order of messages.
BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
