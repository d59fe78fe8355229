"""What the agent does on every system: session, checked frames, blobs, standard streams.

The host is trusted only as far as necessary: every frame is checked before memory is allocated.
This room imports neither `agent.linux` nor `agent.windows`; `machine` is the seam between them.
"""
