"""How `hpcc audit hold` and `retire` talk to the worker of a machine: files in its state directory.

The command writes `NAME.statement`; the worker obeys it, writes `NAME.answer` and removes the
statement. Who can write there is the worker's user or root, and proves nothing by it: what counts
are the signatures in the statement. A statement for a worker that does not run waits for its start.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from hpcc.audit.base.retention_statement import MAX_STATEMENT_BYTES
from hpcc.config.private_file import write_private_file
from hpcc.config.service_file import load_service_file
from hpcc.core import CallerError
from hpcc.files import NONBLOCK, access_of, open_file

DIRECTORY: Final = "retention"
_NAME: Final = re.compile(r"([0-9a-f]{16})\.(statement|answer)")
# More at once are of nobody who means it; the rest waits for the next look.
_MOST: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionAnswer:
    """What became of a statement: `error` is empty if it counts. `records` are in the trail now."""

    error: str
    records: int


class RetentionFiles:
    """Both ends: the command writes statements, the worker reads and answers. Its methods block."""

    def __init__(self, state: Path) -> None:
        self._directory = state / DIRECTORY

    def write(self, envelope: bytes) -> str:
        """Write a statement; return its name.

        Raises:
            InfrastructureError: it cannot be written.
        """
        name = secrets.token_hex(8)
        write_private_file(self._directory / f"{name}.statement", envelope)
        return name

    def answer_or_none(self, name: str) -> RetentionAnswer | None:
        """Return the answer, and remove it; None if there is none yet.

        Raises:
            CallerError: it is malformed.
        """
        path = self._directory / f"{name}.answer"
        try:
            answer = load_service_file(path, RetentionAnswer)
        except CallerError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        path.unlink(missing_ok=True)
        return answer

    def path(self, name: str) -> Path:
        """Return the path of a statement."""
        return self._directory / f"{name}.statement"

    def clear(self) -> None:
        """Remove answers that nobody read. Statements stay.

        Raises:
            OSError: one stays.
        """
        for path, kind in self._found():
            if kind == "answer":
                path.unlink(missing_ok=True)

    def waiting(self) -> list[str]:
        """Return the names of statements that wait, some of them if there are very many.

        Raises:
            OSError: the directory cannot be read.
        """
        return [path.stem for path, kind in self._found() if kind == "statement"][:_MOST]

    def _found(self) -> list[tuple[Path, str]]:
        try:
            with os.scandir(self._directory) as entries:
                # Nothing else is read, and nothing else stands in the way of a statement.
                names = sorted(e.name for e in entries if e.is_file(follow_symlinks=False))
        except FileNotFoundError:
            return []
        found = [(self._directory / name, _NAME.fullmatch(name)) for name in names]
        return [(path, match[2]) for path, match in found if match]

    def read(self, name: str) -> bytes:
        """Return a statement, at most one byte more than one can have.

        Raises:
            OSError: it cannot be read, or is not a regular file.
        """
        descriptor = open_file(self.path(name), os.O_RDONLY | NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not access_of(descriptor).is_regular:
                raise OSError(f"{name} is not a regular file")
            return file.read(MAX_STATEMENT_BYTES + 1)

    def answer(self, name: str, answer: RetentionAnswer) -> None:
        """Write an answer, and remove the statement.

        Raises:
            InfrastructureError: the answer cannot be written.
            OSError: the statement cannot be removed.
        """
        try:
            write_private_file(
                self._directory / f"{name}.answer", json.dumps(asdict(answer)).encode()
            )
        finally:
            with suppress(FileNotFoundError):
                self.path(name).unlink()
