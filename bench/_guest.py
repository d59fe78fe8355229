"""Measures guests: what a compile costs besides the compiler, and how fast `hpcc up` is."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import time
from pathlib import Path

from _measure import BenchError, SkipRow
from _trees import long_file

from hpcc.config.farm import load_farm_or_none
from hpcc.config.paths import Paths
from hpcc.core import Digest, ExecRequest, InputFile, NotFoundError, ResultEvent
from hpcc.images.prepared import PreparedImage
from hpcc.images.store import ImageStore
from hpcc.ports import Guest, GuestSpec, SystemClock
from hpcc.runtime.assets.assets import prepare_assets
from hpcc.runtime.registry.pick import pick_runtime

REPEATS = 3


class OneFile:
    """A blob source with one blob."""

    def __init__(self, data: bytes) -> None:
        self.digest, self._data = Digest.of(data), data

    async def read(self, digest: Digest) -> bytes:
        if digest != self.digest:
            raise NotFoundError("bench has one file")
        return self._data


def newest_image(paths: Paths) -> PreparedImage:
    images = ImageStore(paths.images, SystemClock()).list()
    if not images:
        raise SkipRow("no prepared image; `hpcc image build-debian gcc` makes one")
    return images[0]


def guest_overhead(scratch: Path) -> list[dict[str, object]]:
    """Measure stage, transfer and collect of a 3,000-line C file as a share of its compile time."""
    return asyncio.run(_guest_overhead(scratch))


async def _guest_overhead(scratch: Path) -> list[dict[str, object]]:
    paths, clock = Paths.from_env(os.environ), SystemClock()
    image = newest_image(paths)
    assets = await prepare_assets(paths.guest_assets, lambda _: None)
    runtime = await pick_runtime(
        assets, accelerator="auto", state_dir=scratch / "runtime", clock=clock
    )
    spec = GuestSpec(image=image.digest, image_path=image.path, boot_timeout_seconds=120)
    source = OneFile(long_file(scratch / "long.c").read_bytes())
    async with runtime.guest(spec) as guest:
        await _compile(guest, source, "warm")  # translation cache and page cache
        samples = [await _compile(guest, source, f"n{i}") for i in range(REPEATS)]
    around = statistics.median(wall - own for wall, own in samples)
    own = statistics.median(own for _, own in samples)
    return [
        {
            "what": f"around the compiler in a warm guest ({runtime.isolation}), 3,000 lines -O0",
            "against": "the compile's own time",
            "wall_ms": round(around * 1e3, 1),
            "their_wall_ms": round(own * 1e3, 1),
            "wall_ratio": round(around / own, 3),
        }
    ]


async def _compile(guest: Guest, source: OneFile, name: str) -> tuple[float, float]:
    request = ExecRequest(
        exec_id=name,
        argv=("gcc", "-c", "-O0", "long.c", "-o", "long.o"),
        env=(("PATH", "/usr/local/bin:/usr/bin:/bin"),),
        cwd="",
        inputs=(InputFile("long.c", source.digest),),
        outputs=("long.o",),
    )
    started, own = time.perf_counter(), 0.0
    async for event in guest.exec(request, source):
        if isinstance(event, ResultEvent):
            if event.exit_code:
                raise BenchError(f"the guest's compile failed: {event}")
            own = event.wall_seconds
    return time.perf_counter() - started, own


def up_seconds(hpcc: Path) -> list[dict[str, object]]:
    """Measure `hpcc up` on a prepared image until a compile is accepted.

    Raises:
        SkipRow: there is no image, or the user's farm runs, which the bench must not end.
    """
    paths = Paths.from_env(os.environ)
    newest_image(paths)
    if load_farm_or_none(paths.farm_file) is not None:
        raise SkipRow("a farm is up; `hpcc down` ends it")
    samples = []
    for _ in range(REPEATS):
        subprocess.run([str(hpcc), "down"], check=False, capture_output=True)
        started = time.perf_counter()
        subprocess.run([str(hpcc), "up"], check=True, capture_output=True)
        samples.append(time.perf_counter() - started)
    subprocess.run([str(hpcc), "down"], check=False, capture_output=True)
    return [
        {
            "what": "hpcc up, prepared image",
            "against": "20 s",
            "wall_ms": round(statistics.median(samples) * 1e3),
            "wall_ratio": round(statistics.median(samples) / 20, 3),
        }
    ]
