"""The store that ``LOGS_URL`` names. Not here: what a store does."""

from collections.abc import Callable
from pathlib import Path

from event_archive.config.sources import LogsSettings
from event_archive.sources.log_files.stores import Store


def open_store(settings: LogsSettings, told_to_stop: Callable[[], bool] = lambda: False) -> Store:
    """The store of the settings; connects to nothing. ``told_to_stop`` ends what a bucket waits for.

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

        return Bucket(name, prefix, settings, told_to_stop)
    from event_archive.sources.log_files.azure import Container

    return Container(name, prefix, settings)
