"""`hpcc image`: build, pull, list, inspect and remove toolchain images."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import pwd
import signal
import sys
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from hpcc.cli.base.terminal import emit
from hpcc.cli.image import answers as _image_answers
from hpcc.cli.image.progress import image_progress
from hpcc.config.paths import Paths
from hpcc.core import CallerError, ImageDigest, ImageRef, toolchain_table
from hpcc.obs.text import plain
from hpcc.ports import SystemClock

if TYPE_CHECKING:
    from hpcc.images.assembly.debian import DebianRequest
    from hpcc.images.oci.registry import OciRegistry
    from hpcc.images.prepared import PreparedImage
    from hpcc.images.store import ImageStore

_EXIT_TERMINATED = 128 + signal.SIGTERM


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `image` and its sub-commands."""
    image = subparsers.add_parser("image", help="build, pull, list and remove toolchain images")
    commands = image.add_subparsers(title="image commands", metavar="COMMAND", required=True)
    _register_build(commands)
    pull = commands.add_parser(
        "pull", help="pull an image and print its pinned name (last line on stdout)"
    )
    pull.add_argument("image", help="repo@sha256:…, or repo:tag, which hpcc first pins to a digest")
    pull.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="ask this registry first; may be repeated",
    )
    pull.set_defaults(handler=_run_pull)
    take = commands.add_parser(
        "import", help="import an image from an OCI layout (directory or tar)"
    )
    take.add_argument("path", type=Path)
    take.add_argument("--ref", default="", help="which image, if the layout has several")
    take.add_argument("--name", default="localhost/imported", help="repository name for the image")
    take.set_defaults(handler=_run_import)
    listing = commands.add_parser("list", help="list the images that are prepared on this machine")
    listing.add_argument("--json", action="store_true", help="one JSON object per line")
    listing.set_defaults(handler=_run_list)
    inspect = commands.add_parser(
        "inspect", help="print everything that is known about an image, as JSON"
    )
    inspect.add_argument("image", help="reference, repository, or the start of a digest")
    inspect.add_argument("--json", action="store_true", help="print it on one line")
    inspect.set_defaults(handler=_run_inspect)
    remove = commands.add_parser("rm", help="remove images")
    remove.add_argument("image", nargs="+")
    remove.set_defaults(handler=_run_rm)


def _register_build(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    build = commands.add_parser(
        "build-debian",
        help="build an image from this distribution's packages and print its pinned name "
        "(last line on stdout)",
        description="Build a toolchain image from Debian or Ubuntu packages with mmdebstrap. "
        "The same package versions give the same digest.",
    )
    build.add_argument("packages", nargs="*", help="packages to install (default: gcc g++)")
    build.add_argument("--suite", default="", help="release (default: this system's)")
    build.add_argument("--mirror", default="", metavar="URL", help="default: this system's")
    build.add_argument("--name", default="", help="repository name of the result")
    build.add_argument(
        "--if-missing",
        action="store_true",
        help="only print the name if an image was built for the same request before",
    )
    build.set_defaults(handler=run_build)


def run_build(args: argparse.Namespace) -> int:
    """Run `hpcc image build-debian`; `hpcc up` calls it, too."""
    return _run(_build(args))


async def _build(args: argparse.Namespace) -> int:
    from hpcc.images.assembly.debian import build_debian
    from hpcc.images.assembly.host import HostSystem

    uid = os.getuid()
    host = HostSystem(uid=uid, user=_user_name(uid), env=dict(os.environ))
    request = _request(args)
    suite = request.suite or host.suite
    with _store() as store:
        if args.if_missing and (found := _made_before(store, request.label(suite), request.name)):
            emit(found.ref)
            return 0
        with image_progress(f"building {request.name} from {suite} packages") as progress:
            ref, layout = await build_debian(
                request, store.layouts, host=host, clock=SystemClock(), progress=progress
            )
            image = await store.prepare(ref, layout, progress)
    _say(image)
    return 0


def _request(args: argparse.Namespace) -> DebianRequest:
    from hpcc.images.assembly.debian import DEFAULT_PACKAGES, DebianRequest

    name = args.name or DebianRequest.name_for(tuple(args.packages))
    return DebianRequest(
        packages=tuple(args.packages) or DEFAULT_PACKAGES,
        name=name,
        suite=args.suite,
        mirror=args.mirror,
    )


def _made_before(store: ImageStore, label: str, name: str) -> PreparedImage | None:
    for image in store.list():
        if image.repository == name and image.label("io.hpcc.request") == label:
            return store.get(image.digest)
    return None


def _run_pull(args: argparse.Namespace) -> int:
    return _run(_pull(args.image, args.mirror))


async def _pull(text: str, mirrors: Sequence[str]) -> int:
    registry = _registry(mirrors)
    text = text.removeprefix("docker://")
    with _store() as store, image_progress(f"pulling {text[:200]}") as progress:
        if "@" in text:
            ref = ImageRef.parse(text)
        else:
            repository, tag = _split_tag(text)
            ref = await registry.pin(repository, tag)
        image = await store.prepare(ref, store.source_for(ref, registry), progress)
    _say(image)
    return 0


def _split_tag(text: str) -> tuple[str, str]:
    """Split `repo:tag`; a colon before the last slash belongs to a port."""
    head, slash, last = text.rpartition("/")
    name, colon, tag = last.partition(":")
    repository = f"{head}{slash}{name}"
    if not name or (colon and not tag):
        raise CallerError(f"not an image: {text[:200]!r}", reason="image-name")
    return repository, tag or "latest"


def _run_import(args: argparse.Namespace) -> int:
    return _run(_import(args.path, args.ref, args.name))


async def _import(path: Path, ref_name: str, repository: str) -> int:
    from hpcc.images.oci.layout import OciLayout
    from hpcc.images.oci.unpack import unpack_layout

    with (
        _store() as store,
        image_progress(f"importing {path}") as progress,
        tempfile.TemporaryDirectory(prefix="hpcc-import-") as work,
    ):
        layout = OciLayout(path)
        if not await asyncio.to_thread(path.is_dir):
            progress("unpacking the archive", 0, 0)
            await asyncio.to_thread(unpack_layout, path, Path(work))
            layout = OciLayout(Path(work))
        ref = ImageRef(repository, layout.find(ref_name))
        image = await store.prepare(ref, layout, progress)
    _say(image)
    return 0


def _run_list(args: argparse.Namespace) -> int:
    with _store() as store:
        images = store.list()
    if args.json:
        from hpcc.images.prepared import to_table

        for image in images:
            emit(json.dumps({**to_table(image), "last_used_at": image.last_used_at}))
        return 0
    rows = [
        (
            image.digest.hex[:12],
            image.repository,
            _size(image.size_bytes),
            _when(image.created_at),
            _when(image.last_used_at),
        )
        for image in images
    ]
    head = ("DIGEST", "NAME", "SIZE", "CREATED", "LAST USED")
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        emit("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _run_inspect(args: argparse.Namespace) -> int:
    from hpcc.images.prepared import to_table
    from hpcc.images.survey import survey_table
    from hpcc.images.toolchains import label_trouble

    with _store() as store:
        image = store.find(args.image)
        answers = store.answers(image.digest)
        compilers, survey = answers.toolchains(), answers.not_understood()
    known = None if compilers is None else [toolchain_table(c) for c in compilers]
    trouble = label_trouble(dict(image.labels), compilers) if compilers is not None else ""
    table = {
        **to_table(image),
        "path": str(image.path),
        # null: no worker has asked the image yet, or it was not understood.
        "compilers": known,
        "label_trouble": trouble,
        # null: the image was understood, or no worker has asked it yet.
        "not_understood": survey
        and {
            **survey_table(survey),
            "trouble": survey.trouble,
            "ask_again": _image_answers.ask_again(image.ref),
        },
    }
    emit(json.dumps(table, indent=None if args.json else 2, sort_keys=True))
    if survey is not None and not args.json:
        for line in _image_answers.lines(survey, image.ref):
            emit(f"hpcc: {line}", file=sys.stderr)
    return 0


def _run_rm(args: argparse.Namespace) -> int:
    with _store() as store:
        for text in args.image:
            digest, name = _meant(store, text)
            store.remove(digest)
            emit(f"removed {name}")
    return 0


def _meant(store: ImageStore, text: str) -> tuple[ImageDigest, str]:
    """Return digest and name; a full digest may also be a layout or an unfinished pull."""
    digest = text.rpartition("@")[2]
    if digest.startswith("sha256:"):
        with contextlib.suppress(CallerError):
            return ImageDigest(digest), text
    image = store.find(text)
    return image.digest, str(image.ref)


def _run(work: Coroutine[None, None, int]) -> int:
    """Run the work to its end; SIGTERM cleans up as Ctrl-C does."""

    async def cancelled_by_term() -> int:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(cancelled_by_term())
    except asyncio.CancelledError:
        return _EXIT_TERMINATED


@contextlib.contextmanager
def _store() -> Iterator[ImageStore]:
    from hpcc.images.store import ImageStore

    store = ImageStore(Paths.from_env(os.environ).images, SystemClock())
    try:
        yield store
    finally:
        store.close()


def _registry(mirrors: Sequence[str]) -> OciRegistry:
    from hpcc.images.oci.auth import load_logins, login_files
    from hpcc.images.oci.registry import OciRegistry

    return OciRegistry(mirrors=tuple(mirrors), logins=load_logins(login_files(os.environ)))


def _say(image: PreparedImage) -> None:
    """Print a summary on stderr for people, and the pinned reference on stdout for scripts."""
    dropped = ", ".join(f"{what}: {count}" for what, count in image.dropped)
    emit(
        f"image ready: {_size(image.size_bytes)}, {dict(image.counts).get('files', 0)} files"
        + (f"; left out: {dropped}" if dropped else ""),
        file=sys.stderr,
    )
    if toolchain := image.label("io.hpcc.toolchain"):
        emit(f"toolchain: {plain(' '.join(toolchain.split()))}", file=sys.stderr)
    emit(image.ref, flush=True)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _size(count: int) -> str:
    return f"{count / (1 << 20):.1f} MiB"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%d %H:%M")
