"""What a run of an analyser needs for a guest; see `family`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from hpcc.compilers.invocation.guest import GuestCommand, GuestMap
from hpcc.compilers.invocation.invocation import Invocation


class Analyser(Protocol):
    """An analyser's side of a run in a guest, where the project is below `/src`.

    A finding names files by absolute paths, and filters compare such paths. In a guest each of
    them is `/src` with the path of this machine behind it, and the client takes `/src` away again.
    Whatever may see that difference is refused here.
    """

    @property
    def asked(self) -> frozenset[int]:
        """The versions whose reports in a guest were compared with those of a machine."""
        ...

    def guest_command(self, invocation: Invocation, guest: GuestMap) -> GuestCommand:
        """Return the arguments for a guest.

        Raises:
            NotPortableError: an argument may mean something else there.
        """
        ...

    def made_files(self, invocation: Invocation, guest: GuestMap) -> Mapping[bytes, bytes]:
        """Return the files that only a guest gets: contents by absolute paths of this machine.

        Raises:
            NotPortableError: as `guest_command`.
        """
        ...

    def working_directory(self, invocation: Invocation) -> bytes:
        """Return where the run happens if that is not where its names are relative to, else b""."""
        ...

    def words_of_place(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return words with which a text may depend on how long its absolute name is."""
        ...

    def settings(self, invocation: Invocation) -> tuple[bytes, ...]:
        """Return the files with settings that flags name."""
        ...

    def place_in(self, text: bytes, root: bytes) -> str:
        """Return what in such a file may depend on where the project is; "" for nothing."""
        ...
