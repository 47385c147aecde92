"""The night: which days have rows, in which order they are done, one after another, and how each ended.

Dagster's schedule and assets share ``backlog``, ``plan`` and ``replicas``; ``run``, ``outcome``, ``attempts`` and
``estimate`` are the command line's alone. What is done to one day is in ``operations``; who hears of it is in
``observability``.
"""
