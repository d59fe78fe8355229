"""Files with which a service connects to a receiver of its events: roots of trust and secrets.

A message names the setting and the file, and never shows what the file holds.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.core import CallerError
from hpcc.files import NONBLOCK, access_of, open_file, privacy_remedy

if TYPE_CHECKING:
    import ssl


def tls_context(ca_file: str, setting: str) -> ssl.SSLContext:
    """Return a client's context of TLS 1.2 or newer. It trusts the file's roots; "": the system's.

    Raises:
        CallerError: the file that `setting` names cannot be used.
    """
    import ssl  # late: most who read a config file connect to nothing

    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # also ssl.SSLError
        raise CallerError(
            f"{setting}: {ca_file} holds no certificates in PEM: {error.strerror}", reason="config"
        ) from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def read_private(path: Path, setting: str, limit: int) -> bytes:
    """Return at most `limit` bytes of a file that nobody else can read.

    Raises:
        CallerError: the file cannot be read, is none, is larger, or others can read it.
    """
    try:
        descriptor = open_file(path, os.O_RDONLY | NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            access = access_of(descriptor)
            raw = file.read(limit + 1) if access.is_regular else b""
    except OSError as error:
        raise CallerError(
            f"{setting}: cannot read {path}: {error.strerror}", reason="config"
        ) from error
    if not access.is_regular or not access.is_private:
        raise CallerError(
            f"{setting}: others can read {path}: {privacy_remedy(path)}", reason="config"
        )
    if len(raw) > limit:
        raise CallerError(f"{setting}: {path} is too large", reason="config")
    return raw
