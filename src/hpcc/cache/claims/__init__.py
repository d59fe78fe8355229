"""Signed records of compiles that ended on this machine, for `hpcc audit coverage`.

They say what this user's daemon saw, under a key of this user. That is weaker than a worker's row:
who can run programs as the user can sign anything. So they name where an object came from, and
never count as a guest.
"""
