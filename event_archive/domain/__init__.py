"""The values and rules that every other room speaks of: datasets, days, manifests, records. No I/O belongs here.

Nothing that needs a connection, an environment variable or a front end: those rooms lie above.
"""
