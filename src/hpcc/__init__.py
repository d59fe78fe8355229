"""hpcc: a distributed compiler cache that a security reviewer will approve."""

from typing import Final

__version__: Final = "0.1.0"
