"""The worker's process: serves REAPI v2, runs guests, writes an audit row for every release.

The modules here build the parts and keep the worker registered with its schedulers. The rooms below
do the work: `execute`, `pool`, `stores`, `audit`, `base`.
"""
