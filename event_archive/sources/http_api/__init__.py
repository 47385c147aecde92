"""Events from an HTTP API: requests within its limits, pages of every kind, positions that outlast a crash.

How rows are landed is not here, and nothing that another source needs.
"""
