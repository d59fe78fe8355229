"""What a dispatcher remembers, in bounded memory: digests of files, actions that ended guests.

Both can be lost. A digest that is forgotten is computed again, and a death that is forgotten costs
one guest more.
"""
