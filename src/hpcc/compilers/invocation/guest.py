"""Translates one compile's arguments for a guest, where the project root is `/src`."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hpcc.compilers.invocation.depfile import DepRule, parse_depfile, render_depfile
from hpcc.compilers.invocation.invocation import Invocation, Language
from hpcc.compilers.spec.table import Effect, Flag, Operand
from hpcc.core import SOURCE_ROOT, CallerError
from hpcc.core.reasons.fallback import FallbackReason

GUEST_ROOT: Final = SOURCE_ROOT.encode()
RELATIVE: Final = b"."
"""What `/src` is called in an object that must not depend on where the project is."""

NO_CLOCK: Final = b"-Werror=date-time"
"""A clock in the object is an early, clear failure."""

WIDE_ROOT: Final = GUEST_ROOT + b"/hpcc-project"
"""Where the project's root is in a guest that also gets directories from outside of the root."""

INSTALLED: Final = GUEST_ROOT + b"/hpcc-installed"
"""Where such a guest has `/` of this machine. No prefix map matches both this and `WIDE_ROOT`."""

SAME_LENGTH: Final = GUEST_ROOT + b"/" + b"q7zk2xw9jv" * 25
"""Its start, as long as the root's path here, is where the project is if objects name it anyway.

An object in which the one is replaced by the other is what a compile here writes, as long as the
compiler only copies the name.
"""

SHORTEST_ROOT: Final = len(GUEST_ROOT) + 5
"""A shorter start could be in an object by chance."""

SAME_LENGTH_WORD: Final = b"q7z"
"""Holds of each such path. A source with it could show the path in an object by itself."""

BUILD_NAME: Final = b"hpcc-build-directory"
"""What a guest calls a build directory whose name the object does not show."""

# Does not match inside another path, such as /usr/src/.
_IN_TEXT: Final = re.compile(rb"(?<![\w./+~-])" + re.escape(GUEST_ROOT) + rb"/")
_IN_WIDE_TEXT: Final = re.compile(_IN_TEXT.pattern + rb"hpcc-(project|installed)/")
_PATH_EFFECTS: Final = frozenset({Effect.OUTPUT, Effect.FORCED_INCLUDE})


class NotPortableError(Exception):
    """This compile cannot run in a guest. `reason` is counted, and it runs locally.

    `detail` names the file or the flag, with what to do; "" if the reason says it all.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail = reason, detail


class GuestCommand(NamedTuple):
    """The arguments after the program's name in a guest, and the ones that were added here."""

    arguments: tuple[bytes, ...]
    injected: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class GuestMap:
    """Translates this machine's paths. `root` and `cwd` are absolute, normal and real.

    `shown` is what an object calls the root: `RELATIVE`, or the path that the compiler of this
    machine would write. `base` is the root's path in the guest. With `WIDE_ROOT` files for which
    `is_installed` holds are sent, too. `build` is a directory below the root, or b"": the guest
    calls it `BUILD_NAME`, beside the same neighbours.
    """

    root: bytes
    cwd: bytes
    is_system: Callable[[bytes], bool]
    shown: bytes = RELATIVE
    base: bytes = GUEST_ROOT
    is_installed: Callable[[bytes], bool] = field(default=lambda _path: False, compare=False)
    build: bytes = b""

    def relative(self, path: bytes) -> bytes:
        """Return the path in the guest, relative to `/src`; "" for `/src` itself.

        Raises:
            NotPortableError: it is outside of the root, and not sent.
        """
        full = posixpath.normpath(posixpath.join(self.cwd, path))
        prefix = self.root.rstrip(b"/") + b"/"
        if full != self.root and not full.startswith(prefix):
            if self.is_wide and self.is_installed(full):
                return INSTALLED[len(GUEST_ROOT) + 1 :] + full
            raise NotPortableError(FallbackReason.OUTSIDE_ROOT, full.decode("utf-8", "replace"))
        if self.build and (full == self.build or full.startswith(self.build + b"/")):
            parent = self.build.rpartition(b"/")[0]
            full = parent + b"/" + BUILD_NAME + full[len(self.build) :]
        inside = full[len(prefix) :]
        top = self.base[len(GUEST_ROOT) + 1 :]
        return top + b"/" + inside if top and inside else top or inside

    @property
    def is_wide(self) -> bool:
        """Whether the guest also gets files from outside of the root."""
        return self.base == WIDE_ROOT

    @property
    def has_same_length(self) -> bool:
        """Whether the root's path in the guest can be replaced in an object; see `SAME_LENGTH`."""
        return self.base not in {GUEST_ROOT, WIDE_ROOT}

    def output(self, data: bytes) -> bytes:
        """Return an output with this machine's root in place of a guest's of the same length."""
        return data.replace(self.base, self.root) if self.has_same_length else data

    def is_sent(self, path: bytes) -> bool:
        """Tell whether a normal path of this machine is one that the guest may have from it."""
        is_inside = path == self.root or path.startswith(self.root.rstrip(b"/") + b"/")
        return is_inside or (self.is_wide and self.is_installed(path))

    def text(self, text: bytes) -> bytes:
        """Return a guest's text with this machine's paths."""
        if self.has_same_length:
            text = text.replace(self.base, self.root)
        elif self.is_wide:
            own = self.root.rstrip(b"/") + b"/"
            text = _IN_WIDE_TEXT.sub(lambda m: own if m[1] == b"project" else b"/", text)
        else:
            text = guest_text(text, self.root)
        name = self.build.rpartition(b"/")[2]
        return text.replace(BUILD_NAME, name) if name else text

    def spell(self, path: bytes) -> bytes:
        """Return the guest's spelling of a file of the project; relative names stay unchanged.

        Where objects call the root by its own path, the spelling below it stays unchanged, too:
        compilers write `ROOT/./src` as it is.

        Raises:
            NotPortableError: it is outside of the root, or spelled through directories above it.
        """
        inside = self.relative(path)
        if not path.startswith(b"/"):
            top = len(self.root.rstrip(b"/")) if self.base != GUEST_ROOT + self.root else 0
            if not stays_below(self.cwd[top:] + b"/" + path):
                raise NotPortableError(FallbackReason.OUTSIDE_ROOT, path.decode("utf-8", "replace"))
            return path
        if inside.startswith(INSTALLED[len(GUEST_ROOT) + 1 :] + b"/"):
            if posixpath.normpath(path) != path:
                raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, as_text([path])[0])
            return INSTALLED + path
        is_renamed = bool(self.build) and BUILD_NAME in inside
        if self.shown != RELATIVE and not is_renamed:
            tail = path[len(self.root) :]
            if not path.startswith(self.root) or not stays_below(tail):
                raise NotPortableError(FallbackReason.NAMES_IN_OUTPUT, as_text([path])[0])
            return self.base + tail
        return GUEST_ROOT + b"/" + inside if inside else GUEST_ROOT

    def has_directory(self, path: bytes) -> bool:
        """Tell whether a directory is sent, or one of system headers in the image."""
        full = posixpath.normpath(posixpath.join(self.cwd, path))
        return self.is_sent(full) or (path.startswith(b"/") and self.is_system(full))

    def spell_directory(self, path: bytes) -> bytes:
        """Like `spell`, but a directory of system headers is in the image and stays unchanged."""
        if path.startswith(b"/") and self.is_system(posixpath.normpath(path)):
            return path
        return self.spell(path)


def stays_below(tail: bytes) -> bool:
    """Tell whether no part of a path behind its root leads above the root."""
    depth = 0
    for part in tail.split(b"/"):
        depth += -1 if part == b".." else part not in {b"", b"."}
        if depth < 0:
            return False
    return True


def guest_arguments(
    invocation: Invocation, guest: GuestMap, injected: tuple[bytes, ...] = ()
) -> tuple[bytes, ...]:
    """Return the arguments with translated paths, and with `injected`.

    Raises:
        NotPortableError: an argument has a meaning only on this machine.
    """
    if invocation.is_native:
        raise NotPortableError(FallbackReason.NATIVE)
    is_plain = invocation.language is Language.PLAIN_ASSEMBLER
    if invocation.language.is_preprocessed and not is_plain:
        raise NotPortableError(FallbackReason.NO_PREPROCESSING)
    result: list[bytes] = []
    for part in invocation.parts:
        if isinstance(part, Operand):
            result.append(guest.spell(part.name))
        else:
            result.extend(_flag(part, guest))
    return (*result, *injected)


def warns_of_missing_directories(invocation: Invocation) -> bool:
    """Tell whether the compiler names search directories of its arguments that do not exist."""
    warning = b"missing-include-dirs"
    return any(
        warning in flag.raw[0] and not flag.raw[0].startswith(b"-Wno-" + warning)
        for flag in invocation.flags
    )


def _flag(flag: Flag, guest: GuestMap) -> tuple[bytes, ...]:
    effect, spelling = flag.spec.effect, flag.spec.spelling
    if effect is Effect.INCLUDE_DIR:
        # The closure has no file of a directory elsewhere, but the image may have one.
        is_there = guest.has_directory(flag.value)
        return _respell(flag, guest.spell_directory(flag.value)) if is_there else ()
    if effect in _PATH_EFFECTS or spelling == "-MF":
        # A forced include may be found on the search path, so a plain name stays unchanged.
        return _respell(flag, guest.spell(flag.value))
    if effect in {Effect.INPUT, Effect.TOOLS}:
        raise NotPortableError(FallbackReason.EXTRA_INPUT)
    if spelling == "-frecord-gcc-switches":
        raise NotPortableError(
            FallbackReason.RECORD_SWITCHES
        )  # the object would record the flags that are added for a guest
    if effect is Effect.SEARCH and b"/" in flag.value:
        raise NotPortableError(FallbackReason.SYSROOT)
    if spelling == "-Wp," and flag.value.startswith((b"-MD,", b"-MMD,")):
        mode, _, name = flag.value.partition(b",")
        return (b"-Wp," + mode + b"," + guest.spell(name),)
    if b"-prefix-map=" in flag.raw[0]:
        return (guest_prefix_map(flag.raw[0], guest), *flag.raw[1:])
    return flag.raw


def _respell(flag: Flag, value: bytes) -> tuple[bytes, ...]:
    if len(flag.raw) > 1:
        return (flag.raw[0], value)
    return (flag.spec.spelling.encode() + value,)


def prefix_map(argument: bytes, root: bytes, base: bytes = GUEST_ROOT) -> bytes:
    """Return a prefix-map flag that maps from the root or below it, changed to map from `base`."""
    name, _, value = argument.partition(b"=")
    old, equals, new = value.rpartition(b"=")
    if old == root or old.startswith(root + b"/"):
        old = base + old[len(root) :]
    return name + b"=" + old + equals + new


def guest_prefix_map(argument: bytes, guest: GuestMap) -> bytes:
    """Return a prefix-map flag of the user with the same effect on the names in a guest."""
    name, _, value = argument.partition(b"=")
    old, equals, new = value.rpartition(b"=")
    if guest.shown != RELATIVE and equals and old != guest.root and guest.root.startswith(old):
        return name + b"=" + guest.base + b"=" + new + guest.root[len(old) :]
    return prefix_map(argument, guest.root, guest.base)


def guest_text(text: bytes, root: bytes) -> bytes:
    """Return a guest's diagnostics with this machine's paths."""
    return _IN_TEXT.sub(lambda _match: root.rstrip(b"/") + b"/", text)


def client_depfile(
    data: bytes,
    spelled: Callable[[bytes], bytes],
    exists: Callable[[bytes], bool],
    keeps: Callable[[bytes], bool],
) -> bytes:
    """Return a guest's depfile in the spelling of the client's own compile.

    `spelled` returns this machine's spelling of a guest's name. Headers of the image that this
    machine lacks are left out: make would fail on them. `keeps` returns which names belong to the
    project and always stay.

    Raises:
        CallerError: the bytes are not a depfile.
    """
    rules = parse_depfile(data)
    rendered = []
    is_changed = False
    for rule in rules:
        targets = tuple(map(spelled, rule.targets))
        names = tuple(map(spelled, rule.prerequisites))
        kept = tuple(n for n in names if keeps(n) or exists(n))
        if not kept and not names and not all(keeps(t) or exists(t) for t in targets):
            is_changed = True  # the empty rule that -MP writes for a header that was left out
            continue
        new = DepRule(targets, kept)
        is_changed = is_changed or new != rule
        rendered.append(new)
    if not rendered:
        raise CallerError("the guest's dependency file is empty", reason="depfile")
    # Unchanged bytes keep the compiler's own line breaks.
    return render_depfile(rendered) if is_changed else data


def as_text(arguments: Sequence[bytes]) -> tuple[str, ...]:
    """Return the arguments decoded for the wire.

    Raises:
        NotPortableError: an argument is not UTF-8.
    """
    try:
        return tuple(a.decode("utf-8") for a in arguments)
    except UnicodeDecodeError as error:
        raise NotPortableError(FallbackReason.NOT_UTF_8) from error
