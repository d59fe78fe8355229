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
from hpcc.core.reasons.fallback import FallbackReason
from hpcc.dispatch.packs import InputPack
from hpcc.reapi.action import ActionSpec, encode_action, salt_of
from hpcc.reapi.command import CommandSpec, encode_command
from hpcc.reapi.tree import InputTree, TreeBase


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAction:
    """An action ready to send.

    `messages` are its encoded protos and `files` the host paths, both by digest. `outputs` maps a
    path as REAPI spells it (relative to the working directory) to the daemon's (relative to the
    root). `own` are digests that other actions rarely have, `shared` the inputs it has in common
    with others. `texts` are file contents already in memory. `places` names the file or directory
    that a blob is the latest state of.
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
        """Return a blob if it is in memory."""
        found = self.messages.get(digest)
        return self.texts.get(digest) if found is None else found

    @property
    def digests(self) -> frozenset[Digest]:
        """Return the digests of all blobs that the action needs."""
        return frozenset(self.messages) | frozenset(self.files)


def prepare_action(
    request: RemoteRequest,
    image: ImageRef,
    digest_of: Callable[[str], Digest],
    version: str,
    pack: InputPack | None = None,
) -> PreparedAction:
    """Build the action of a request; a pure function of it, the file contents and `version`.

    `digest_of` returns the digest of a host file. `pack` are the inputs that `request.shared`
    names. If the request carries its source's text, `digest_of` is not called.

    Raises:
        CallerError: a path is not allowed, an input cannot be read, or it has changed since the
            compile was planned.
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
            raise CallerError(
                "an input changed since it was read", reason=FallbackReason.INPUT_CHANGED
            )
        files[digest] = item.host_path
        inputs.append(InputFile(item.path, digest, item.is_executable))
    base = TreeBase(()) if pack is None else pack.base
    fold = windows_key if request.folds_case else str
    cwd = fold(request.cwd)
    placed = folded_inputs(inputs) if request.folds_case else inputs
    tree = base.with_files(placed, [cwd, *map(fold, request.directories)])
    # In REAPI output paths are relative to the working directory, in the daemon to the root.
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
    """Name the files and directories whose next state can be sent as a delta to this one."""
    places = {item.digest: f"file:{item.path}" for item in inputs}
    return places | {digest: f"directory:{path}" for digest, path in tree.changed.items()}
