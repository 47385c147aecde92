"""What is done to one day: archive, purge, verify, adopt, restore; and the read-back and CSV format that they share.

Operations do not import one another; which days they are done to, and in which order, is decided in ``nightly``.
"""
