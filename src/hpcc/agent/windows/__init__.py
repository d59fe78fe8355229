"""The agent's machine on Windows: job objects and file trees. Not yet run there.

It may not import `agent.linux`; what both share is in `agent.base`.
"""
