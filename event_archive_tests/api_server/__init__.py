"""An HTTP API of events that misbehaves on demand. Here: all of it, as a thread of a test or as a process of its own.

Not here: the tests that use it, and anything that ships.
"""
