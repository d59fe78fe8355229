"""The agent's machine on Windows: job objects and file trees. Not yet tested on Windows.

This room does not import `agent.linux`; what both share is in `agent.base`.
"""
