"""Writes what a release was built from: an in-toto statement with a SLSA v1 predicate.

    provenance.py OUTPUT FILE…

It is not signed. It records what the build reports of itself, so that a rebuild can be compared
with it. It proves nothing to a reader who does not trust the place it came from. Read from the
environment: GITHUB_REPOSITORY, GITHUB_SHA, GITHUB_REF, GITHUB_WORKFLOW_REF, GITHUB_RUN_ID,
GITHUB_RUN_ATTEMPT, GITHUB_SERVER_URL.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# The whole build environment is pinned by these.
_MATERIALS = ("requirements.lock", "requirements-dev.lock")


def _digest(path: Path) -> dict[str, str]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def statement(files: Sequence[Path], env: Mapping[str, str]) -> dict[str, Any]:
    """Return the statement over these files.

    Raises:
        KeyError: the environment is not a workflow's.
    """
    repository = f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_REPOSITORY']}"
    source = {
        "uri": f"git+{repository}@{env['GITHUB_REF']}",
        "digest": {"gitCommit": env["GITHUB_SHA"]},
    }
    locks = [{"uri": f"file:{name}", "digest": _digest(ROOT / name)} for name in _MATERIALS]
    run = f"{repository}/actions/runs/{env['GITHUB_RUN_ID']}/attempts/{env['GITHUB_RUN_ATTEMPT']}"
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": file.name, "digest": _digest(file)} for file in sorted(files)],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://actions.github.io/buildtypes/workflow/v1",
                "externalParameters": {
                    "workflow": {"ref": env["GITHUB_REF"], "repository": repository}
                },
                "resolvedDependencies": [source, *locks],
            },
            "runDetails": {
                "builder": {"id": f"{env['GITHUB_SERVER_URL']}/{env['GITHUB_WORKFLOW_REF']}"},
                "metadata": {"invocationId": run},
            },
        },
    }


def main(argv: list[str]) -> int:
    """Write the statement."""
    if len(argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    content = statement([Path(name) for name in argv[1:]], os.environ)
    Path(argv[0]).write_text(json.dumps(content, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
