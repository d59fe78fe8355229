"""One action, from its digest to a signed result.

A caller's rights come from the token and never from the request. No result leaves before its audit
row is durable, and nothing a guest sent is kept before it was checked.
"""
