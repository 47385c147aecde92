"""What is done to one day: archive, purge, verify, adopt, restore; and what they share, the read-back above all.

Operations do not import one another. Which days are done, and in which order, is decided in ``nightly``.
"""
