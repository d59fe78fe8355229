"""`hpcc up` and `hpcc down`: start and stop a whole farm on one machine.

On Windows without containerd, or without an image, they start and stop the local cache.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

from hpcc.cli.base.lock import holder_or_none, lock_file
from hpcc.cli.base.progress import progress_lines
from hpcc.cli.base.terminal import emit
from hpcc.cli.base.up_process import end, forget_stop, start_detached
from hpcc.config.extras import missing_modules, missing_text, require_extra
from hpcc.config.farm import Farm, load_farm_or_none
from hpcc.config.paths import Paths
from hpcc.config.private_file import make_private_directory
from hpcc.config.settings import WorkerSettings, load_settings
from hpcc.core import CallerError, ImageRef, InfrastructureError
from hpcc.runtime.registry.table import container_labels


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `up` and `down`."""
    up = subparsers.add_parser("up", help="start scheduler, worker and guest on this machine")
    up.add_argument(
        "--image",
        metavar="REF",
        help="toolchain image: repo@sha256:…, digest or name (default: the newest)",
    )
    up.set_defaults(handler=run_up)
    down = subparsers.add_parser(
        "down", help="stop everything that `hpcc up` started, and the daemon"
    )
    down.set_defaults(handler=run_down)


def run_up(args: argparse.Namespace) -> int:
    """Start everything; return when compiles are accepted."""
    paths = Paths.from_env(os.environ)
    settings = load_settings(paths.config_file)  # reports an error before an image is built
    for directory in (paths.cache, paths.state, paths.config, paths.run):
        make_private_directory(directory)
    if holder_or_none(lock_file(paths)) is not None:
        farm = load_farm_or_none(paths.farm_file)
        if args.image and farm and args.image not in farm.image:
            raise CallerError(
                f"hpcc is up with image {farm.image}: run `hpcc down` before you use {args.image}",
                reason="already-up",
            )
        where = f": {farm.isolation}, image {farm.image}" if farm else ", and still starting"
        emit(f"hpcc is already up{where}")
        _say_not_understood(paths, farm.image if farm else "")
        return 0
    _refuse_login(paths)
    started = time.monotonic()  # noqa: TID251 - only shown, decides nothing
    if sys.platform == "win32":
        image, why_no_farm = image_or_why(settings.worker, args.image)
        if why_no_farm:
            _start_daemon()
            emit("hpcc is up: the local cache")
            emit(f"  no farm:   {why_no_farm}")
            return 0
    else:
        from hpcc.cli.image.choice import choose_image

        image = choose_image(paths, args.image)
    with progress_lines("bringing hpcc up") as show:
        ready = _start_supervisor(paths, image, show)
    seconds = time.monotonic() - started  # noqa: TID251 - as above
    _start_daemon()
    emit(f"hpcc is up ({seconds:.1f} s)")
    for name in ("isolation", "image", "scheduler", "worker", "audit"):
        emit(f"  {name + ':':<11}{ready.get(name, '?')}{_note(name, ready)}")
    _say_not_understood(paths, image)
    if sys.platform != "win32":
        emit('  try:       make CC="hpcc gcc"')
    return 0


def image_or_why(settings: WorkerSettings, wanted: str | None) -> tuple[str, str]:
    """Return the image of a farm on this Windows machine, or "" and why there is no farm.

    Raises:
        CallerError: an image was asked for that is not pinned, or containerd does not answer
            (reason `no-containerd`).
    """
    from hpcc.cli.base.windows_guests import windows_guests

    if wanted:
        ImageRef.parse(wanted)  # reports what is wrong with it before containerd is asked
        require_extra("farm", "`hpcc up --image`")
    elif missing_modules("farm"):
        return "", missing_text("farm", "a farm on this machine")
    asked = windows_guests(settings, program_files=os.environ.get("PROGRAMFILES", ""))
    found = asyncio.run(asked)
    if found.state == "missing":
        trouble = f"{found.detail}; {found.remedy}"
        if wanted:
            raise CallerError(f"no farm can start here: {trouble}", reason="no-containerd")
        return "", trouble
    if not wanted:
        return "", "containerd answers; `hpcc up --image NAME@sha256:…` starts one"
    return wanted.removeprefix("docker://"), ""


def _say_not_understood(paths: Paths, image: str) -> None:
    """Print a warning if the worker could not identify the image's compilers."""
    if not image or sys.platform == "win32":  # containerd has the images there
        return
    from hpcc.cli.image import answers

    ref = ImageRef.parse(image)
    survey = answers.not_understood(paths, ref)
    for line in answers.lines(survey, ref) if survey is not None else []:
        emit(f"  warning:   {line}")


def _note(name: str, ready: Mapping[str, object]) -> str:
    """Return an explanation of the isolation label if it is weaker than a virtual machine."""
    if name != "isolation" or ready.get(name) not in container_labels():
        return ""
    return " (containers, as set by worker.runtime: they use this machine's kernel)"


def _refuse_login(paths: Paths) -> None:
    farm = _login_farm_or_none(paths)
    if farm is not None:
        raise CallerError(
            f"logged in to the farm at {farm.scheduler}: run `hpcc logout` before you start a farm"
            " on this machine",
            reason="logged-in",
        )
    if paths.farm_file.exists() and not _is_of_up(paths):
        raise CallerError(
            f"{paths.farm_file} names another farm, and `hpcc up` did not write it: move it away"
            " before you start a farm on this machine",
            reason="other-farm",
        )


def _start_supervisor(
    paths: Paths, image: str, show: Callable[[str], None]
) -> Mapping[str, object]:
    log = paths.state / "up.log"
    forget_stop(paths)
    with log.open("ab") as errors:
        argv = [sys.executable, "-m", "hpcc.cli.farm.supervise", image]
        process = start_detached(argv, errors, paths.state)
    assert process.stdout is not None
    try:
        ready = _read_until_ready(process.stdout, show)
    except KeyboardInterrupt:
        end(paths, process.pid, lambda: process.poll() is not None)
        raise
    if ready is None:
        process.wait()
        raise InfrastructureError(f"hpcc did not come up: {_last_words(log)}", reason="up-failed")
    process.stdout.close()
    return ready


def _read_until_ready(lines: IO[bytes], show: Callable[[str], None]) -> Mapping[str, object] | None:
    for raw in lines:
        try:
            said = json.loads(raw)
        except ValueError:
            continue
        if said.get("up") is True:
            return dict(said)
        if "progress" in said:
            show(str(said["progress"]))
    return None


def _last_words(log: Path) -> str:
    lines = [x for x in log.read_text(errors="replace").splitlines() if x.strip()][-1:]
    return f"{lines[0][:500] if lines else 'it logged nothing'} (log: {log})"


def _start_daemon() -> None:
    from hpcc.cli.cache.local import start_daemon

    start_daemon()


def run_down(_args: argparse.Namespace) -> int:
    """Stop the supervisor, which stops the rest, then the daemon; no error if nothing is up."""
    paths = Paths.from_env(os.environ)
    holder = holder_or_none(lock_file(paths)) if paths.state.is_dir() else None
    if holder:
        end(paths, holder, lambda: holder_or_none(lock_file(paths)) != holder)
    # After a kill -9 of the supervisor its file is stale, and only this command removes it. The
    # file of a login stays, and one that a person wrote.
    if _is_of_up(paths):
        paths.farm_file.unlink(missing_ok=True)
        paths.farm_session_file.unlink(missing_ok=True)
    from hpcc.cli.cache.local import stop_daemon

    was_daemon = stop_daemon()
    # On Windows the daemon may be all that `hpcc up` started.
    was_up = bool(holder) or (was_daemon and sys.platform == "win32")
    emit("hpcc is down" if was_up else "hpcc was not up")
    return 0


def _is_of_up(paths: Paths) -> bool:
    """Tell whether farm.json is that of `hpcc up`, which has its pid, or damaged."""
    try:
        farm = load_farm_or_none(paths.farm_file)
    except CallerError:
        return True
    return farm is not None and not farm.login and farm.pid != 0


def _login_farm_or_none(paths: Paths) -> Farm | None:
    """Return the farm of `hpcc login`; None for a farm of `hpcc up` or a damaged file."""
    try:
        farm = load_farm_or_none(paths.farm_file)
    except CallerError:
        return None
    return farm if farm is not None and farm.login else None
