"""Positions of devices, from a Redis stream: each entry becomes a row of ``positions`` before it is acknowledged.

How rows are landed is the landing's (``sources.landing``); other sources are not here.
"""
