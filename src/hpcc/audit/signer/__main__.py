"""`python -I …/hpcc/audit/signer/__main__.py CONTROL HEADS DIRECTORY WORKER [UID]`: a signer.

CONTROL and HEADS are descriptors of its connections to the process that writes the trail.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Import this copy of hpcc, whatever else is installed: isolated mode ignores PYTHONPATH.
    sys.path.insert(0, str(Path(__file__).resolve().parents[3]))
    from hpcc.audit.signer.main import main

    main(sys.argv[1:])
