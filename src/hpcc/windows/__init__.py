"""Windows' own calls: named pipes, who is at their other end, services. Not yet run on Windows.

All of it goes through `Library`, a seam of four calls, so that it runs on Linux too: tests put a
program under Wine behind it.
"""
