"""What a source file's text refers to: include lines, data files, the include closure.

The closure is a superset of what the compiler reads. If the text cannot decide it, the answer says
so and the caller asks the compiler.
"""
