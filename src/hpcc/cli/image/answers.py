"""Messages about an image whose compilers could not be identified."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcc.config.paths import Paths
from hpcc.core import ImageRef
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.images.survey import Survey


def not_understood(paths: Paths, image: ImageRef) -> Survey | None:
    """Return the last survey of an image on this machine that was not understood, else None."""
    from hpcc.images.store import ImageStore

    store = ImageStore(paths.images, SystemClock())
    try:
        return store.answers(image.digest).not_understood()
    finally:
        store.close()


def cost(survey: Survey) -> str:
    """Return the consequence of an image that was not understood."""
    if survey.is_complete:
        return "this image cannot compile anything"
    return "parity is unknown: compiles go to the farm without a comparison of compilers"


def ask_again(image: ImageRef) -> str:
    """Return the command that makes a worker ask at once."""
    return f"hpcc down; hpcc up --image {image.digest}"


def remedy(survey: Survey, image: ImageRef) -> str:
    """Return who asks again and when, with the command that asks at once."""
    command = f"`{ask_again(image)}`, or a restart of the worker, asks at once"
    if survey.is_complete:
        return f"use an image with gcc or clang; {command}"
    return f"a running worker asks again by itself when it has room for a guest; {command}"


def lines(survey: Survey, image: ImageRef) -> list[str]:
    """Return the sentences for `hpcc up` and `hpcc image inspect`."""
    return [f"the image was not understood: {survey.trouble}", cost(survey), remedy(survey, image)]
