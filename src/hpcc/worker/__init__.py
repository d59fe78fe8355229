"""The worker's process: REAPI v2 in front, guests behind, an audit row for everything it releases.

The modules here build the parts and keep the worker registered with its schedulers. The rooms below
do the work: `execute`, `pool`, `stores`, `audit`, `base`.
"""
