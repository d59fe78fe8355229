"""Copies a worker's audit trail to sinks besides its own disk: schedulers, object stores.

This room reads the spool and never writes to it. The spool keeps a segment until each sink has
confirmed it.
"""
