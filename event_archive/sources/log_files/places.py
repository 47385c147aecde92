"""The store that ``LOGS_URL`` names. Not here: what a store does."""

from pathlib import Path

from event_archive.config.sources import LogsSettings
from event_archive.sources.log_files.stores import Store


def open_store(settings: LogsSettings) -> Store:
    """The store of the settings; connects to nothing.

    Raises:
        ConfigurationError: what reaches it is incomplete.
    """
    scheme, _, rest = settings.logs_url.partition("://")
    if scheme == "file":
        from event_archive.sources.log_files.local import Folder

        return Folder(Path(rest))
    name, _, prefix = rest.partition("/")
    if scheme == "s3":
        from event_archive.sources.log_files.s3 import Bucket

        return Bucket(name, prefix, settings)
    from event_archive.sources.log_files.azure import Container

    return Container(name, prefix, settings)
