"""Stores for blobs and results: files that are whole or absent, and shared stores behind them.

Every byte is checked against its digest when it is read. Each decorator adds one concern. A fault
of a shared store is a miss, never an error of a build.
"""
