"""Reads what a guest says, in a process of its own with nothing to lose (docs/adr/0015-warden.md).

Started by `hpcc.runtime`; a worker never imports it. On Windows there is no zygote
(docs/adr/0038-warden-on-windows.md).
"""
