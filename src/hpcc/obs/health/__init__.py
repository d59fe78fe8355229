"""Tells whether a service serves, and why not: to its service manager, to probes, to operators.

A service names its conditions when it starts. Each is read when somebody asks, from memory, so that
a flood of questions costs no more than the answers. What takes time to find out is looked at in the
background (`watched`).
"""
