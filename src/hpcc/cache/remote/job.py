"""A compile for a farm, with the key under which its result is stored.

The key names the image in place of the host's compiler, so remote and local results never mix.
"""

from __future__ import annotations

import hashlib
import posixpath
from dataclasses import dataclass
from typing import Final

from hpcc.cache.base.fields import encode_fields
from hpcc.cache.key.environment import MEANT_FOR_HERE
from hpcc.cache.key.prepare import Prepared
from hpcc.cache.remote.farm_root import FarmRoot, farm_root
from hpcc.compilers.invocation.guest import GuestMap, NotPortableError
from hpcc.config.farm import Farm
from hpcc.core import ImageRef
from hpcc.core.reasons.fallback import FallbackReason

KEY_FORMAT: Final = b"remote-8"
_GUEST_ENV: Final = {b"LC_ALL": b"C.UTF-8", b"PATH": b"/usr/local/bin:/usr/bin:/bin"}
_ALLOWED_ENV: Final = (b"SOURCE_DATE_EPOCH",)
# These change which files are found or what is printed, and mean nothing in the guest.
_REFUSED_ENV: Final = (
    b"CPATH",
    b"C_INCLUDE_PATH",
    b"CPLUS_INCLUDE_PATH",
    b"OBJC_INCLUDE_PATH",
    b"OBJCPLUS_INCLUDE_PATH",
    b"GCC_EXEC_PREFIX",
    b"COMPILER_PATH",
)


@dataclass(frozen=True, slots=True)
class RemoteJob:
    """One compile, the project's root and the key."""

    prepared: Prepared
    root: FarmRoot
    key: bytes


def remote_job(prepared: Prepared, farm: Farm, home: bytes) -> RemoteJob:
    """Return the job of a compile; the search for a root ends at `home`."""
    root = farm_root(prepared, home)
    return RemoteJob(prepared, root, remote_key(prepared, farm, root))


def remote_key(prepared: Prepared, farm: Farm, root: FarmRoot) -> bytes:
    """Return the key (SHA-256) of a compile on a farm; it names the image, not a host compiler."""
    request = prepared.request
    return hashlib.sha256(
        encode_fields(
            [
                KEY_FORMAT,
                ImageRef.parse(farm.image).digest.value.encode(),
                farm.isolation.encode(),
                farm.tenant.encode(),
                root.path,
                root.shown,
                prepared.native,
                request.cwd,
                request.env.get(b"SOURCE_DATE_EPOCH", b"-"),
                posixpath.basename(request.argv[0]),
                *prepared.invocation.arguments,
                *prepared.family.search_values(request.env),
            ]
        )
    ).digest()


def guest_environment(prepared: Prepared, guest: GuestMap) -> dict[bytes, bytes]:
    """Return the guest's environment.

    Raises:
        NotPortableError: a variable has a meaning only on this machine.
    """
    env = prepared.request.env
    if not MEANT_FOR_HERE.isdisjoint(env) or any(name in env for name in _REFUSED_ENV):
        raise NotPortableError(FallbackReason.ENVIRONMENT)
    own = {n: env[n] for n in _ALLOWED_ENV if n in env}
    return {**_GUEST_ENV, **own, **prepared.family.guest_environment(env, guest)}
