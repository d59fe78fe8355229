"""`python -I …/hpcc/warden/__main__.py FD PID`: the zygote of the worker PID, on descriptor FD.

`HELPER REQUEST` may follow: the socket of the worker's helper, and what to ask there, in hex.

Without arguments: a warden on Windows, whose standard input leads to its worker.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Import this copy of hpcc, whatever else is installed: isolated mode ignores PYTHONPATH.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    if sys.argv[1:]:
        from hpcc.warden.zygote import main

        main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
    else:
        from hpcc.warden.windows import main_on_windows

        main_on_windows()
