"""The outline of a command: enough to see how two commands differ, without values and paths.

See `hpcc.cache.signed.outline` for its use. Two bytes of a hash stand for each flag with its value:
enough to see that they differ, and too few to try values against.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hpcc.cache.base.fields import encode_fields
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.spec.table import Flag

if TYPE_CHECKING:
    from hpcc.cache.key.prepare import Prepared

_FORMAT: Final = b"command-outline-1"
MAX_FLAGS: Final = 512
_VALUE_BYTES: Final = 2
_ROOT: Final = b"\0"
# What may be printed of another machine's flags.
FLAG_NAME: Final = re.compile(rb"-[A-Za-z0-9+,_-]{0,47}")


class CommandOutline(NamedTuple):
    """A command: `name` (SHA-256) of the object where its outlines are, flags, and the rest.

    `flags` are pairs of a flag's spelling and a truncated hash of it with its value.
    """

    name: bytes
    flags: tuple[tuple[bytes, bytes], ...]
    directory: bytes
    environment: bytes

    def object_name(self, namespace: str) -> str:
        """Return the name of the object with the outlines."""
        place = hashlib.sha256(encode_fields([_FORMAT, namespace.encode(), self.name])).hexdigest()
        return f"v1/{namespace}/outlines/{place[:2]}/{place}"

    def table(self) -> dict[str, Any]:
        """Return the same for a record of a compile, as JSON."""
        return {
            "name": self.name.hex(),
            "flags": [[name.decode("ascii"), value.hex()] for name, value in self.flags],
            "directory": self.directory.hex(),
            "environment": self.environment.hex(),
        }


def outline_command(prepared: Prepared) -> CommandOutline | None:
    """Outline the command of a compile that is shared; None for another one."""
    share, invocation, request = prepared.share, prepared.invocation, prepared.request
    if share is None:
        return None
    root, checkout = share.checkout.root, share.checkout
    source = checkout.mark(posixpath.normpath(prepared.source))
    fields = [_FORMAT, source, posixpath.basename(request.compiler)]
    name = hashlib.sha256(encode_fields(fields)).digest()
    return outline_parts(
        name, invocation, root, checkout.mark(request.cwd), encode_fields(prepared.rest)
    )


def outline_parts(
    name: bytes, invocation: Invocation, root: bytes, directory: bytes, environment: bytes
) -> CommandOutline | None:
    """Outline a command under a name; None if it has too many flags.

    In values of flags `root` is replaced by a mark. `directory` and `environment` are hashed.
    """
    flags = invocation.flags
    if len(flags) > MAX_FLAGS:
        return None
    return CommandOutline(
        name,
        tuple(
            (_name(flag), short_hash(b"flag", name + _marked(flag, root), _VALUE_BYTES))
            for flag in flags
        ),
        short_hash(b"directory", name + directory, _VALUE_BYTES),
        short_hash(b"environment", name + environment, _VALUE_BYTES),
    )


def _name(flag: Flag) -> bytes:
    name = flag.spec.spelling.encode("ascii", "replace")
    return name if FLAG_NAME.fullmatch(name) else b"-"


def _marked(flag: Flag, root: bytes) -> bytes:
    return encode_fields(piece.replace(root, _ROOT) for piece in flag.raw)


def short_hash(kind: bytes, data: bytes, size: int) -> bytes:
    """Return the start of a hash of data of one kind."""
    return hashlib.sha256(b"hpcc outline " + kind + b"\0" + data).digest()[:size]


def command_of_table(table: object) -> CommandOutline | None:
    """Read what `CommandOutline.table` wrote; None if it is damaged."""
    if not isinstance(table, dict):
        return None
    try:
        pairs = [(str(n).encode("ascii"), bytes.fromhex(v)) for n, v in table["flags"]]
        name, directory, environment = (
            bytes.fromhex(table[key]) for key in ("name", "directory", "environment")
        )
    except (KeyError, TypeError, ValueError):
        return None
    return CommandOutline(name, tuple(pairs), directory, environment)
