"""One action, from its digest to a signed result.

A caller's rights come from its token and never from the request. A result is released only after
its audit row is durable, and nothing that a guest sent is stored before it was checked.
"""
