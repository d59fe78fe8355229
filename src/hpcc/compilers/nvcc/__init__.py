"""nvcc: its command line, its answers, and what differs from a compile by its host compiler.

nvcc runs a host GCC as preprocessor and compiler, and programs of the toolkit between the two. One
command is one action: what these programs do is not looked at.
"""
