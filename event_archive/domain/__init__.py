"""Values and rules that other rooms share: datasets, days, manifests, the archive's record, progress.

No I/O belongs here, and nothing that needs a connection, an environment variable or a front end.
"""
