"""Keeps what a farm's image made for a Windows client, so that a repeated compile asks nobody.

A result is under a key of the farm, its image and tenant, the root, the command and this machine's
compiler, which listed the headers. With the same inputs the same request would be sent, so its
answer is served. The inputs are all files that were sent, and those of the local cache (`keeping`):
this machine's headers of the system are among them, although the guest has read the image's. Never
is such a result under a key of the local cache, nor a local one here.

A copy counts only as long as its basis does; see `hpcc.cache.farm_results`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import threading
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hpcc.cache.base.api import Done
from hpcc.cache.base.counters import Counters
from hpcc.cache.base.fields import encode_fields
from hpcc.cache.base.uncacheable import UncacheableError
from hpcc.cache.remote.cl_client import Outputs
from hpcc.cache.remote.cl_plan import ClJob, ClPlan
from hpcc.cache.results.records import Records
from hpcc.cache.results.results import Found, Result, basis_origin, counts_under
from hpcc.cache.windows.command import WindowsCompile, read_compile
from hpcc.cache.windows.disk import CacheDisk
from hpcc.cache.windows.notes import noted
from hpcc.cache.windows.sharing import SharedCompile
from hpcc.cache.windows.state import State
from hpcc.compilers.invocation.guest import NotPortableError
from hpcc.compilers.spec.table import Bypass
from hpcc.core.basis import FarmTerms
from hpcc.core.reasons.uncacheable import UncacheableReason

if TYPE_CHECKING:
    from hpcc.cache.windows.keeping import Began, ResultKeeper

_log: Final = logging.getLogger("hpcc.daemon.cl")
_KEY_FORMAT: Final = b"windows-farm-1"
_HIT: Final = "hit.remote"


class LocalFiles(Protocol):
    """What the local cache does with files; see `local.WindowsCache`."""

    def find_under(self, asked: SharedCompile, key: bytes, state: State) -> Found | None:
        """Return the result under one key whose inputs are those of now."""
        ...

    def place(self, compiled: WindowsCompile, found: Found) -> bool:
        """Put a result's outputs in place; False and counted if only the compiler may write."""
        ...

    def write(self, path: str, data: bytes) -> None:
        """Write an output; running compiles of the same file learn of it. Raises OSError."""
        ...

    def began(self, compiled: WindowsCompile) -> Began:
        """Note what is so when a compile begins."""
        ...


class _Begun(NamedTuple):
    """A compile for which there was no result."""

    job: ClJob
    compiled: WindowsCompile
    key: bytes
    began: Began


class ImageResultStore:
    """See `cl_client.ImageResults`. Thread-safe."""

    def __init__(
        self,
        disk: CacheDisk,
        files: LocalFiles,
        keeper: ResultKeeper,
        counters: Counters,
        records: Records,
    ) -> None:
        self._disk, self._files, self._keeper = disk, files, keeper
        self._counters, self._records = counters, records
        self._thread = threading.local()  # one thread handles a compile from its begin to its end

    def write(self, path: str, data: bytes) -> None:
        """See `cl_client.ImageResults.write`. A link is the compiler's to write through."""
        times, entry = self._disk.times(path, is_at_rest=False), self._disk.look(path)
        is_link = entry is not None and entry.is_link  # also one that leads nowhere
        if is_link or (times is not None and not (times.is_plain and times.links == 1)):
            raise OSError(errno.EPERM, "it is a link, read-only or no file", path)
        self._files.write(path, data)

    def stored(self, job: ClJob, terms: FarmTerms) -> Done | None:
        """See `cl_client.ImageResults.stored`."""
        self._thread.begun = None
        compiled = read_compile(self._disk, job.request)
        if isinstance(compiled, Bypass) or compiled.precompiled:
            return None
        key = hashlib.sha256(encode_fields([_KEY_FORMAT, job.key, compiled.key])).digest()
        asked = SharedCompile(compiled)
        found = self._files.find_under(asked, key, State(self._disk))
        if found is None or not counts_under(found.result, terms):
            self._thread.begun = _Begun(job, compiled, key, self._files.began(compiled))
            return None
        if not self._files.place(compiled, found):
            return None
        result = found.result
        self._counters.add(_HIT)
        self._counters.add("bytes.served", result.size_bytes)
        self._records.hit(noted(asked), key, _HIT, size_bytes=result.size_bytes)
        return Done(0, result.stdout, result.stderr)

    def keep(self, job: ClJob, plan: ClPlan, done: Done, basis: str, outputs: Outputs) -> None:
        """See `cl_client.ImageResults.keep`."""
        begun: _Begun | None = getattr(self._thread, "begun", None)
        self._thread.begun = None
        if begun is None or begun.job is not job:
            return
        compiled = begun.compiled
        if outputs.keys() != {str(path) for path in compiled.outputs}:
            return
        made = outputs[str(compiled.output)]
        depfile = None if compiled.depfile is None else outputs[str(compiled.depfile)]
        origin = basis_origin(basis) if basis else b""
        result = Result(made, depfile, done.stdout, done.stderr, (), origin)
        sent = {i.host_path.encode(): bytes.fromhex(i.sha256) for i in plan.request.inputs}
        try:
            self._keeper.keep_image(compiled, begun.began, begun.key, plan.files, result, sent)
        except UncacheableError as error:
            self._counters.add(f"uncacheable.{error.reason}")
        except NotPortableError:
            self._counters.add(f"uncacheable.{UncacheableReason.DEPENDENCIES_FAILED}")
        except Exception:  # noqa: BLE001 - the compile succeeded; only its result is not kept
            _log.exception("a result of the farm cannot be kept")
            self._counters.add(f"uncacheable.{UncacheableReason.INTERNAL_ERROR}")
