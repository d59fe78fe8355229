"""Foreign tools that check evidence: cosign and openssl, each as a command."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path


def cosign_or_none() -> Path | None:
    """Return cosign: that of `tools/bootstrap.sh cosign`, or the system's."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    own = Path(base, "hpcc-tests", "cosign", "cosign")
    found = shutil.which("cosign")
    return own if own.is_file() else Path(found) if found else None


def cosign_accepts(envelope: Path, key: Path, kind: str, blob: Path) -> bool:
    """Return whether cosign accepts a statement about a file."""
    program = cosign_or_none()
    assert program is not None
    done = subprocess.run(
        [
            program, "verify-blob-attestation", "--key", key, "--insecure-ignore-tlog", "--type",
            kind, "--signature", envelope, blob,
        ],
        check=False, capture_output=True, timeout=120,
        env={"HOME": str(envelope.parent), "PATH": os.environ["PATH"]},
    )  # fmt: skip
    return done.returncode == 0 and b"Verified OK" in done.stderr


def openssl_accepts(message: bytes, signature: bytes, key: Path, directory: Path) -> bool:
    """Return whether openssl accepts an Ed25519 signature."""
    (directory / "message").write_bytes(message)
    (directory / "sig").write_bytes(signature)
    done = subprocess.run(
        [
            "openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", key, "-in",
            directory / "message", "-sigfile", directory / "sig",
        ],
        check=False, capture_output=True, timeout=60,
    )  # fmt: skip
    return done.returncode == 0
