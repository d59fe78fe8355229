"""The worker's end of a guest's Exec stream: one call, the warden's frames, checked replies.

The guest's stream itself belongs to the warden, and no module here reads it. What the warden sends
is checked again, because a warden may have been taken over by its guest.
"""
