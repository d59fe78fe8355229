"""`hpcc image`: make, pull, list, inspect and remove toolchain images.

The work is done by `hpcc.images`; this room shows progress and explains what could not be learned.
"""
