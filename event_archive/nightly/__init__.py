"""The night: which days have rows, in which order they are done, one after another, and how each ended.

What is done to one day is in ``operations``; who hears of it is in ``observability``.
"""
