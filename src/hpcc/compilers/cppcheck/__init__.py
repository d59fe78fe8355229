"""cppcheck's options, with every name that its own preprocessor may look up.

cppcheck holds no compiler. It has its own preprocessor, knows no search path but `-I`, and
writes no list of what it read.
"""
