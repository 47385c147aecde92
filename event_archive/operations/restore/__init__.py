"""The restore of a day: putting its rows back, the table that is filled, what must be seen before.

The read-back is not here, since all operations share it.
"""
