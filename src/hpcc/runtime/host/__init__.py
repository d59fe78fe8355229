"""What backends need of the host system: users, threads, tools, leftovers of killed processes.

Tools run with a deadline and bounded output. It knows no backend.
"""
