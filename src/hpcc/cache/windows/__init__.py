"""Local results on Windows: what differs there from the local cache elsewhere.

Store, manifests, results, counters and the wait for equal compiles are those of every system. Here
are the seam to files (`disk`, `system_disk`), the command line of cl (`command`), and the state of
the file system in which a result is the right one (`inputs`, `state`). Not yet run on Windows.
"""
