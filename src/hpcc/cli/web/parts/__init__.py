"""What several pages of `hpcc web` are made of: the frame, the style, tables, charts and sums.

A part makes markup of values that it gets, and asks nobody. Every text becomes markup through
`hpcc.cli.builds.parts.text`. A part imports no page.
"""
