"""The store of prepared images: built once for all processes, checked, evicted by last use."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import re
import shutil
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from hpcc.core import (
    CallerError,
    ImageDigest,
    ImageRef,
    InfrastructureError,
    IntegrityError,
    NotFoundError,
)
from hpcc.files import NONBLOCK, open_file
from hpcc.files.whole import Sync, write_whole
from hpcc.images.assembly.erofs import (
    BUILDER_VERSION,
    build_erofs,
    remove_whole,
)
from hpcc.images.base.limits import FlattenLimits
from hpcc.images.base.locks import exclusive_lock, try_lock
from hpcc.images.kept_answers import KeptAnswers
from hpcc.images.oci.layout import OciLayout
from hpcc.images.oci.registry import OciRegistry
from hpcc.images.oci.source import ImageSource, Progress
from hpcc.images.prepared import (
    MAX_SIDECAR_BYTES,
    PreparedImage,
    from_json,
    prepared_from,
    to_table,
)
from hpcc.ports import Clock

_log = logging.getLogger(__name__)

# Room for four or five toolchains of several GiB, which a laptop's disk can spare.
DEFAULT_MAX_BYTES: Final = 20 << 30
# The prefix of repositories that exist only on this machine, made by build-debian.
LOCAL_PREFIX: Final = "localhost/"
# How long the files of an interrupted pull are kept for the next try.
_STALE_WORK_SECONDS: Final = 86_400.0
_FILE: Final = re.compile(
    r"([0-9a-f]{64})\.v([0-9]+)\.(erofs|json|compilers|asked)((?:\.[0-9a-f]{16})?\.new)?"
)


def _no_progress(_stage: str, _done: int, _total: int) -> None:
    pass


class ImageStore:
    """Prepared images in `directory`, shared by all processes of a user.

    An image that `prepare` or `get` returned stays on disk until `close`, also if another process
    evicts. Methods without `async` use the disk: call them in a thread from a loop.
    """

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        limits: FlattenLimits | None = None,
    ) -> None:
        self._directory, self._clock = directory, clock
        self._max_bytes, self._limits = max_bytes, limits
        self._holds: dict[ImageDigest, int] = {}
        self._verified: dict[ImageDigest, tuple[int, ...]] = {}

    @property
    def layouts(self) -> Path:
        """Return the directory for OCI layouts of images built here, named by manifest digest."""
        return self._directory / "layouts"

    async def prepare(
        self, ref: ImageRef, source: ImageSource, progress: Progress = _no_progress
    ) -> PreparedImage:
        """Return the image; build it from `source` if it is absent.

        Of several callers in any processes, one does the work and the others wait for it. After a
        cancel or an error only whole blobs are left, for the next try.

        Raises:
            NotFoundError, IntegrityError, CallerError, InfrastructureError: see
                `ImageSource.fetch` and `build_erofs`.
        """
        found = await asyncio.to_thread(self.get, ref.digest)
        if found is not None:
            return found
        async with exclusive_lock(self._lock(ref.digest, "prepare"), self._clock):
            found = await asyncio.to_thread(self.get, ref.digest)
            if found is not None:
                return found
            await self._make(ref, source, progress)
            found = await asyncio.to_thread(self.get, ref.digest)
        if found is None:
            raise InfrastructureError(
                f"image {ref} vanished right after it was made", reason="image-vanished"
            )
        await asyncio.to_thread(self.evict)
        return found

    def get(self, digest: ImageDigest) -> PreparedImage | None:
        """Return a prepared image if it is present and undamaged, else None.

        The first call for an image in a process hashes all of it (a second for 500 MB); later
        calls compare its stat. A damaged image is removed.
        """
        is_ours = digest in self._holds
        if not is_ours:
            hold = try_lock(self._lock(digest, "use"), exclusive=False)
            if hold is None:
                return None  # another process is removing it
            self._holds[digest] = hold
        image = self._checked(digest)
        if image is None:
            self._release(digest)
            return None
        with suppress(OSError):
            now = self._clock.now()
            os.utime(self._sidecar(digest), (now, now))
        return image

    def list(self) -> list[PreparedImage]:
        """Return all prepared images, the newest first; their bytes are not checked."""
        found = []
        for path in self._prepared.glob(f"*.v{BUILDER_VERSION}.json"):
            if match := _FILE.fullmatch(path.name):
                with suppress(IntegrityError, NotFoundError):
                    found.append(self._read_sidecar(ImageDigest(f"sha256:{match[1]}")))
        return sorted(found, key=lambda image: (-image.created_at, image.digest))

    def find(self, text: str) -> PreparedImage:
        """Return the image of a reference, a repository, or the start of a digest.

        Of several images of one repository the newest is returned.

        Raises:
            NotFoundError: no image matches, or the start of a digest matches several.
        """
        images = self.list()
        by_name = [i for i in images if text in {str(i.ref), i.repository, i.digest.value}]
        if by_name:
            return by_name[0]
        start = text.removeprefix("sha256:")
        by_start = [i for i in images if len(start) >= 4 and i.digest.hex.startswith(start)]  # noqa: PLR2004 - fewer digits name nothing
        if len(by_start) == 1:
            return by_start[0]
        problem = "fits several images" if by_start else "is not here"
        raise NotFoundError(
            f"image {text[:200]!r} {problem}; `hpcc image list` shows what is", reason="no-image"
        )

    def answers(self, digest: ImageDigest) -> KeptAnswers:
        """Return the stored answers of an image's compilers; they are removed with the image."""
        return KeptAnswers(self._prepared / f"{digest.hex}.v{BUILDER_VERSION}", digest)

    def source_for(self, ref: ImageRef, registry: OciRegistry) -> ImageSource:
        """Return the source of `ref`: its local layout if there is one, else `registry`.

        Raises:
            NotFoundError: the image was built on this machine and its layout is gone.
        """
        layout = self.layouts / ref.digest.hex
        if layout.is_dir():
            return OciLayout(layout)
        if ref.repository.startswith(LOCAL_PREFIX):
            raise NotFoundError(
                f"image {ref} was built on this machine and is gone: "
                "run `hpcc image build-debian` again",
                reason="no-image",
            )
        return registry

    def remove(self, digest: ImageDigest) -> None:
        """Remove an image, its layout if it was built here, and files of interrupted pulls.

        Raises:
            NotFoundError: there is no such image.
            CallerError: a process uses it.
        """
        self._release(digest)
        layout, work = self.layouts / digest.hex, self._work(digest)
        paths = (self._image(digest), self._sidecar(digest), layout, work)
        if not any(path.exists() for path in paths):
            raise NotFoundError(f"image {digest} is not here", reason="no-image")
        if not self._remove_unused(digest):
            raise CallerError(
                f"image {digest} is in use; end what uses it (`hpcc down`) and try again",
                reason="image-in-use",
            )
        for path in (layout, work):
            shutil.rmtree(path, ignore_errors=True)

    def evict(self) -> None:
        """Remove unused images, least recently used first, until the size limit holds."""
        self._sweep()
        images = sorted(self.list(), key=lambda image: image.last_used_at)
        total = sum(image.size_bytes for image in images)
        for image in images:
            if total <= self._max_bytes:
                return
            if image.digest not in self._holds and self._remove_unused(image.digest):
                total -= image.size_bytes
                _log.info("image evicted: %s size_bytes=%d", image.digest, image.size_bytes)

    def close(self) -> None:
        """Release all images; they may be evicted from now on."""
        for digest in list(self._holds):
            self._release(digest)

    async def _make(self, ref: ImageRef, source: ImageSource, progress: Progress) -> None:
        """Fetch, build and publish; the caller holds the image's prepare lock."""
        work = self._work(ref.digest)
        try:
            await asyncio.to_thread(_clean_work, work)
            self._prepared.mkdir(parents=True, exist_ok=True)
            fetched = await source.fetch(ref, work, progress)
            progress("build", 0, 0)
            built = await build_erofs(
                fetched.layers,
                work / "image.erofs",
                identity=ref.digest,
                progress=lambda done, total: progress("build", done, total),
                limits=self._limits,
            )
            image = prepared_from(
                ref,
                fetched,
                built,
                path=self._image(ref.digest),
                created_at=self._clock.now(),
            )
            await asyncio.to_thread(self._publish, image, built.path)
        except IntegrityError:
            # Wrong blobs must not be left for the next try.
            await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)
            raise
        except OSError as error:
            raise InfrastructureError(
                f"cannot write to {self._directory}: {error.strerror}", reason="disk"
            ) from error
        await asyncio.to_thread(shutil.rmtree, work, ignore_errors=True)

    def _publish(self, image: PreparedImage, built: Path) -> None:
        """Publish durably: the image first, then the sidecar, which makes the image visible."""
        built.rename(image.path)
        sidecar = self._sidecar(image.digest)
        data = json.dumps(to_table(image), indent=1, sort_keys=True).encode()
        aside = sidecar.with_name(sidecar.name + ".new")
        write_whole(sidecar, data, sync=Sync.NAME, mode=0o666, aside=aside)

    def _checked(self, digest: ImageDigest) -> PreparedImage | None:
        try:
            image = self._read_sidecar(digest)
            self._verify(image)
        except NotFoundError:
            return None
        except IntegrityError as error:
            _log.warning("image removed: %s reason=%s", digest, error.reason)
            self._unlink(digest)
            return None
        return image

    def _verify(self, image: PreparedImage) -> None:
        try:
            # A builder that a layer took over may have left something else: a link to a key, which
            # the worker would give to a guest as its drive, or a pipe.
            number = open_file(image.path, os.O_RDONLY | NONBLOCK)
            with open(number, "rb") as file:  # noqa: PTH123 - of a descriptor
                status = os.fstat(file.fileno())
                seen = (
                    status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns,
                    status.st_ctime_ns,
                )  # fmt: skip
                if self._verified.get(image.digest) == seen:
                    return
                is_whole = (
                    stat.S_ISREG(status.st_mode)
                    and status.st_size == image.size_bytes
                    and (hashlib.file_digest(file, "sha256").hexdigest() == image.sha256)
                )
        except OSError as error:
            raise IntegrityError(f"{image.path}: {error.strerror}", reason="image-gone") from error
        if not is_whole:
            raise IntegrityError(
                f"{image.path}: its bytes are no longer those that were written",
                reason="image-damaged",
            )
        self._verified[image.digest] = seen

    def _read_sidecar(self, digest: ImageDigest) -> PreparedImage:
        path = self._sidecar(digest)
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_SIDECAR_BYTES + 1)
                used_at = os.fstat(file.fileno()).st_mtime
        except FileNotFoundError:
            raise NotFoundError(f"image {digest} is not here", reason="no-image") from None
        except OSError as error:
            raise IntegrityError(f"{path}: {error.strerror}", reason="image-damaged") from error
        image = from_json(raw, path=self._image(digest), last_used_at=used_at)
        if image.digest != digest:
            raise IntegrityError(f"{path} describes another image", reason="image-damaged")
        return image

    def _remove_unused(self, digest: ImageDigest) -> bool:
        lock = try_lock(self._lock(digest, "use"), exclusive=True)
        if lock is None:
            return False
        try:
            self._unlink(digest)
        finally:
            os.close(lock)
        return True

    def _unlink(self, digest: ImageDigest) -> None:
        self._sidecar(digest).unlink(missing_ok=True)
        self.answers(digest).remove()
        remove_whole(self._image(digest))
        self._verified.pop(digest, None)

    def _release(self, digest: ImageDigest) -> None:
        hold = self._holds.pop(digest, None)
        if hold is not None:
            os.close(hold)

    def _sweep(self) -> None:
        """Remove files of killed processes and of other builder versions."""
        for path in self._prepared.glob("*"):
            match = _FILE.fullmatch(path.name)
            digest = ImageDigest(f"sha256:{match[1]}") if match else None
            is_kept = match is not None and match[2] == str(BUILDER_VERSION) and not match[4]
            if digest is None or (is_kept and self._sidecar(digest).exists()):
                continue
            lock = try_lock(self._lock(digest, "prepare"), exclusive=True)
            if lock is not None:
                # With the lock, no process is between renaming the image and renaming the sidecar.
                if not (is_kept and self._sidecar(digest).exists()):
                    remove_whole(path)
                os.close(lock)
        self._sweep_work()

    def _sweep_work(self) -> None:
        for work in (self._directory / "work").glob("*"):
            with suppress(OSError):
                age_seconds = self._clock.now() - work.stat().st_mtime
                lock = try_lock(self._directory / "locks" / f"{work.name}.prepare", exclusive=True)
                if lock is not None:
                    if age_seconds > _STALE_WORK_SECONDS:
                        shutil.rmtree(work, ignore_errors=True)
                    os.close(lock)

    @property
    def _prepared(self) -> Path:
        return self._directory / "prepared"

    def _image(self, digest: ImageDigest) -> Path:
        return self._prepared / f"{digest.hex}.v{BUILDER_VERSION}.erofs"

    def _sidecar(self, digest: ImageDigest) -> Path:
        return self._prepared / f"{digest.hex}.v{BUILDER_VERSION}.json"

    def _work(self, digest: ImageDigest) -> Path:
        return self._directory / "work" / digest.hex

    def _lock(self, digest: ImageDigest, what: str) -> Path:
        return self._directory / "locks" / f"{digest.hex}.{what}"


def _clean_work(work: Path) -> None:
    """Create the work directory, and delete everything in it but whole blobs."""
    work.mkdir(parents=True, exist_ok=True)
    for path in work.iterdir():
        if not re.fullmatch(r"[0-9a-f]{64}", path.name):
            remove_whole(path)
