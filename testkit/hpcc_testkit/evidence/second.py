"""The second check of evidence, in Go: built once, and asked beside hpcc's own.

It was made from docs/spec/evidence.md and docs/spec/audit.md. Where the two checks differ, one of
them or a page is wrong.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from hpcc.audit.tree.head import ORIGIN
from hpcc.audit.tree.note import NoteKey
from hpcc.evidence.keys import MAKER, PinnedKeys

SOURCE: Final = Path(__file__).resolve().with_name("second_check")


def go_or_none() -> Path | None:
    """Return the Go command: that of `tools/bootstrap.sh go`, or the system's."""
    own = _cache() / "go/usr/lib/go/bin/go"
    found = shutil.which("go")
    return own if own.is_file() else Path(found) if found else None


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base, "hpcc-tests")


class SecondCheck:
    """The program, running: each call is a line."""

    def __init__(self, directory: Path) -> None:
        """Build the program in a directory and start it.

        Raises:
            subprocess.CalledProcessError: it does not build.
        """
        self._directory = directory
        program, go = directory / "second", go_or_none()
        assert go is not None
        caches = {"GOCACHE": str(_cache() / "go-build"), "GOPATH": str(directory / "go-path")}
        fixed = {
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "-mod=mod",
            "GOPROXY": "off",
            "CGO_ENABLED": "0",
        }
        env: Mapping[str, str] = {"PATH": os.environ["PATH"], "HOME": str(directory)}
        subprocess.run(
            [go, "build", "-o", program, "."],
            cwd=SOURCE, env={**env, **caches, **fixed}, check=True, timeout=600,
        )  # fmt: skip
        self._process = subprocess.Popen(
            [program, "-"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(timeout=60)

    def evidence(self, data: bytes, file: Path, pinned: PinnedKeys) -> tuple[int, str]:
        """Return the exit status about an evidence file, and why."""
        path, keys = self._directory / "asked.zip", self._directory / "asked.keys"
        path.write_bytes(data)
        named = [NoteKey(MAKER, key) for key in pinned.makers]
        named += [NoteKey(ORIGIN + word, key) for word, key in pinned.workers.items()]
        keys.write_text("".join(f"{key.text()}\n" for key in named))
        return self._ask("evidence", path, file, keys)

    def history(self, lines: bytes) -> tuple[int, str]:
        """Return the exit status about heads that a scheduler holds, and why."""
        path = self._directory / "asked.jsonl"
        path.write_bytes(lines)
        return self._ask("history", path)

    def _ask(self, *words: object) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(word) for word in words]) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("status "):
                _, status, why = line.rstrip("\n").split(" ", 2)
                return int(status), why
        raise AssertionError("the second check ended")
