"""Azure Blob Storage and Data Lake Storage Gen2 as a lake, by the Blob API alone.

Everything that imports Azure's client library is here, except what the doctor alone asks of it.
"""
