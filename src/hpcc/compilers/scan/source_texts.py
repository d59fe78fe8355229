"""What the include walk needs of a file system."""

from __future__ import annotations

from typing import Protocol

from hpcc.compilers.scan.includes import Includes
from hpcc.compilers.scan.questions import Definitions, Questions


class SourceTree(Protocol):
    """The file system for the walk. Paths are absolute. May raise `UnscannableError`."""

    def includes(self, path: bytes) -> Includes:
        """Return the include lines of a file."""
        ...

    def definitions(self, path: bytes, names: frozenset[bytes]) -> Definitions:
        """Return a file's definitions of these macros."""
        ...

    def system_definitions(self, names: frozenset[bytes]) -> Definitions:
        """Return the system headers' definitions of these macros."""
        ...

    def uses(self, path: bytes, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        """Return what a file asks `__has_include` through these macros."""
        ...

    def system_uses(self, synonyms: frozenset[bytes], aliases: frozenset[bytes]) -> Questions:
        """Return what the system headers ask through these macros."""
        ...

    def names(self, directory: bytes) -> frozenset[bytes] | None:
        """Return the names in a directory; None when it does not exist."""
        ...

    def is_file(self, path: bytes) -> bool:
        """Return whether the path is a file and not a directory."""
        ...

    def is_link(self, path: bytes) -> bool:
        """Return whether the last component of a directory's path is a link."""
        ...

    def system(
        self, names: frozenset[bytes]
    ) -> tuple[frozenset[bytes], frozenset[bytes], Questions]:
        """Return what system headers, reached by these names, look up in turn.

        These are names, macros in place of names, and questions through macros.
        """
        ...
