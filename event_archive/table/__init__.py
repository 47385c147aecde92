"""The archived table: its shape, its rows by day, its locks, the holds on its days.

What is done to a day is not here, but in ``operations``.
"""
