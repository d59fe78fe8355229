"""Windows' own calls: named pipes, who is at their other end, services. Not yet run on Windows.

All of them go through `Library`, a seam of four calls, so that they run on Linux too: tests put a
program under Wine behind it.
"""
