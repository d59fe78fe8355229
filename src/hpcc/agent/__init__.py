"""The guest's agent: stages inputs, runs the compiler in a sandbox, streams outputs back.

It is the only service in a guest and serves one session. It ships only with `core`, `wire`, its
generated stubs and grpclib, because its files are part of the agent's digest and so of the farm's
keys. On Windows the modules are started from app.pyz (`hpcc.runtime.windows.agent`).
"""
