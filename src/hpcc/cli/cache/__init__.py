"""Commands about this user's cache and daemon: start, stop, stats, explain, config.

They ask the daemon over its socket, and read its files only where it may be down.
"""
