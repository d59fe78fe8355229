"""A small HTTP server for figures and pages of this machine, without a dependency.

`request` reads the head of a request, `serve` keeps connections inside their limits. A connection
has one request, and a request has no body. What comes in is hostile: a head has at most 8 KiB and
five seconds, few connections are served at once, and a page in a browser on this machine cannot
read loopback under a name that it made up.
"""
