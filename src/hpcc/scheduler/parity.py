"""Compares a client's compilers with the image's, only for the operator's log."""

from __future__ import annotations

import logging
from typing import Final

from hpcc.core import HostReport, ImageToolchains, TenantId, compare

_log: Final = logging.getLogger(__name__)


def note_parity(tenant: TenantId, host: HostReport, image: ImageToolchains | None) -> None:
    """Log which of a client's compilers differ. No decision rests on what a client reports."""
    for toolchain in host.compilers:
        name = toolchain.names[0]
        finding = compare(name, toolchain, None if image is None else image.compilers)
        if finding.level.differs:
            _log.info(
                "parity tenant=%s image=%s compiler=%s level=%s host=%s there=%s",
                tenant, host.image.digest, name, finding.level, toolchain, finding.image,
            )  # fmt: skip
