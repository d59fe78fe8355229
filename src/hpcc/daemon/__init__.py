"""The per-user daemon: decides each compile, keeps the private cache, talks to a farm.

Commands use `start`, `stop` and `query` of `client`; other packages use nothing else.
"""
