"""The guest's agent: stage inputs, run the compiler in a sandbox, stream back what it made.

What starts it on Windows is in app.pyz (`hpcc.runtime`, `build_agent_zip`).
"""

import sys

if sys.platform != "win32":
    from hpcc.agent._container import main_in_container
    from hpcc.agent._main import main

__all__ = ["main", "main_in_container"]
