"""Unpacks an OCI layout from one tar (`skopeo copy … oci-archive:`, `docker save`)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from hpcc.core import IntegrityError
from hpcc.images.base.limits import MAX_LAYER_BYTES
from hpcc.images.base.tar import MemberKind, TarReader
from hpcc.images.oci.blobfile import ByteBudget, open_archive

# Other entries of such an archive (docker's manifest.json, links) are skipped.
_WANTED: Final = re.compile(r"(?:\./)?(oci-layout|index\.json|blobs/sha256/[0-9a-f]{64})")
_MAX_ENTRIES: Final = 10_000


def unpack_layout(archive: Path, directory: Path) -> None:
    """Write the layout in `archive` into the empty `directory`: only plain files of known names.

    Digests are not checked here: `OciLayout` checks them when it reads the layout.

    Raises:
        NotFoundError: the archive does not exist.
        IntegrityError: it is damaged or too large, or has a name twice.
    """
    budget = ByteBudget(2 * MAX_LAYER_BYTES)
    (directory / "blobs" / "sha256").mkdir(parents=True)
    with open_archive(archive, budget) as source:
        reader = TarReader(source, label=str(archive))
        for count, member in enumerate(reader.members()):
            if count >= _MAX_ENTRIES:
                raise IntegrityError(
                    f"{archive}: more than {_MAX_ENTRIES} entries", reason="too-many-entries"
                )
            name = _WANTED.fullmatch(member.name)
            if name is None or member.kind is not MemberKind.FILE:
                continue
            try:
                with (directory / name[1]).open("xb") as out:
                    for chunk in reader.content():
                        out.write(chunk)
            except FileExistsError as error:
                raise IntegrityError(
                    f"{archive}: {name[1]} is there twice", reason="tar-duplicate"
                ) from error
