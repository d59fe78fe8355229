"""Stamp clocks for tests whose outcome must not depend on the machine's kernel and file systems."""

from __future__ import annotations

import os

from hpcc.cache.base.stamps import Distance, KernelClock


class TrustedClock(KernelClock):
    """The kernel's clock, believed on every file system: the tests' directory may be on any.

    `knows_files`: false for a machine on which every file system is an unknown one.
    """

    def __init__(self, *, knows_files: bool = True) -> None:
        super().__init__()
        self.knows_files = knows_files
        self.set_by_ns = 0

    def device(self, directory: bytes) -> int | None:
        """Return the directory's device, whatever file system it has."""
        return os.stat(directory).st_dev if self.knows_files else None

    def distance(self) -> Distance:
        """Return the real distance, shifted by what a test set the clock by."""
        low, high = super().distance()
        return low + self.set_by_ns, high + self.set_by_ns
