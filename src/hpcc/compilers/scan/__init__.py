"""What a source file's text reaches: include lines, data files, the include closure.

The closure is a superset of what the compiler reads. Where the text cannot tell, the answer says so
and the caller asks the compiler.
"""
