"""What several command groups share: progress, the lock of `hpcc up`, the fallback line.

It may not import a command group.
"""
