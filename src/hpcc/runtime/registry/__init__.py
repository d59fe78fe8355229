"""Which backends there are, and the choice of one for a worker.

The only room of `runtime` that imports backends. `auto` picks a virtual machine
backend; a weaker one must be asked for by name.
"""
