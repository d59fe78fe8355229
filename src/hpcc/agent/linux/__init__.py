"""The agent's machine on Linux: cgroups, namespaces, file trees, and the channels to its host.

The compiler that runs here is hostile to the agent. Paths are opened relative to descriptors, and
links are never followed.
"""
