"""What a compile asks its compiler before the files that it read can be listed."""

from __future__ import annotations

from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.host.identity import Compilers
from hpcc.cache.key.prepare import Prepared
from hpcc.core.reasons.uncacheable import UncacheableReason


class SearchPaths:
    """The directories that compilers search. Thread-safe like `Compilers`, which remembers them."""

    def __init__(self, compilers: Compilers) -> None:
        self._compilers = compilers

    def of(self, prepared: Prepared) -> tuple[bytes, ...]:
        """Return every directory in which the compiler may look up an include.

        Raises:
            UncacheableError: the compiler did not print its search path.
        """
        try:
            own = self._compilers.search_path(
                prepared.identity,
                prepared.family,
                prepared.request.compiler,
                prepared.invocation,
                prepared.request.env,
                prepared.cwd,
            )
        except OSError as error:
            raise UncacheableError(UncacheableReason.SEARCH_PATH) from error
        return (*prepared.invocation.include_dirs, *own)

    def config_names(self, prepared: Prepared) -> tuple[bytes, ...]:
        """Return the paths where the driver looks for configuration files.

        Raises:
            UncacheableError: the compiler did not print where it looks.
        """
        try:
            return self._compilers.config_names(
                prepared.identity,
                prepared.family,
                prepared.request.compiler,
                prepared.invocation,
                prepared.request.env,
                prepared.cwd,
            )
        except OSError as error:
            raise UncacheableError(UncacheableReason.SEARCH_PATH) from error
