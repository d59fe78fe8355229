"""How this operating system starts a guest's warden, and the label for audit rows."""

from __future__ import annotations

import sys

if sys.platform == "win32":
    from hpcc.runtime.channel.warden_windows import WindowsWardens, warden_label

    launch_warden = WindowsWardens().launch
else:
    from hpcc.runtime.channel.warden import launch_warden
    from hpcc.runtime.host.users import warden_label

__all__ = ["launch_warden", "warden_label"]
