"""Rebuild src/hpcc/_proto from proto/: messages, grpcio stubs, grpclib stubs, type stubs.

usage: gen.py [--check]     --check writes nothing and fails if the committed files differ
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "src/hpcc/_proto"
OWN = ROOT / "proto"
THIRD_PARTY = OWN / "third_party"
# The gRPC stack of each service: grpclib inside guests, grpcio on the network.
STACK = {
    "agent.proto": "grpclib_python",
    "audit.proto": "grpc_python",
    "builds.proto": "grpc_python",
    "explain.proto": "grpc_python",
    "inline.proto": "grpc_python",
    "meeting.proto": "grpc_python",
    "observe.proto": "grpc_python",
    "scheduler.proto": "grpc_python",
}
# Third-party interfaces, one package each: its directory, and the package of its modules.
FOREIGN = {"github.com/containerd/containerd": "containerd"}


def generate(out: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        raw = Path(directory)
        for proto in sorted((OWN / "hpcc/v1").glob("*.proto")):
            _protoc(OWN, [proto], STACK[proto.name], raw)
        _flatten(raw, out, "hpcc._proto")
    for root, package in FOREIGN.items():
        with tempfile.TemporaryDirectory() as directory:
            raw = Path(directory)
            _protoc(
                THIRD_PARTY, sorted((THIRD_PARTY / root).rglob("*.proto")), "grpclib_python", raw
            )
            (out / package).mkdir(exist_ok=True)
            _flatten(raw, out / package, f"hpcc._proto.{package}")


def _protoc(include: Path, protos: Iterable[Path], stack: str, out: Path) -> None:
    subprocess.run(
        [
            sys.executable, "-m", "grpc_tools.protoc", f"-I{include}",
            f"--python_out={out}", f"--pyi_out={out}", f"--{stack}_out={out}", *map(str, protos),
        ],
        check=True,
        env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
    )  # fmt: skip


def _flatten(raw: Path, out: Path, package: str) -> None:
    """Put all modules into one package: a proto's directories are not packages of hpcc."""
    files = sorted(raw.rglob("*.py*"))
    modules = {
        ".".join(p.relative_to(raw).with_suffix("").parts): _module(p, files)
        for p in files
        if p.suffix == ".py"
    }
    for file in files:
        text = file.read_text()
        if file.stem.endswith("_grpc") and "class " not in text:
            continue  # a proto without a service
        for dotted, name in modules.items():
            parent, _, stem = map(re.escape, dotted.rpartition("."))
            text = re.sub(
                rf"\bfrom {parent} import {stem}\b", f"from {package} import {name}", text
            )
            text = re.sub(
                rf"^import {re.escape(dotted)}$", f"from {package} import {name}", text, flags=re.M
            )
            text = re.sub(rf"(?<![\w./]){re.escape(dotted)}\b", name, text)
        (out / f"{_module(file, files)}{file.suffix}").write_text(text)
    (out / "__init__.py").write_text('"""Generated; see tools/gen.py."""\n')


def _module(file: Path, files: Iterable[Path]) -> str:
    """Return a module's name: its proto's, with the directory if two protos have that name."""
    is_shared = any(f.name == file.name and f != file for f in files)
    parent = file.parent.name
    is_second = is_shared and parent != file.stem.removesuffix("_pb2").removesuffix("_grpc")
    return f"{parent}_{file.stem}" if is_second else file.stem


def _files(directory: Path) -> dict[str, bytes]:
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*.py*")
            if "__pycache__" not in p.parts}  # fmt: skip


def main() -> int:
    if "--check" not in sys.argv[1:]:
        for package in FOREIGN.values():
            shutil.rmtree(OUT / package, ignore_errors=True)
        generate(OUT)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        made, kept = _files(fresh), _files(OUT)
    stale = sorted(n for n in made.keys() | kept.keys() if made.get(n) != kept.get(n))
    if stale:
        print(f"generated files differ, run `make gen`: {', '.join(stale)}", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    raise SystemExit(main())
