"""Guests as QEMU microVMs, under KVM or emulated.

`argv` is the command line as data. It may not import another backend.
"""
