"""Puts the rows of a day's file back into a table: the day, the table that is filled, and what its types would lose.

The read-back is not here: every operation shares it.
"""
