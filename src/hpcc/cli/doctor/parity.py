"""Compares the compilers of this machine with those of the image that compiles would use."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpcc.config.farm import load_farm_or_none
from hpcc.config.farm_session import load_farm_session_or_none
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings
from hpcc.core import (
    ClientPolicy,
    Finding,
    ImageRef,
    Level,
    Parity,
    Toolchain,
    compare,
    sentence,
)
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.images.survey import Survey


@dataclass(frozen=True, slots=True)
class Subject:
    """The image, its known compilers, and the parity rule that applies to it."""

    image: ImageRef
    compilers: tuple[Toolchain, ...] | None
    parity: Parity
    label_trouble: str = ""
    # The last survey of a worker on this machine, if the image was not understood.
    survey: Survey | None = None


def subject_or_none(paths: Paths, settings: Settings) -> Subject | None:
    """Return the image of the farm that is up or logged in to, else the one `hpcc up` would use.

    Raises:
        CallerError: farm.json is damaged.
    """
    farm = load_farm_or_none(paths.farm_file)
    if farm is None and not paths.images.exists():
        return None
    from hpcc.images.store import ImageStore
    from hpcc.images.toolchains import label_trouble

    session = load_farm_session_or_none(paths.farm_session_file) if farm else None
    if farm is None or session is None or not session.is_of(farm):
        session = None
    store = ImageStore(paths.images, SystemClock())
    try:
        prepared = store.list()
        if farm is None and not prepared:
            return None
        image = ImageRef.parse(farm.image) if farm else prepared[0].ref
        answers = store.answers(image.digest)
        compilers, survey = answers.toolchains(), answers.not_understood()
    finally:
        store.close()
    if session is not None and session.compilers is not None:
        compilers = session.compilers
    labels = next((dict(i.labels) for i in prepared if i.digest == image.digest), {})
    policy = ClientPolicy() if session is None else session.policy
    remote = settings.remote
    _, parity = policy.stricter(fallback=remote.fallback, parity=remote.parity)
    trouble = "" if compilers is None else label_trouble(labels, compilers)
    return Subject(image, compilers, parity, trouble, None if compilers else survey)


def findings_here(subject: Subject, names: Sequence[str]) -> list[Finding]:
    """Compare each compiler of these names on PATH; each takes a fraction of a second."""
    from hpcc.cache.host.host_toolchains import ask_compiler

    path = os.fsencode(os.environ.get("PATH", os.defpath))
    found = []
    for name in names:
        if compiler := shutil.which(name):
            here, _ = ask_compiler(os.fsencode(compiler), name.encode(), path)
            found.append(compare(name, here.toolchain, subject.compilers))
    return found


def described(finding: Finding) -> str:
    """Return one comparison as a short text."""
    if finding.level is Level.UNKNOWN:
        return f"{finding.name}: does not answer"
    if finding.image is None:
        return f"{finding.name}: not in the image"
    return f"{finding.name}: {finding.level} ({finding.host})"


def remedies(findings: Sequence[Finding], image: ImageRef) -> str:
    """Return what makes both sides equal, each remedy once."""
    texts = (sentence(f, image) for f in findings if f.level.differs and f.image is not None)
    return "; ".join(dict.fromkeys(t for t in texts if t))
