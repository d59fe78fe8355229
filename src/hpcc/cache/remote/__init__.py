"""What may be sent to a guest: input tree, guest paths, the request for one compile.

It decides whether a compile can run in a guest and builds the request. It never talks to a farm
(that is `hpcc.dispatch`) and reads no stored result.
"""
