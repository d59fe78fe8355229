"""Chooses the toolchain image of `hpcc up`, and builds one if there is none."""

from __future__ import annotations

import argparse

from hpcc.cli.base.terminal import emit
from hpcc.config.paths import Paths
from hpcc.core import InfrastructureError
from hpcc.ports import SystemClock


def choose_image(paths: Paths, wanted: str | None) -> str:
    """Return a pinned reference of a prepared image: the requested one, or the newest.

    If there is no image, build one with gcc and g++ from the distribution's packages.

    Raises:
        NotFoundError: `wanted` is not prepared here.
        HpccError: no image could be built; the text names what is missing.
    """
    from hpcc.images.store import ImageStore

    store = ImageStore(paths.images, SystemClock())
    try:
        if wanted:
            return str(store.find(wanted).ref)
        images = store.list()
        if not images:
            _build_default()
            images = store.list()
        if not images:
            raise InfrastructureError("no toolchain image was built", reason="no-image")
        return str(images[0].ref)
    finally:
        store.close()


def _build_default() -> None:
    from hpcc.cli.image.image import run_build

    emit("no toolchain image yet: building one with gcc and g++ from this system's packages")
    run_build(argparse.Namespace(packages=[], suite="", mirror="", name="", if_missing=False))
