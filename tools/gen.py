"""Rebuild src/hpcc/_proto from proto/: messages, grpcio stubs, grpclib stubs, type stubs.

usage: gen.py [--check]     --check writes nothing and fails if the committed files differ
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "src/hpcc/_proto"
# Which gRPC stack talks each service: grpclib inside guests, grpcio on the network.
STACK = {"agent.proto": "grpclib_python", "scheduler.proto": "grpc_python"}


def generate(out: Path) -> None:
    for proto in sorted((ROOT / "proto/hpcc/v1").glob("*.proto")):
        stack = STACK[proto.name]
        subprocess.run(
            [
                sys.executable, "-m", "grpc_tools.protoc", f"-I{ROOT / 'proto'}",
                f"--python_out={out}", f"--pyi_out={out}", f"--{stack}_out={out}", str(proto),
            ],
            check=True,
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        )  # fmt: skip
    package = out / "hpcc/v1"
    for file in sorted(package.glob("*.py*")):
        text = file.read_text()
        text = re.sub(r"\bfrom hpcc\.v1 import", "from hpcc._proto import", text)
        text = re.sub(r"^import hpcc\.v1\.(\w+)$", r"from hpcc._proto import \1", text, flags=re.M)
        text = re.sub(r"\bhpcc\.v1\.(\w+_pb2)\b", r"\1", text)
        (out / file.name).write_text(text)
        file.unlink()
    package.rmdir()
    package.parent.rmdir()
    (out / "__init__.py").write_text('"""Generated; see tools/gen.py."""\n')


def main() -> int:
    if "--check" not in sys.argv[1:]:
        generate(OUT)
        return 0
    with tempfile.TemporaryDirectory() as directory:
        fresh = Path(directory)
        generate(fresh)
        names = {p.name for p in [*fresh.glob("*.py*"), *OUT.glob("*.py*")]}
        stale = sorted(
            n for n in names
            if not (fresh / n).is_file() or not (OUT / n).is_file()
            or (fresh / n).read_bytes() != (OUT / n).read_bytes()
        )  # fmt: skip
    if stale:
        print(f"generated files differ, run `make gen`: {', '.join(stale)}", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    raise SystemExit(main())
