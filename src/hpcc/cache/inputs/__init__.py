"""What a compile reads: include closure, tracked inputs, names that must stay absent.

A result is stored only with a closure that is known to be complete. In doubt this room raises
`UncacheableError`. It may not look at stored results.
"""
