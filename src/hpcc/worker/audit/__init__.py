"""Where a worker's audit trail goes besides its own disk: schedulers, object stores.

It reads the spool and never writes to it. Until a sink has confirmed a segment, the spool keeps it.
"""
