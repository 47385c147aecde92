"""The sources in Dagster: of each an asset with its checks, its job and its schedule; and what all of them share.

How events are fetched and landed is not here (``event_archive.sources``), nor what is done with them afterwards.
"""
