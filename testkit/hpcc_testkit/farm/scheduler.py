"""`python -m hpcc_testkit.farm.scheduler --config FILE`: a scheduler that reads keys at once.

What an operator's command changed is in force after 15 seconds in the product.
"""

from __future__ import annotations

import hpcc.scheduler.certificates
import hpcc.scheduler.result_keys
from hpcc.rpc.base.process import run_service
from hpcc.scheduler.__main__ import main

if __name__ == "__main__":
    setattr(hpcc.scheduler.result_keys, "REREAD_SECONDS", 0.2)  # noqa: B010 - it is final
    setattr(hpcc.scheduler.certificates, "REREAD_SECONDS", 0.2)  # noqa: B010 - it is final
    raise SystemExit(run_service("scheduler", main))
