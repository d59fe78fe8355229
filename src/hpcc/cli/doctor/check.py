"""One line of `hpcc doctor`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from hpcc.config.paths import Paths

State = Literal["ok", "degraded", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorCheck:
    """One line of the answer; `is_local` marks what the local cache needs."""

    name: str
    state: State
    detail: str
    cost: str = ""
    remedy: str = ""
    is_local: bool = False


Check = Callable[[Paths], Awaitable[DoctorCheck]]
"""Makes one line. An `HpccError` or `OSError` becomes the line's detail."""
