"""hpcc: a distributed compiler cache that a security reviewer will approve.

ARCHITECTURE.md says what each package is for. Nothing but the version is here.
"""

from typing import Final

__version__: Final = "0.1.0"
