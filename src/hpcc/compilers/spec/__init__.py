"""Flag tables: what a row is, how rows are parsed, response files.

The grammar is data, and one parser reads all rows. This room contains no compiler's flags.
"""
