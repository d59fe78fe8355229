"""`hpcc builds`, `hpcc report` and `hpcc trace`: what was recorded of this user's builds.

`hpcc.cache.recorder` reads and computes. These modules only say it: as text, as JSON, as one page
of HTML, or as a trace file. Every name in a record may hold anything, so each form escapes it.
"""
