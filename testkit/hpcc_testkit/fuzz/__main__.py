"""`python -m hpcc_testkit.fuzz TARGET [SECONDS]`: fuzz one parser for SECONDS of CPU time.

Inputs that take a new branch are kept in the target's corpus. An input that shows a defect is
written to build/fuzz; put it into the corpus under a descriptive name when the defect is mended.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import secrets
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hpcc_testkit.fuzz.engine import DefectError, Fuzzer, limit_memory
from hpcc_testkit.fuzz.targets import TARGETS

_CORPUS: Final = Path(__file__).resolve().parents[3] / "tests/fuzz/corpus"


def main(argv: Sequence[str]) -> int:
    """Return 0 if no input showed a defect."""
    parser = argparse.ArgumentParser(prog="python -m hpcc_testkit.fuzz", description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("seconds", type=float, nargs="?", default=60.0, help="of CPU time")
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    parser.add_argument("--write-seeds", action="store_true", help="make the first inputs anew")
    asked = parser.parse_args(argv)
    target = TARGETS[asked.target]
    place = _CORPUS / target.name
    place.mkdir(parents=True, exist_ok=True)
    if asked.write_seeds or not list(place.iterdir()):
        for name, data in target.seeds().items():
            (place / name).write_bytes(data)
    logging.disable()
    warnings.simplefilter("ignore")
    limit_memory()
    inputs = target.inputs(_CORPUS)
    print(f"fuzz: {target.name}: seed {asked.seed}, {len(inputs)} inputs", flush=True)
    try:
        found = Fuzzer(target.run, list(inputs.values()), asked.seed).fuzz(asked.seconds)
    except DefectError as error:
        return _defect(target.name, error)
    for data in found.kept:
        (place / f"branch-{hashlib.sha256(data).hexdigest()[:12]}").write_bytes(data)
    print(
        f"fuzz: {target.name}: no defect, {found.executions} executions,"
        f" {found.cpu_seconds:.0f} CPU seconds, {len(found.kept)} inputs took new branches"
    )
    return 0


def _defect(name: str, error: DefectError) -> int:
    place = Path("build/fuzz")
    place.mkdir(parents=True, exist_ok=True)
    file = place / f"{name}-{hashlib.sha256(error.data).hexdigest()[:12]}"
    file.write_bytes(error.data)
    traceback.print_exception(error)
    print(f"fuzz: {name}: DEFECT: {error}; the input is in {file}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
