"""Objects as files in a shared directory, which may be on a file server that hangs."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hpcc.core import InfrastructureError, IntegrityError, NotFoundError
from hpcc.files.whole import Sync, whole_file
from hpcc.store.objects import checked_key, too_large

_READ_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_SEARCH_FLAGS: Final = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_FILE_BITS: Final = 0o666
_DIRECTORY_BITS: Final = 0o2777


class DirectoryObjects:
    """`Objects` in the files below `base`, which must exist. Calls run in threads.

    A file server that does not answer blocks a thread beyond every time limit. So at most
    `max_calls` are in use, the others fail at once, and none keeps the process from ending.
    """

    def __init__(self, base: Path, *, max_calls: int) -> None:
        self._base = base
        self._slots = threading.Semaphore(max_calls)

    async def get(self, key: str, limit: int) -> bytes:
        path = self._base / checked_key(key)

        def read() -> bytes:
            try:
                return _read(path, limit)
            except FileNotFoundError as error:
                self._check_base()
                raise NotFoundError("no such object") from error

        return await self._in_thread(read)

    async def put(self, key: str, data: bytes) -> None:
        path = self._base / checked_key(key)

        def write() -> None:
            # A directory that is not mounted must not fill the disk below it.
            self._check_base()
            # Who may read the directory may read objects. A daemon's umask would exclude them.
            mode = self._base.stat().st_mode
            parents = path.parent.relative_to(self._base).parts
            with (
                _directory(self._base, parents, mode & _DIRECTORY_BITS) as directory,
                whole_file(directory / path.name, sync=Sync.CONTENT) as file,
            ):
                os.fchmod(file.fileno(), mode & _FILE_BITS)
                file.write(data)

        await self._in_thread(write)

    async def has(self, key: str) -> bool:
        path = self._base / checked_key(key)
        return await self._in_thread(path.is_file)

    def _check_base(self) -> None:
        if not self._base.is_dir():
            raise InfrastructureError(f"{self._base} is not a directory", reason="store-directory")

    async def _in_thread[T](self, call: Callable[[], T]) -> T:
        if not self._slots.acquire(blocking=False):
            raise InfrastructureError("the directory does not answer", reason="store-timeout")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def settle(value: T | None, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is not None:
                done.set_exception(error)
            else:
                done.set_result(value)  # type: ignore[arg-type]  # T itself may be None

        def run() -> None:
            value: T | None = None
            error: BaseException | None = None
            try:
                value = call()
            except Exception as problem:  # noqa: BLE001 - raised again for the caller
                error = problem
            finally:
                self._slots.release()
            try:
                loop.call_soon_threadsafe(settle, value, error)
            except RuntimeError:  # the loop ended meanwhile
                return

        threading.Thread(target=run, name="hpcc-directory", daemon=True).start()
        try:
            return await done
        except OSError as error:
            raise InfrastructureError(
                f"the directory fails: {error.strerror}", reason="store-directory"
            ) from error


@contextmanager
def _directory(base: Path, names: Sequence[str], mode: int) -> Iterator[Path]:
    """Yield a path to the directory `names` below `base`, which is made if it is missing.

    Everybody who may write in `base` may put a link in a directory's place, to let others write
    where they may not. So each directory is opened without following links, and the path leads
    to the open one.
    """
    found = os.open(base, _SEARCH_FLAGS)
    try:
        for name in names:
            flags = _SEARCH_FLAGS | os.O_NOFOLLOW
            with suppress(FileExistsError):
                os.mkdir(name, dir_fd=found)
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
            below = os.open(name, flags, dir_fd=found)
            os.close(found)
            found = below
            if not flags & os.O_PATH:
                os.fchmod(found, mode)
        yield Path(f"/proc/self/fd/{found}")
    finally:
        os.close(found)


def _read(path: Path, limit: int) -> bytes:
    descriptor = os.open(path, _READ_FLAGS)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise IntegrityError("the object is not an ordinary file", reason="object-form")
        if status.st_size > limit:
            raise too_large(limit)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise too_large(limit)
    return data
