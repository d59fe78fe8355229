"""Compares the compilers of this machine with those of the image that compiles would use."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hpcc.cli.doctor.check import DoctorCheck
from hpcc.cli.image import answers
from hpcc.config.farm import load_farm_or_none
from hpcc.config.farm_session import load_farm_session_or_none
from hpcc.config.paths import Paths
from hpcc.config.settings import Settings, load_settings
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


_COMPILERS: Final = ("gcc", "g++", "clang", "clang++")
_OF_WINDOWS: Final = ("cl", "clang-cl")


@dataclass(frozen=True, slots=True)
class Subject:
    """The image, its known compilers, and the parity rule that applies to it."""

    image: ImageRef
    compilers: tuple[Toolchain, ...] | None
    parity: Parity
    label_trouble: str = ""
    # The last survey of a worker on this machine, if the image was not understood.
    survey: Survey | None = None


async def parity_check(paths: Paths) -> DoctorCheck:
    """Check whether the compilers here equal those of the image."""
    name = "parity"
    subject = await asyncio.to_thread(subject_or_none, paths, load_settings(paths.config_file))
    if subject is None:
        return DoctorCheck(name=name, state="ok", detail="no farm and no image to compare with")
    where = f"image {subject.image.repository}@{subject.image.digest.value[:19]}"
    if subject.survey is not None:
        return DoctorCheck(
            name=name, state="degraded",
            detail=f"{where} was not understood: {subject.survey.trouble}",
            cost=answers.cost(subject.survey),
            remedy=answers.remedy(subject.survey, subject.image),
        )  # fmt: skip
    if subject.compilers is None:
        return DoctorCheck(
            name=name, state="ok",
            detail=f"{where}: its compilers are not known yet, or it did not answer every question;"
            " its workers ask it",
        )  # fmt: skip
    findings = await asyncio.to_thread(findings_here, subject)
    told = "; ".join(map(described, findings)) or "no compiler here"
    detail = f"{where}, {subject.parity}: {told}"
    if not subject.compilers:
        detail = f"{where} has no compiler that answers"
    if subject.label_trouble:
        detail += f"; {subject.label_trouble}"
    mend = remedies(findings, subject.image)
    if not mend and subject.compilers and not subject.label_trouble:
        return DoctorCheck(name=name, state="ok", detail=detail)
    refused = "such compiles run here, not on the farm (fallback.parity)"
    return DoctorCheck(
        name=name, state="degraded", detail=detail,
        cost=refused if subject.parity == "refuse" else "objects are the image's compiler's",
        remedy=mend or "use an image whose compilers match its labels and yours",
    )  # fmt: skip


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
        known = store.answers(image.digest)
        compilers, survey = known.toolchains(), known.not_understood()
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


def findings_here(subject: Subject) -> list[Finding]:
    """Compare each usual compiler on PATH; each takes a fraction of a second."""
    is_windows = sys.platform == "win32"
    ask, names = (_ask_cl, _OF_WINDOWS) if is_windows else (_ask, _COMPILERS)
    there = {name: path for name in names if (path := shutil.which(name))}
    return [compare(n, ask(n, compiler), subject.compilers) for n, compiler in there.items()]


def _ask(name: str, compiler: str) -> Toolchain | None:
    from hpcc.cache.host.host_toolchains import ask_compiler

    path = os.fsencode(os.environ.get("PATH", os.defpath))
    return ask_compiler(os.fsencode(compiler), name.encode(), path)[0].toolchain


def _ask_cl(name: str, compiler: str) -> Toolchain | None:
    from hpcc.cache.base.api import CompileRequest
    from hpcc.cache.remote.cl_host import ClHost
    from hpcc.cache.windows.system_disk import WindowsDisk
    from hpcc.windows.library import load_library

    request = CompileRequest(
        argv=(name.encode(),), compiler=compiler.encode(), cwd=os.fsencode(Path.cwd()), umask=0,
        env={b"PATH": os.fsencode(os.environ.get("PATH", ""))}, stderr_is_tty=False,
    )  # fmt: skip
    return ClHost(WindowsDisk(load_library())).described(request).toolchain


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
