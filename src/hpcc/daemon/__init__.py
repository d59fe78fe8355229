"""The per-user daemon: takes launchers' requests, asks the cache, answers.

This room has sockets, pipes, threads and the life cycle of the process. It reads no compiler flag
and no stored result; that is `hpcc.cache`, which it calls through `hpcc.cache.base.api`. No fault
here may fail a build: the launcher is then told to run the compiler itself.
"""
