"""The guest's agent: stage inputs, run the compiler in a sandbox, stream back what it made."""

from hpcc.agent._main import main

__all__ = ["main"]
