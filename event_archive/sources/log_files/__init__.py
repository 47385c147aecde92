"""Log files of an S3 bucket, an Azure container or a folder, each of which becomes rows of ``logs`` once.

How rows are landed is the landing's (``sources.landing``); other sources are not here.
"""
