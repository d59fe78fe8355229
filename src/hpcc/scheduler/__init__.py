"""The scheduler: names a worker and signs a route token; it never receives a source byte.

It imports no store, runtime, image or compiler code. Its memory can be rebuilt from the control
store, so any scheduler of a farm can answer any client.
"""
