"""The calls of a bot to a foreign engine: RWAPI's Bots service, and results in the engine's form.

The messages come from buildgrid-common, as those of REAPI do. What an engine sends is hostile:
`messages` bounds and checks it before anything is made of it.
"""
