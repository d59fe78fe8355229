"""The compile cache as a library: from a launcher's request to a hit, a miss or a bypass.

The modules here decide between the local strategy, the farm and a bypass; the rooms do the work.
Their order, top to bottom: `remote` and `results`, `inputs`, `key`, `host`, `replay`, `base`. The
cache knows no socket: the daemon calls it through `hpcc.cache.base.api`.
"""
