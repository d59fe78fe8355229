"""Fake guests with a Windows root, in which this machine's clang-cl replaces cl."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Final

from hpcc.core import ExecEvent, ExecRequest
from hpcc.ports import BlobSource
from hpcc_testkit.guests.fake_runtime import FakeGuest

# Flags that cl accepts and clang-cl does not.
OF_CL: Final = re.compile(r"-(?:experimental:|pathmap:|wd5049)")
# A guest's report: cl prints names in lower case, and one header is only in the image.
_REPORT: Final = json.dumps(
    {
        "Version": "1.2",
        "Data": {
            "Source": "c:\\src\\x.c", "ProvidedModule": "", "PCH": "", "ImportedModules": [],
            "Includes": ["c:\\src\\inc\\h.h", "c:\\sdk\\of-the-image.h"],
        },
    }
)  # fmt: skip


def windows_image(clang_cl: Path) -> type[FakeGuest]:
    r"""Return a guest class whose root is C:\src, matched without case, as on NTFS."""

    def spelled(word: str) -> str:
        head, root, tail = word.partition("C:\\src")
        return f"{head}/src{tail.lower()}".replace("\\", "/") if root else word

    class Guest(FakeGuest):
        async def exec(self, request: ExecRequest, blobs: BlobSource) -> AsyncGenerator[ExecEvent]:
            words = [spelled(w) for w in request.argv[1:] if not OF_CL.match(w)]
            program = [str(clang_cl)]
            if "-sourceDependencies" in request.argv:
                at = words.index("-sourceDependencies")
                program = [
                    "sh",
                    "-c",
                    'printf %s "$0" > "$1"; shift; "$@"',
                    _REPORT,
                    words[at + 1],
                    *program,
                ]
                del words[at : at + 2]
            env = (("PATH", "/usr/bin:/bin"),)
            here = replace(request, argv=(*program, *words), env=env)
            async with aclosing(super().exec(here, blobs)) as events:
                async for event in events:
                    yield event

    return Guest
