"""Moves aged events out of PostgreSQL into one CSV a UTC day, and deletes only what it has read back.

Here: what other projects import. Not here: an import of Dagster, which the command line does without.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from event_archive.defs.component import ArchivedTable

__all__ = ["ArchivedTable"]


def __getattr__(name: str) -> object:
    """Imports Dagster only where somebody asks for the component."""
    if name != "ArchivedTable":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from event_archive.defs.component import ArchivedTable

    return ArchivedTable


def __dir__() -> list[str]:
    """With the component: ``dg`` looks for components among these names."""
    return sorted({*globals(), *__all__})
