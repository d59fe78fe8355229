"""The layers of a guest's container on Windows: those of the image, and the agent's on top.

Containerd holds the bytes. These modules name layers by digest and build the agent's, so that each
guest starts from content that was checked.
"""
