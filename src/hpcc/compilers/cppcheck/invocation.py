"""From the command line of a cppcheck to an `Invocation`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from hpcc.compilers.cppcheck.options import CppcheckOptions, read_options
from hpcc.compilers.invocation.invocation import DepMode, Invocation, Language, Product
from hpcc.compilers.spec.table import Bypass


@dataclass(frozen=True, kw_only=True)
class CppcheckInvocation(Invocation):
    """A run of cppcheck over one source. `line` are its arguments, and `options` their meaning."""

    line: tuple[bytes, ...]
    options: CppcheckOptions

    @cached_property
    def arguments(self) -> tuple[bytes, ...]:
        return self.line

    @cached_property
    def include_dirs(self) -> tuple[bytes, ...]:
        return tuple(dict.fromkeys(self.options.directories))


def read_cppcheck(arguments: Sequence[bytes]) -> CppcheckInvocation | Bypass:
    """Return what the arguments of a cppcheck mean, or why the run is not cached."""
    options = read_options(arguments)
    if isinstance(options, Bypass):
        return options
    return CppcheckInvocation(
        language=Language.C if options.source.endswith(b".c") else Language.CXX,
        source=options.source,
        output=b"",
        dep_mode=DepMode.NONE,
        depfile=None,
        deps_by_wp=False,
        parts=(),
        is_native=False,
        product=Product.MESSAGES,
        line=tuple(arguments),
        options=options,
    )
