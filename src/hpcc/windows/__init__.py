"""Calls of Windows: named pipes and the users at their ends, files, services. Not yet run there.

All calls go through `Library`, a seam of four methods. Tests on Linux put a program under Wine
behind it.
"""
