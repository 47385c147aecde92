"""A folder as a lake, for trials, tests and machines without a cloud: atomic, conditional files on POSIX.

Object stores do not belong here.
"""
