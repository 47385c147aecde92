"""Entries of a Redis stream, each of which becomes a row of ``positions`` before it is acknowledged.

How rows are landed is the landing's (``sources.landing``); other sources are not here.
"""
