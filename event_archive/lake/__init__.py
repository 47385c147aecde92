"""Where files lie: the protocol that every lake keeps, and a package for each kind of lake.

What a file holds, and which day it belongs to, is not known here, but in ``domain`` and ``operations``.
"""
