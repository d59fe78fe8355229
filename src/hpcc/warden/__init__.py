"""Parses what one guest sends, in a process without rights (docs/adr/0015-warden.md).

Everything that reads hostile bytes of a guest is here or in `wire`. A worker starts wardens through
`hpcc.runtime.channel` and never imports this room. On Windows there is no zygote
(docs/adr/0038-warden-on-windows.md).
"""
