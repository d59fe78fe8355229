"""Files that arguments come from: response files, compilation databases, maps of modules."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from typing import NamedTuple

from hpcc.cache.base.files import Signature, signature_of
from hpcc.cache.base.path_stability import leads_to_a_process
from hpcc.cache.base.uncacheable import absolute
from hpcc.compilers.spec.response import MAX_RESPONSE_BYTES


class ResponseFile(NamedTuple):
    """A response file as its arguments were read: absolute path, stat and SHA-256."""

    path: bytes
    signature: Signature
    digest: bytes


def response_reader(cwd: bytes, found: list[ResponseFile]) -> Callable[[bytes], bytes | None]:
    """Return a function that reads such a file, relative to `cwd`, and adds it to `found`.

    It returns at most `MAX_RESPONSE_BYTES` + 1 bytes, None if the file cannot be read.
    """

    def read(name: bytes) -> bytes | None:
        path = absolute(cwd, name)
        if leads_to_a_process(path):
            return None
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError):
            return None
        with open(fd, "rb") as file:
            try:
                status = os.fstat(fd)
                content = file.read(MAX_RESPONSE_BYTES + 1)
            except OSError:
                return None
        found.append(ResponseFile(path, signature_of(status), hashlib.sha256(content).digest()))
        return content

    return read
