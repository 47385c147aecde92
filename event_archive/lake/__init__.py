"""Where files lie: the protocol that every lake keeps, and the lakes themselves, a package each.

What a file holds and which day it is of is unknown here: ``domain`` and ``operations`` know it.
"""
