"""Lets a caller wait for colleagues who make the same, before it makes it again.

Two people who execute an action may agree, and then a third one hits. If all three ask at the same
moment, the third execution is a waste. So while as many trust domains execute an action as have to
agree, others wait for them, for a bounded time, and look again after each outcome. So an action
that is never agreed on does not run for all of them at once. Whose time is over executes: nobody
depends on a colleague's compile.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from hpcc.core import Digest
from hpcc.worker.base.domain import TrustDomain


@dataclass(slots=True, eq=False)
class _Action:
    """Who makes an action: executes it, or has a result that is being published."""

    makers: list[TrustDomain] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class TenantExecutions:
    """The actions that a tenant's members execute now. Belongs to one event loop."""

    def __init__(self) -> None:
        self._actions: dict[tuple[TrustDomain, Digest], _Action] = {}

    @contextmanager
    def making(self, domain: TrustDomain, action: Digest) -> Generator[None]:
        """Count an execution, or the publication of its result, while the block runs."""
        key = domain.common, action
        found = self._actions.setdefault(key, _Action())
        found.makers.append(domain)
        try:
            yield
        finally:
            found.makers.remove(domain)
            found.changed.set()
            found.changed = asyncio.Event()
            if not found.makers:
                del self._actions[key]

    def is_full(self, domain: TrustDomain, action: Digest, most: int) -> bool:
        """Return whether `most` other trust domains make an action, and this one does not."""
        found = self._actions.get((domain.common, action))
        makers = set(found.makers) if found is not None else set()
        return domain not in makers and len(makers) >= most

    async def wait(self, domain: TrustDomain, action: Digest, *, most: int, seconds: float) -> bool:
        """If `is_full`, wait until those who make it have, for at most `seconds`.

        Return whether it was full. Who begins meanwhile is not waited for.
        """
        if not self.is_full(domain, action, most):
            return False
        key = domain.common, action
        awaited = set(self._actions[key].makers)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while (found := self._actions.get(key)) and not awaited.isdisjoint(found.makers):
                    await found.changed.wait()
        return True
