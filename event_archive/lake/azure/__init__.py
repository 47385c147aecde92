"""Azure Blob Storage and Data Lake Storage Gen2 as a lake, by the Blob API alone.

Whatever imports Azure's client library belongs here, except what the doctor alone asks of it.
"""
