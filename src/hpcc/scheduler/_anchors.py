"""Where each worker's audit chain ended when last heard of: shows a tail that was cut."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from hpcc.core import InfrastructureError


class AnchorStore:
    """Counts and heads by worker, in SQLite."""

    def __init__(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._db = sqlite3.connect(path)
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS anchor (worker TEXT PRIMARY KEY, count INTEGER"
                " NOT NULL, head TEXT NOT NULL, at REAL NOT NULL) STRICT"
            )
            self._db.commit()
        except (OSError, sqlite3.Error) as error:
            raise InfrastructureError(f"cannot open {path}: {error}", reason="anchors") from error

    def note(self, worker: str, count: int, head: str, at: float) -> bool:
        """Keep an anchor; False when the chain is shorter than it was or changed at its end."""
        row = self._db.execute(
            "SELECT count, head FROM anchor WHERE worker = ?", (worker,)
        ).fetchone()
        if row is not None and (count < row[0] or (count == row[0] and head != row[1])):
            return False
        if row is None or row[0] != count:
            with self._db:
                self._db.execute(
                    "INSERT OR REPLACE INTO anchor (worker, count, head, at) VALUES (?, ?, ?, ?)",
                    (worker, count, head, at),
                )
        return True

    def close(self) -> None:
        self._db.close()
