"""The guest's agent: stage inputs, run the compiler in a sandbox, stream back what it made.

What starts it on Windows is in app.pyz (`hpcc.runtime`, `build_agent_zip`).
"""
