"""Values and rules that other rooms share: datasets, days, manifests, records, progress.

No I/O belongs here, and nothing that needs a connection, an environment variable or a front end.
"""
