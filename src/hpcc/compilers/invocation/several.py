"""A command line with several sources, as one command line per source."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Final

# Larger projects compile their sources one by one.
MAX_SOURCES: Final = 256


@dataclass(frozen=True, slots=True)
class SeveralSources:
    """Arguments without argv[0]; `places` are the positions of the sources in them, in order."""

    arguments: tuple[bytes, ...]
    places: tuple[int, ...]

    def only(self, chosen: Container[int]) -> tuple[bytes, ...]:
        """Return the arguments with all flags and only these sources, which count from 0."""
        left_out = {place for n, place in enumerate(self.places) if n not in chosen}
        return tuple(text for n, text in enumerate(self.arguments) if n not in left_out)
