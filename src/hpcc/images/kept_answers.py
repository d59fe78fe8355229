"""Reads and writes the files beside an image that hold its compilers' answers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hpcc.core import ImageDigest, Toolchain
from hpcc.images.survey import Survey, read_survey, write_survey
from hpcc.images.toolchains import read_toolchains, write_toolchains


class KeptAnswers:
    """Reads and writes the answers of one image.

    The `compilers` file holds the compilers of an image that was understood. The `asked` file
    holds the last survey that was not understood, for people to read. No decision uses it: the
    next worker asks such an image again.
    """

    def __init__(self, stem: Path, digest: ImageDigest) -> None:
        self._compilers = stem.with_name(f"{stem.name}.compilers")
        self._asked = stem.with_name(f"{stem.name}.asked")
        self._digest = digest

    def toolchains(self) -> tuple[Toolchain, ...] | None:
        """Return the compilers of an image that was understood, else None."""
        return read_toolchains(self._compilers, self._digest)

    def not_understood(self) -> Survey | None:
        """Return the last survey if it did not lead to an understood image, else None."""
        return read_survey(self._asked, self._digest) if self.toolchains() is None else None

    def keep(self, survey: Survey, asked_at: float) -> None:
        """Write a survey, as compilers only if the image was understood.

        `asked_at` is in seconds since the epoch.

        Raises:
            OSError: it cannot be written.
        """
        if survey.is_understood:
            write_toolchains(self._compilers, self._digest, survey.compilers)
            self._asked.unlink(missing_ok=True)
        else:
            write_survey(self._asked, self._digest, replace(survey, asked_at=asked_at))

    def remove(self) -> None:
        """Delete both files."""
        self._compilers.unlink(missing_ok=True)
        self._asked.unlink(missing_ok=True)
