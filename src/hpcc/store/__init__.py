"""Where blobs and results are kept: files that are whole or absent, and shared stores behind them.

Every byte is checked against its digest when it is read. Each decorator adds one concern, and a
fault of a shared store is a miss, never an error of a build.
"""
