"""Local results on Windows: what differs there from the local cache elsewhere.

Store, manifests, results, counters and the wait for equal compiles are those of every system. Here
are the seam to files (`disk`, `system_disk`), the command line of cl (`command`), and the state of
the file system in which a result is the right one (`inputs`, `state`), and hits that the launcher
answers again by itself (`kept_hits`). Not yet run on Windows.
"""
