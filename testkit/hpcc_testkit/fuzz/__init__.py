"""Fuzzes the parsers of hostile bytes that are written in Python, guided by the branches they take.

`engine` finds inputs, `targets` lists the parsers, and `python -m hpcc_testkit.fuzz` runs one.
"""
