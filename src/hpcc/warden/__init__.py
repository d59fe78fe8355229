"""Parses what one guest sends, in a process without rights (docs/adr/0015-warden.md).

All code that parses a guest's bytes is here or in `wire`. A worker starts wardens through
`hpcc.runtime.channel` and never imports this room. On Windows there is no zygote
(docs/adr/0038-warden-on-windows.md).
"""
