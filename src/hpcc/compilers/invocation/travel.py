"""What the cache asks a compiler family about other checkouts and farms; see `family`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from hpcc.compilers.invocation.analyser import Analyser
from hpcc.compilers.invocation.content import ContentForm
from hpcc.compilers.invocation.guest import GuestCommand, GuestMap
from hpcc.compilers.invocation.invocation import Invocation
from hpcc.compilers.scan.comments import LexMode
from hpcc.core import Toolchain


class Travel(Protocol):
    """What a compile needs to give the same result in another checkout or on a farm."""

    @property
    def analyser(self) -> Analyser | None:
        """What a run needs for a guest if it reports and makes nothing; None for a compiler."""
        ...

    @property
    def never_shared(self) -> str:
        """Return why no compile of this family is shared; "" if some are."""
        ...

    def why_private(self, invocation: Invocation, root: bytes, major: int) -> str:
        """Return why a command line is not shared between checkouts; "" if it is."""
        ...

    def mark_depfile(self, data: bytes, root: bytes) -> bytes | None:
        """Return a depfile with a mark for the root; None if that cannot be reversed."""
        ...

    def render_depfile(self, data: bytes, root: bytes) -> bytes:
        """Return a marked depfile as the compile in the checkout at `root` writes it."""
        ...

    def content_form(self, invocation: Invocation, major: int) -> ContentForm | None:
        """Return what a content key holds; None if a flag is not proved for it."""
        ...

    def lex_mode(
        self, invocation: Invocation, major: int, *, has_hidden_flags: bool
    ) -> LexMode | None:
        """Return how to leave comments out of this compile's files; None: they may be seen."""
        ...

    def respelled_depfile(
        self,
        data: bytes,
        old_targets: tuple[bytes, ...],
        new_targets: tuple[bytes, ...],
        rename: Callable[[bytes], bytes],
    ) -> bytes | None:
        """Return a depfile with other targets and names; None if its layout is not understood."""
        ...

    def visible_names(self, text: bytes, source: bytes) -> tuple[bytes, ...] | None:
        """Return the files whose names show in what `names_arguments` made; None: any may show."""
        ...

    def image_version(
        self, program: bytes, image: Sequence[Toolchain] | None
    ) -> tuple[int, ...] | None:
        """Return the version of an image's compiler if flags depend on it; None: unknown.

        Raises:
            NotPortableError: flags depend on it, and the image has no such compiler.
        """
        ...

    def guest_command(
        self,
        invocation: Invocation,
        guest: GuestMap,
        version: tuple[int, ...],
        accepts: Callable[[tuple[bytes, ...]], bool],
    ) -> GuestCommand:
        """Return the arguments for a guest whose compiler has this version.

        `accepts` returns whether that compiler, with these arguments, compiles an `empty.c` in the
        working directory without a diagnostic.

        Raises:
            NotPortableError: an argument has a meaning only on this machine.
        """
        ...

    def guest_environment(self, env: Mapping[bytes, bytes], guest: GuestMap) -> dict[bytes, bytes]:
        """Return the variables of this family as the guest must spell them.

        Raises:
            NotPortableError: one of them refers to something that no guest has.
        """
        ...

    def search_values(self, env: Mapping[bytes, bytes]) -> tuple[bytes, ...]:
        """Return the values of the variables that a guest gets as search paths."""
        ...

    def client_stdout(
        self, invocation: Invocation, text: bytes, is_here: Callable[[bytes], bool]
    ) -> bytes:
        """Return a guest's stdout, with this machine's paths, in the form of a local compile."""
        ...
