"""The agent's program for Windows, `app.pyz`, and the layer that contains it.

It is pure Python: native modules cannot be imported from an archive, and the packages have Python
replacements for theirs. It is not compressed, so that equal sources give equal bytes with every
zlib.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Iterator
from typing import Final

from hpcc.core import CallerError
from hpcc.runtime.assets.agent_files import PACKAGES, own_files, package_files
from hpcc.runtime.windows.layers.layer import WindowsLayer, build_windows_layer, read_python_zip

AGENT_STUB_NAME: Final = "hpcc-agent.exe"
AGENT_ZIP_NAME: Final = "app.pyz"
# The first version with socket.AF_HYPERV.
MINIMUM_PYTHON: Final = 12
_PTH: Final = re.compile(r"python/python3([0-9]{1,3})\._pth", re.IGNORECASE)
_MAIN: Final = b"""from hpcc.agent.windows.main import main_on_windows

main_on_windows()
"""
# zipimport finds a package only if its directory has an entry or a module.
_NAMESPACES: Final = ("google/__init__.py",)
_STAMP: Final = (2024, 1, 1, 0, 0, 0)
_UNIX: Final = 3


def build_agent_zip() -> bytes:
    """Return `app.pyz`; equal sources and packages give equal bytes.

    Raises:
        InfrastructureError: a package of the agent is not installed.
    """
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(_modules()):
            info = zipfile.ZipInfo(name, _STAMP)
            info.create_system = _UNIX
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)
    return out.getvalue()


def _modules() -> Iterator[tuple[str, bytes]]:
    yield "__main__.py", _MAIN
    for name in _NAMESPACES:
        yield name, b""
    for name, path in own_files():
        yield name, path.read_bytes()
    for package in PACKAGES:
        for name, path in package_files(package):
            if name.endswith(".py"):
                yield name, path.read_bytes()


def build_agent_layer(stub: bytes, python_zip: bytes, python_sha256: str) -> WindowsLayer:
    """Return the layer of a whole agent: the stub, CPython's embeddable package, the program.

    Raises:
        CallerError: `python_zip` does not have this SHA-256, or its version is too old.
        InfrastructureError: a package of the agent is not installed.
    """
    python = read_python_zip(python_zip, python_sha256)
    versions = [int(match[1]) for name in python if (match := _PTH.fullmatch(name))]
    if len(versions) != 1 or versions[0] < MINIMUM_PYTHON:
        raise CallerError(
            f"the Python package is not 3.{MINIMUM_PYTHON} or newer: take the Windows embeddable "
            "package (64-bit) of a later release",
            reason="python-version",
        )
    return build_windows_layer({AGENT_STUB_NAME: stub, AGENT_ZIP_NAME: build_agent_zip(), **python})
