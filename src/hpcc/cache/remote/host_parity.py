"""Compares this machine's compiler with the farm's image; `HostFacts` of a POSIX client."""

from __future__ import annotations

import logging
import os
import posixpath
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from hpcc.cache.host.host_toolchains import RECHECK_SECONDS, HostToolchain, HostToolchains
from hpcc.cache.remote.client import ParityAnswer
from hpcc.config.farm import Farm
from hpcc.config.farm_session import FarmSession
from hpcc.core import ImageRef, Parity, Toolchain, compare
from hpcc.core.memo import BoundedMemo
from hpcc.dispatch.parity import ParityVerdict, parity_verdict

if TYPE_CHECKING:  # the client of Windows needs `Verdicts` only
    from hpcc.cache.key.prepare import Prepared

_log: Final = logging.getLogger("hpcc.daemon.farm")
_MAX_WARNED: Final = 64


class _Question(NamedTuple):
    """What a verdict depends on. Each object of it is made once and read many times."""

    farm: Farm
    session: FarmSession | None
    host: HostToolchain
    parity: Parity

    def is_same(self, other: _Question) -> bool:
        return (
            self.farm is other.farm
            and self.session is other.session
            and self.host is other.host
            and self.parity == other.parity
        )


class Verdicts:
    """What follows from each comparison; warns once of each difference. Thread-safe.

    `now` is the time in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._warned: BoundedMemo[str, None] = BoundedMemo(_MAX_WARNED)
        # One tuple, so that a thread reads or replaces question and verdict together.
        self._last: tuple[_Question, ParityVerdict] | None = None

    def answer(
        self, farm: Farm, session: FarmSession | None, host: HostToolchain, parity: Parity
    ) -> ParityAnswer:
        """Compare the host's compiler with the image's that the session tells about."""
        verdict = self._verdict(_Question(farm, session, host, parity))
        if verdict.warns or verdict.is_image_unknown:
            self._warn_once(verdict.text)
        # A verdict holds only until its session expires; the dispatcher then logs in again.
        is_current = session is not None and self._now() < session.expires_at
        refusal = verdict.text if verdict.refuses and is_current else ""
        is_exact = verdict.finding.is_exact and is_current
        return ParityAnswer(
            refusal, host.text, serves_stored=not verdict.refuses, is_exact=is_exact
        )

    def _verdict(self, question: _Question) -> ParityVerdict:
        known = self._last
        if known is not None and known[0].is_same(question):
            return known[1]
        farm, session, host, parity = question
        image = ImageRef.parse(farm.image)
        verdict = parity_verdict(session, parity, host.name, host.toolchain, image)
        self._last = (question, verdict)
        return verdict

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned[text] = None
            _log.warning("host compiler: %s", text)


class HostParity:
    """Describes the host's compilers and compares them. Thread-safe.

    `now` is the time in seconds since the epoch.
    """

    def __init__(self, now: Callable[[], float], monotonic: Callable[[], float]) -> None:
        self._verdicts, self._hosts = Verdicts(now), HostToolchains(monotonic)

    def parity(
        self,
        compile_: Prepared,
        farm: Farm,
        session: FarmSession | None,
        parity: Parity,
        is_cancelled: Callable[[], bool],
    ) -> ParityAnswer:
        """See `HostFacts.parity`."""
        if compile_.family.analyser is not None:
            return self._of_analyser(compile_, farm, session, is_cancelled)
        host = self._host(compile_, parity, is_cancelled)
        return self._verdicts.answer(farm, session, host, parity)

    def is_alike(
        self,
        prepared: Prepared,
        image: Sequence[Toolchain] | None,
        is_cancelled: Callable[[], bool],
    ) -> bool:
        """Tell whether the image is known to have this very compiler with these headers."""
        name = os.fsdecode(posixpath.basename(prepared.request.argv[0]))
        if not any(name in toolchain.names for toolchain in image or ()):
            return False
        host = self._host(prepared, "refuse", is_cancelled, recheck_seconds=0.0)
        return compare(name, host.toolchain, image).is_alike

    def _of_analyser(
        self,
        compile_: Prepared,
        farm: Farm,
        session: FarmSession | None,
        is_cancelled: Callable[[], bool],
    ) -> ParityAnswer:
        """Compare an analyser, whatever the setting is.

        An image is named by its digest, so what is known of it does not expire.
        """
        name = os.fsdecode(posixpath.basename(compile_.request.argv[0]))
        image = None if session is None else session.compilers
        is_open = session is None and not farm.engine
        if not is_open and not any(name in toolchain.names for toolchain in image or ()):
            return ParityAnswer()
        # Its report is not the image's word but this machine's, so its headers are looked at now.
        host = self._host(compile_, "refuse", is_cancelled, recheck_seconds=0.0)
        is_alike = compare(name, host.toolchain, image).is_alike
        return ParityAnswer(
            "", host.text, serves_stored=is_alike, is_exact=is_alike, is_open=is_open
        )

    def compared(self, prepared: Prepared) -> frozenset[bytes]:
        """Return the headers of the host that `parity` has compared with the image's."""
        request = prepared.request
        name = posixpath.basename(request.argv[0])
        return self._hosts.compared(request.compiler, name, prepared.identity.digest)

    def _host(
        self,
        prepared: Prepared,
        parity: Parity,
        is_cancelled: Callable[[], bool],
        *,
        recheck_seconds: float = RECHECK_SECONDS,
    ) -> HostToolchain:
        request = prepared.request
        name = posixpath.basename(request.argv[0])
        if parity == "ignore":
            return HostToolchain(os.fsdecode(name), None, "")
        path = request.env.get(b"PATH", b"")
        identity = prepared.identity.digest
        return self._hosts.of(
            request.compiler, name, identity, path, is_cancelled, recheck_seconds=recheck_seconds
        )
