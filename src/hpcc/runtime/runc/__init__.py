"""Guests as containers of containerd and runc, on the host's own kernel.

This is weaker than a virtual machine, and its isolation label says so. It may not import another
backend.
"""
