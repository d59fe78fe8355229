"""What the agent does on every system: session, checked frames, blobs, standard streams.

The host is trusted no more than it needs to be: every frame is checked before memory is allocated.
Nothing here may import `agent.linux` or `agent.windows`; `machine` is the seam between them.
"""
