"""Positions of devices, from a Redis stream: its consumer group, records as rows, the table and its partitions.

How rows are landed is the landing's (``sources.landing``); other sources are not here.
"""
