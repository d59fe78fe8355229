"""The key that signs what a person's commands make: evidence and results of reproductions."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import CallerError, NotFoundError
from hpcc.obs.text import plain


class MakerKey:
    """The key that signs evidence, and where its public half is."""

    def __init__(self, path: Path) -> None:
        from cryptography.hazmat.primitives import serialization

        from hpcc.evidence.keys import pem_of
        from hpcc.files.whole import Sync, write_whole
        from hpcc.identity.keys import load_or_create_signing_key

        key = load_or_create_signing_key(path)
        self.sign = key.sign
        self.public = key.public_key().public_bytes(
            serialization.Encoding.Raw, serialization.PublicFormat.Raw
        )
        self.public_file = path.with_name(f"{path.name}.pub")
        pem = pem_of(self.public)
        # Secrets of CI lie in directories that nobody can write.
        try:
            is_there = content_of(self.public_file, len(pem)) == pem
        except (NotFoundError, CallerError):
            is_there = False
        if is_there:
            return
        try:
            write_whole(self.public_file, pem, sync=Sync.CONTENT, mode=0o644)
        except OSError as error:
            what = f"{self.public_file} cannot be written ({error.strerror})"
            emit(f"hpcc: {plain(what)}: its text is maker.pem of the evidence", file=sys.stderr)


def signer_of(path: Path | None) -> MakerKey:
    """Return the key in a file, or this user's; one that does not exist is made."""
    return MakerKey(path or Paths.from_env(os.environ).state / "evidence" / "maker.key")


def content_of(path: Path, most: int) -> bytes:
    """Return a file of at most `most` bytes.

    Raises:
        NotFoundError: there is none.
        CallerError: it cannot be read, or is larger.
    """
    from hpcc.files import NONBLOCK, access_of

    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            if not access_of(descriptor).is_regular:
                raise CallerError(f"{path} is not a regular file")
            data = file.read(most + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"no file {path}") from error
    except OSError as error:
        raise CallerError(f"cannot read {path}: {error.strerror}") from error
    if len(data) > most:
        raise CallerError(f"{path} is larger than {most} bytes")
    return data
