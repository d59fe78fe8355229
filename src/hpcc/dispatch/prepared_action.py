"""A compile as an action: a pure function of the request, its files and the version."""

from __future__ import annotations

import posixpath
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from hpcc.core import (
    CallerError,
    Digest,
    ImageRef,
    InputFile,
    RemoteRequest,
    check_guest_path,
    folded_inputs,
    windows_key,
)
from hpcc.dispatch.packs import InputPack
from hpcc.reapi.action import ActionSpec, encode_action, salt_of
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import InputTree, TreeBase


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAction:
    """An action ready to send. `messages` are its protos, `files` the host paths by digest.

    `own` are digests that other actions hardly have; `shared` is what it has in common with some.
    `texts` are contents of files that are here, `places` what a blob is the latest state of.
    """

    digest: Digest
    messages: Mapping[Digest, bytes]
    files: Mapping[Digest, str]
    outputs: Mapping[str, str]
    image: ImageRef
    own: frozenset[Digest] = frozenset()
    shared: InputPack | None = None
    texts: Mapping[Digest, bytes] = field(default_factory=dict)
    places: Mapping[Digest, str] = field(default_factory=dict)

    def content(self, digest: Digest) -> bytes | None:
        """Return a blob that is at hand without reading a file."""
        found = self.messages.get(digest)
        return self.texts.get(digest) if found is None else found

    @property
    def digests(self) -> frozenset[Digest]:
        return frozenset(self.messages) | frozenset(self.files)


def prepare_action(
    request: RemoteRequest,
    image: ImageRef,
    digest_of: Callable[[str], Digest],
    version: str,
    pack: InputPack | None = None,
) -> PreparedAction:
    """Build the action of a request; a pure function of it, the file contents and `version`.

    `pack` are the inputs that `request.shared` stands for. With its text no file is asked for.

    Raises:
        CallerError: a path is not allowed, an input cannot be read, or it is not any more what
            the compile was planned with.
    """
    files: dict[Digest, str] = {}
    inputs: list[InputFile] = []
    texts: dict[Digest, bytes] = {}
    text = None if request.shared is None else request.shared.text
    if text is not None and len(request.inputs) != 1:
        raise CallerError("one text for other than one input", reason="frame")
    for item in request.inputs:
        if text is None:
            digest = digest_of(item.host_path)
        else:
            digest = Digest.of(text)
            texts[digest] = text
        if item.sha256 and digest.hash != item.sha256:
            # The plan's include closure was read from other content.
            raise CallerError("an input changed since it was read", reason="input-changed")
        files[digest] = item.host_path
        inputs.append(InputFile(item.path, digest, item.is_executable))
    base = TreeBase(()) if pack is None else pack.base
    fold = windows_key if request.folds_case else str
    cwd = fold(request.cwd)
    placed = folded_inputs(inputs) if request.folds_case else inputs
    tree = base.with_files(placed, [cwd, *map(fold, request.directories)])
    # REAPI spells outputs from the working directory, the daemon from the root.
    outputs = {posixpath.relpath(check_guest_path(fold(o)), cwd or "."): o for o in request.outputs}
    command = encode_command(
        CommandSpec(
            argv=request.argv,
            env=request.env,
            cwd=cwd,
            outputs=tuple(outputs),
            image=image,
        )
    )
    action = encode_action(
        ActionSpec(
            command=Digest.of(command),
            input_root=tree.root,
            image=image,
            salt=salt_of(agent_version=version, builder_version=version),
        )
    )
    messages = {Digest.of(data): data for data in (command, action)}
    return PreparedAction(
        digest=Digest.of(action),
        messages={**tree.directories, **messages},
        files=files if pack is None else ChainMap(files, pack.files),
        outputs=outputs,
        image=image,
        own=frozenset((*tree.changed, *messages, *files)),
        shared=pack,
        texts=texts,
        places=_places(tree, inputs),
    )


def _places(tree: InputTree, inputs: Iterable[InputFile]) -> dict[Digest, str]:
    """Name what is sent again after each change: its next state has much of this one."""
    places = {item.digest: f"file:{item.path}" for item in inputs}
    return places | {digest: f"directory:{path}" for digest, path in tree.changed.items()}
